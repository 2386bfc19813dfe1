#!/usr/bin/env bash
# Trains a small model from scratch on easy-VQA: questions about images of one drawn shape.
#
#   DATA=easy_vqa OUT=out/easy_vqa bash run_scripts/easy_vqa/train.sh --media-root FOLDER/easy_vqa/data [fairseq-train flags]
#
# Data: python data_utils/build_easy_vqa.py; 36,631 questions about 3,800 images of 64 x 64 pixels.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe scratch vqa image "$@"
own_vocabulary 400 question answer
train_small 32 2 --lr 1.5e-3 --patch-image-size 64 --best-checkpoint-metric vqa_score --eval-args '{"beam": 1}' "$@"
