#!/usr/bin/env bash
# Answers the questions of MSVD-QA with a trained model (beam 5 over the candidate answers, unnormalized, averaged weights, as
# published) and scores the answers.
#
#   DATA=msvd_qa CHECKPOINT=out/video_qa_msvd/checkpoint_best_ema.pt OUT=out/video_qa_msvd bash run_scripts/video_qa_msvd/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_msvd_qa.py. Paper, test accuracy: 49.55.
#
# Training writes the averaged weights as checkpoint_best_ema.pt; --weights ema takes them out of a checkpoint that keeps both, such
# as a published one.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation vqa video "$@"
evaluate --unnormalized "$@"
