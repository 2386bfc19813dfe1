#!/usr/bin/env bash
# Trains the linear projection alone on audio captioning (AudioCaps) with the published recipe.
#
#   DATA=audiocaps VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/linear_only/audio_caption_audiocaps bash run_scripts/linear_only/audio_caption_audiocaps.sh [fairseq-train flags]
#
# Trains nothing but the linear projections of the media (1,573,632 parameters each); table 16 of the paper. The published code
# trains 5.86 million, tables of positions among them. Data: python data_utils/build_audiocaps.py. Published on 8 GPUs: 128 rows
# an update, 25 epochs, about 9,200 updates. Paper, CIDEr: 47.5 from stage 1, 49.5 from stage 2. From stage 1 the published
# learning rate is ten times this one: --lr 5e-3. Add --new-modalities audio --audio-backbone-weights Cnn14_mAP=0.431.pth
# --audio-sample-rate 32000.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption audio "$@"
finetune 8 128 25 "${ENCOURAGING[@]}" "${CAPTIONS[@]}" --trainable projections --lr 5e-4 --audio-hop-size 200 \
  --instruction "$AUDIO_CAPTION" --eval-args "$UNNORMALIZED" "$@"
