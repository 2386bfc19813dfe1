#!/usr/bin/env bash
# Captions the audio of a split of AudioCaps with a trained model (beam 5, at most 16 tokens, as published) and scores the
# captions.
#
#   DATA=audiocaps CHECKPOINT=out/audio_caption_audiocaps/checkpoint_best.pt OUT=out/audio_caption_audiocaps bash run_scripts/audio_caption_audiocaps/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_audiocaps.py. Paper, test: CIDEr 71.3, BLEU-1 69.0, BLEU-2 51.5, METEOR 23.7, SPICE 17.8. METEOR
# and SPICE need Java: METRICS=cider,bleu,rouge_l,meteor,spice.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation caption audio "$@"
evaluate --max-len-b 16 --no-repeat-ngram-size 3 "$@"
