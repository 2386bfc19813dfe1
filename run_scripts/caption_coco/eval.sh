#!/usr/bin/env bash
# Captions a split with a trained model (beam 5, unnormalized, as published) and scores the captions.
#
#   DATA=coco CHECKPOINT=out/caption_coco/checkpoint_best.pt OUT=out/caption_coco bash run_scripts/caption_coco/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_coco.py. Paper, test: CIDEr 137.0, BLEU-4 42.0, METEOR 30.5, SPICE 23.6. METEOR and SPICE need
# Java: METRICS=cider,bleu,rouge_l,meteor,spice.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation caption image "$@"
evaluate --max-len-b 22 --no-repeat-ngram-size 3 --unnormalized "$@"
