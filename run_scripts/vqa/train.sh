#!/usr/bin/env bash
# Fine-tunes a base model on VQAv2 with the published recipe.
#
#   DATA=vqa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/vqa bash run_scripts/vqa/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_vqa.py; 443,757 questions of training. Published on 8 GPUs: 128 rows an update, about 69,000
# updates. Paper: test-dev 77.0, test-std 77.1.
#
# 20 epochs with 128 rows an update, as the published script has (the paper names 5 epochs with 256). The question is given to
# encoder and decoder, answers are those of ANSWERS, and a row's answer of the highest weight is learned, with its weight. The
# averaged weights (EMA) are validated.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training vqa image "$@"
finetune 16 128 20 "${CROSS_ENTROPY[@]}" "${QUESTIONS[@]}" "${EMA[@]}" --lr 1e-4 --patch-image-size 480 "$@"
