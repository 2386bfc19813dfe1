#!/usr/bin/env bash
# Answers the questions of a split of easy-VQA with a model of easy_vqa/train.sh, and scores the answers.
#
#   DATA=easy_vqa CHECKPOINT=out/easy_vqa/checkpoint_best.pt OUT=out/easy_vqa bash run_scripts/easy_vqa/eval.sh --media-root FOLDER/easy_vqa/data [fairseq-generate flags]
#
# Data: python data_utils/build_easy_vqa.py; the official test split has 9,673 questions about 1,000 images.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
METRICS="${METRICS:-accuracy}"
recipe evaluation vqa image "$@"
evaluate --beam 1 --batch-size 256 "$@"
