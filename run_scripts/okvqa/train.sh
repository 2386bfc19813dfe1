#!/usr/bin/env bash
# Fine-tunes a base model on OK-VQA with the settings of VQAv2.
#
#   DATA=okvqa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/okvqa bash run_scripts/okvqa/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_okvqa.py; 9,009 questions of training. Not published: the paper evaluates the pretrained model
# on OK-VQA without fine-tuning (zero_shot/okvqa.sh). As for VQAv2, 8 GPUs: 128 rows an update, about 1,400 updates.
#
# 20 epochs, as the published script has for VQAv2. The question is given to encoder and decoder, answers are those of ANSWERS,
# and a row's answer of the highest weight is learned, with its weight. The averaged weights (EMA) are validated.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training vqa image "$@"
finetune 16 128 20 "${CROSS_ENTROPY[@]}" "${QUESTIONS[@]}" "${EMA[@]}" --lr 1e-4 --patch-image-size 480 "$@"
