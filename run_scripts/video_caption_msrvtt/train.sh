#!/usr/bin/env bash
# Fine-tunes a base model on video captioning (MSR-VTT) with the published recipe.
#
#   DATA=msrvtt VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/video_caption_msrvtt bash run_scripts/video_caption_msrvtt/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_msrvtt.py; 130,260 captions of 6,513 videos. Published on 8 GPUs: 256 rows an update, about
# 10,000 updates over a table with one caption a row. Paper, test: CIDEr 60.5, BLEU-4 46.42, METEOR 29.01, ROUGE-L 62.92.
#
# 16 frames of 384 pixels, augmented. 20 epochs, as the published script has (the paper names 15). Of a row with several
# references an epoch draws one: with the 20 of MSR-VTT in a row, --max-epoch 400 is as much training. If the checkpoint has no
# video part, add --new-modalities video --video-backbone-weights resnext-101-kinetics.pth. From a published checkpoint,
# validation and evaluation crop frames without resizing, as the original does (--frame-fit crop resizes them).
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption video "$@"
finetune 16 256 20 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --lr 1e-5 --patch-frame-size 384 --num-frames 16 --use-dataaug \
  --instruction "$VIDEO_CAPTION" --eval-args "$UNNORMALIZED" "$@"
