#!/usr/bin/env bash
# Answers the questions of OK-VQA with a trained model (beam 5 over the candidate answers, unnormalized, averaged weights, as
# published) and scores the answers.
#
#   DATA=okvqa CHECKPOINT=out/okvqa/checkpoint_best_ema.pt OUT=out/okvqa bash run_scripts/okvqa/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_okvqa.py. The paper's figures are those without fine-tuning (zero_shot/okvqa.sh).
# METRICS=vqa_score,vqa_accuracy adds the official accuracy, which needs ten answers a row.
#
# Training writes the averaged weights as checkpoint_best_ema.pt; --weights ema takes them out of a checkpoint that keeps both, such
# as a published one.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation vqa image "$@"
evaluate --unnormalized "$@"
