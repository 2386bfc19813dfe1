#!/usr/bin/env bash
# Fine-tunes a base model on audio captioning (Clotho v1) with the published recipe.
#
#   DATA=clotho VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/audio_caption_clotho bash run_scripts/audio_caption_clotho/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_clotho.py; 14,465 captions of 2,893 clips. Published on 8 GPUs: 128 rows an update, about 2,800
# updates over a table with one caption a row. Paper, test: CIDEr 38.0, BLEU-1 56.9, BLEU-2 36.7, METEOR 17.8, SPICE 11.4.
#
# 10 seconds of audio, 150 tokens; the published prompt says "video" of audio, too. 25 epochs, as the published script has (the
# paper names 10). Of a row with several references an epoch draws one: with the 5 of Clotho in a row, --max-epoch 125 is as
# much training. If the checkpoint has no audio part, add --new-modalities audio --audio-backbone-weights Cnn14_mAP=0.431.pth
# --audio-sample-rate 32000.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption audio "$@"
finetune 16 128 25 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --lr 5e-5 --audio-hop-size 200 \
  --instruction "$AUDIO_CAPTION" --eval-args "$UNNORMALIZED" "$@"
