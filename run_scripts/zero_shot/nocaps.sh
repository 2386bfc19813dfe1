#!/usr/bin/env bash
# Captions NoCaps (4,500 images of validation) with a pretrained model, without fine-tuning, and scores the captions.
#
#   DATA=nocaps VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/zero_shot/nocaps bash run_scripts/zero_shot/nocaps.sh [fairseq-generate flags]
#
# Data: python data_utils/build_nocaps.py. The instruction is that of pretraining, whatever the checkpoint was trained with.
# Paper (table 11), CIDEr: out-domain 50.02, all 51.52 in its columns' order.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation caption image "$@"
evaluate --instruction "$IMAGE_CAPTION" --max-len-b 22 --no-repeat-ngram-size 3 --unnormalized "$@"
