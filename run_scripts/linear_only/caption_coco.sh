#!/usr/bin/env bash
# Trains the linear projection alone on image captioning (COCO, Karpathy split) with the published recipe.
#
#   DATA=coco VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/linear_only/caption_coco bash run_scripts/linear_only/caption_coco.sh [fairseq-train flags]
#
# Trains nothing but the linear projections of the media (1,573,632 parameters each); table 16 of the paper. The published code
# trains 5.86 million, tables of positions among them. Data: python data_utils/build_coco.py. Published on 8 GPUs: 256 rows an
# update, 25 epochs, about 55,000 updates over a table with one caption a row. Paper, CIDEr: 129.8 from stage 1, 132.7 from
# stage 2.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption image "$@"
finetune 16 256 25 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --trainable projections --lr 5e-4 --patch-image-size 480 \
  --eval-args "$UNNORMALIZED" "$@"
