#!/usr/bin/env bash
# Trains the linear projection alone on VQAv2 with the published recipe.
#
#   DATA=vqa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/linear_only/vqa bash run_scripts/linear_only/vqa.sh [fairseq-train flags]
#
# Trains nothing but the linear projections of the media (1,573,632 parameters each); table 16 of the paper. The published code
# trains 5.86 million, tables of positions among them. Data: python data_utils/build_vqa.py. Published on 8 GPUs: 256 rows an
# update, 25 epochs, about 43,000 updates. Paper, validation: 71.6 from stage 1 and from stage 2.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training vqa image "$@"
finetune 16 256 25 "${CROSS_ENTROPY[@]}" "${QUESTIONS[@]}" "${EMA[@]}" --trainable projections --lr 5e-4 --patch-image-size 480 "$@"
