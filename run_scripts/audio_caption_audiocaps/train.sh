#!/usr/bin/env bash
# Fine-tunes a base model on audio captioning (AudioCaps) with the published recipe.
#
#   DATA=audiocaps VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/audio_caption_audiocaps bash run_scripts/audio_caption_audiocaps/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_audiocaps.py; about 47,000 captions. Published on 8 GPUs: 128 rows an update, about 9,200
# updates over a table with one caption a row. Paper, test: CIDEr 71.3, BLEU-1 69.0, BLEU-2 51.5, METEOR 23.7, SPICE 17.8.
#
# 10 seconds of audio, 150 tokens; the published prompt says "video" of audio, too. 25 epochs, as the published script has (the
# paper names 10). Of a row with several references an epoch draws one: a clip of AudioCaps has one in training. If the
# checkpoint has no audio part, add --new-modalities audio --audio-backbone-weights Cnn14_mAP=0.431.pth --audio-sample-rate
# 32000.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption audio "$@"
finetune 8 128 25 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --lr 1e-4 --audio-hop-size 200 \
  --instruction "$AUDIO_CAPTION" --eval-args "$UNNORMALIZED" "$@"
