#!/usr/bin/env bash
# Captions NoCaps (4,500 images of validation) with a trained model and scores the captions.
#
#   DATA=nocaps CHECKPOINT=out/nocaps/checkpoint_best.pt OUT=out/nocaps bash run_scripts/nocaps/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_nocaps.py. The paper's figures are those without fine-tuning (zero_shot/nocaps.sh). The official
# server takes the file of unival score --submission.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation caption image "$@"
evaluate --max-len-b 22 --no-repeat-ngram-size 3 --unnormalized "$@"
