#!/usr/bin/env bash
# Fine-tunes a base model on image captioning (COCO, Karpathy split) with the published recipe.
#
#   DATA=coco VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/caption_coco bash run_scripts/caption_coco/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_coco.py; 566,747 captions of 113,287 images. Published on 8 GPUs: 128 rows an update, about
# 44,000 updates over a table with one caption a row. Paper, cross-entropy, test: CIDEr 137.0, BLEU-4 42.0, METEOR 30.5, SPICE
# 23.6.
#
# 10 epochs, as the published script has (the paper names 4). Of a row with several references an epoch draws one: with the 5 of
# COCO in a row, --max-epoch 50 is as much training.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption image "$@"
finetune 16 128 10 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --lr 1e-5 --patch-image-size 480 \
  --eval-args '{"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}' "$@"
