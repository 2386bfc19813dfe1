#!/usr/bin/env bash
# Captions COCO with a pretrained model, without fine-tuning, and scores the captions.
#
#   DATA=coco VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/zero_shot/caption_coco bash run_scripts/zero_shot/caption_coco.sh [fairseq-generate flags]
#
# Data: python data_utils/build_coco.py. The instruction is that of pretraining, whatever the checkpoint was trained with. Paper
# (table 10), CIDEr: validation 90.07, test 91.04.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation caption image "$@"
evaluate --instruction "$IMAGE_CAPTION" --max-len-b 22 --no-repeat-ngram-size 3 --unnormalized "$@"
