#!/usr/bin/env bash
# Trains the linear projection alone on video captioning (MSR-VTT) with the published recipe.
#
#   DATA=msrvtt VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/linear_only/video_caption_msrvtt bash run_scripts/linear_only/video_caption_msrvtt.sh [fairseq-train flags]
#
# Trains nothing but the linear projections of the media (1,573,632 parameters each); table 16 of the paper. The published code
# trains 5.86 million, tables of positions among them. Data: python data_utils/build_msrvtt.py. Published on 8 GPUs: 256 rows an
# update, 25 epochs, about 13,000 updates over a table with one caption a row. Paper, CIDEr: 39.8 from stage 1, 51.8 from stage
# 2. From stage 1, add --new-modalities video --video-backbone-weights resnext-101-kinetics.pth.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption video "$@"
finetune 16 256 25 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --trainable projections --lr 1e-3 --patch-frame-size 384 --num-frames 16 \
  --use-dataaug --instruction "$VIDEO_CAPTION" --eval-args "$UNNORMALIZED" "$@"
