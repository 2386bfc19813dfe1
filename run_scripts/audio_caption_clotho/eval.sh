#!/usr/bin/env bash
# Captions the audio of a split of Clotho v1 with a trained model (beam 5, at most 16 tokens, as published) and scores the
# captions.
#
#   DATA=clotho CHECKPOINT=out/audio_caption_clotho/checkpoint_best.pt OUT=out/audio_caption_clotho bash run_scripts/audio_caption_clotho/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_clotho.py. Paper, test: CIDEr 38.0, BLEU-1 56.9, BLEU-2 36.7, METEOR 17.8, SPICE 11.4. METEOR
# and SPICE need Java: METRICS=cider,bleu,rouge_l,meteor,spice.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation caption audio "$@"
evaluate --max-len-b 16 --no-repeat-ngram-size 3 "$@"
