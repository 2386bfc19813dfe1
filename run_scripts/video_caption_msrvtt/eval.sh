#!/usr/bin/env bash
# Captions the videos of a split of MSR-VTT with a trained model (beam 5, unnormalized, as published for MSR-VTT) and scores the
# captions.
#
#   DATA=msrvtt CHECKPOINT=out/video_caption_msrvtt/checkpoint_best.pt OUT=out/video_caption_msrvtt bash run_scripts/video_caption_msrvtt/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_msrvtt.py. Paper, test: CIDEr 60.5, BLEU-4 46.42, METEOR 29.01, ROUGE-L 62.92. METEOR needs
# Java: METRICS=cider,bleu,rouge_l,meteor.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation caption video "$@"
evaluate --max-len-b 22 --no-repeat-ngram-size 3 --unnormalized "$@"
