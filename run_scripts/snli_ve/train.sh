#!/usr/bin/env bash
# Fine-tunes a base model on visual entailment (SNLI-VE) with the published recipe.
#
#   DATA=snli_ve VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/snli_ve bash run_scripts/snli_ve/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_snli_ve.py; 529,527 rows of training. Published on 8 GPUs: 256 rows an update, about 21,000
# updates. Paper: dev 78.2, test 78.6.
#
# 10 epochs, as the published script has (the paper names 4). The model reads image and hypothesis, not the premise; the
# hypothesis is given to encoder and decoder.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training entailment image "$@"
finetune 8 256 10 "${CROSS_ENTROPY[@]}" --label-smoothing 0 --lr 5e-5 --max-tgt-length 20 --patch-image-size 480 \
  --best-checkpoint-metric accuracy "$@"
