#!/usr/bin/env bash
# Answers the questions of VQAv2 with a trained model (beam 5 over the candidate answers, unnormalized, averaged weights, as
# published) and scores the answers.
#
#   DATA=vqa CHECKPOINT=out/vqa/checkpoint_best_ema.pt OUT=out/vqa bash run_scripts/vqa/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_vqa.py. Paper: test-dev 77.0, test-std 77.1, whose answers are not public: SPLIT=test_dev
# METRICS=none SUBMISSION=vqa writes the file for the server. METRICS=vqa_score,vqa_accuracy adds the official accuracy, which
# needs ten answers a row.
#
# Training writes the averaged weights as checkpoint_best_ema.pt; --weights ema takes them out of a checkpoint that keeps both, such
# as a published one.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation vqa image "$@"
evaluate --unnormalized "$@"
