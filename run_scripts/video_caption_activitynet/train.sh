#!/usr/bin/env bash
# Fine-tunes a base model on video captioning (ActivityNet Captions) with the published recipe.
#
#   DATA=activitynet VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/video_caption_activitynet bash run_scripts/video_caption_activitynet/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_activitynet.py; 37,421 captioned segments. Published on 8 GPUs: 256 rows an update, about 3,700
# updates over a table with one caption a row. Paper, test: METEOR 10.51, BLEU-3 7.67, BLEU-4 4.76.
#
# 16 frames of 384 pixels, augmented. 25 epochs, as the published script has (the paper names none). Of a row with several
# references an epoch draws one: a segment has one caption in training. If the checkpoint has no video part, add
# --new-modalities video --video-backbone-weights resnext-101-kinetics.pth. From a published checkpoint, validation and
# evaluation crop frames without resizing, as the original does (--frame-fit crop resizes them).
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption video "$@"
finetune 16 256 25 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --lr 3e-5 --patch-frame-size 384 --num-frames 16 --use-dataaug \
  --instruction "$VIDEO_CAPTION" --eval-args "$UNNORMALIZED" "$@"
