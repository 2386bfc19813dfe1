#!/usr/bin/env bash
# Answers the questions of MSRVTT-QA with a trained model (beam 5 over the candidate answers, unnormalized, averaged weights, as
# published) and scores the answers.
#
#   DATA=msrvtt_qa CHECKPOINT=out/video_qa_msrvtt/checkpoint_best_ema.pt OUT=out/video_qa_msrvtt bash run_scripts/video_qa_msrvtt/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_msrvtt_qa.py. Paper, test accuracy: 43.48.
#
# Training writes the averaged weights as checkpoint_best_ema.pt; --weights ema takes them out of a checkpoint that keeps both, such
# as a published one.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation vqa video "$@"
evaluate --unnormalized "$@"
