#!/usr/bin/env bash
# Trains a small model from scratch on easy-VQA: questions about images of one drawn shape.
#
#   DATA=easy_vqa OUT=out/easy_vqa bash run_scripts/easy_vqa/train.sh --media-root FOLDER/easy_vqa/data [fairseq-train flags]
#
# Data: python data_utils/build_easy_vqa.py --row-per-file; 36,631 questions about 3,800 images of 64 x 64 pixels, of which an update sees
# 32 images with all of their questions. A table with a row for each question is trained on as well, 128 rows an update.
# Small updates do not learn shapes: batches of 32 questions end near 80%, with the colours right and the shapes guessed.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe scratch vqa image "$@"
own_vocabulary 400 question answer
batch=128 lr=5e-4 builder=plain
if [ "${#TSV[@]}" -eq 0 ] && grep -q -m 1 '"question": *\[' "$TABLE"; then batch=32 lr=1e-3 builder=grouped; fi
train_small "$batch" 8 --lr "$lr" --builder "$builder" --patch-image-size 64 --eval-metrics accuracy --best-checkpoint-metric accuracy --eval-args '{"beam": 1}' "$@"
