#!/usr/bin/env bash
# Fine-tunes a base model for NoCaps: on COCO's captions (caption_coco/train.sh), as NoCaps has none for training.
#
#   DATA=coco VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/nocaps bash run_scripts/nocaps/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_coco.py. Published on 8 GPUs; the paper evaluates the pretrained model on NoCaps without
# fine-tuning (zero_shot/nocaps.sh).
#
# 10 epochs, as the published script has (the paper names 4). Of a row with several references an epoch draws one.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then
  usage "${BASH_SOURCE[0]}"
  help_training caption image
  exit 0
fi
exec bash "$UNIVAL_ROOT/run_scripts/caption_coco/train.sh" "$@"
