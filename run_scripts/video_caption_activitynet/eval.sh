#!/usr/bin/env bash
# Captions the videos of a split of ActivityNet Captions with a trained model (beam 5, hypotheses are compared by their score
# per token, as published for ActivityNet Captions) and scores the captions.
#
#   DATA=activitynet CHECKPOINT=out/video_caption_activitynet/checkpoint_best.pt OUT=out/video_caption_activitynet bash run_scripts/video_caption_activitynet/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_activitynet.py. Paper, test: METEOR 10.51, BLEU-3 7.67, BLEU-4 4.76. METEOR needs Java:
# METRICS=cider,bleu,rouge_l,meteor.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation caption video "$@"
evaluate --max-len-b 22 --no-repeat-ngram-size 3 "$@"
