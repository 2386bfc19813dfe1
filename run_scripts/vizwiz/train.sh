#!/usr/bin/env bash
# Fine-tunes a base model on VizWiz with the settings of VQAv2.
#
#   DATA=vizwiz VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/vizwiz bash run_scripts/vizwiz/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_vizwiz.py; 20,523 questions of training. Not published: the paper evaluates the pretrained model
# on VizWiz without fine-tuning (zero_shot/vizwiz.sh). As for VQAv2, 8 GPUs: 128 rows an update, about 3,200 updates.
#
# 20 epochs, as the published script has for VQAv2. The question is given to encoder and decoder, answers are those of ANSWERS,
# and a row's answer of the highest weight is learned, with its weight. The averaged weights (EMA) are validated.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training vqa image "$@"
finetune 16 128 20 "${CROSS_ENTROPY[@]}" "${QUESTIONS[@]}" "${EMA[@]}" --lr 1e-4 --patch-image-size 480 "$@"
