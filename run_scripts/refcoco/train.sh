#!/usr/bin/env bash
# Fine-tunes a base model on visual grounding (RefCOCO) with the published recipe.
#
#   DATA=refcoco VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/refcoco bash run_scripts/refcoco/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_refcoco.py; 120,624 expressions of training. Published on 8 GPUs: 256 rows an update, about
# 4,700 updates. Paper, Acc@0.5: val 89.12, testA 91.53, testB 85.16.
#
# 10 epochs, as the published script has (the paper names 8). Images become 512 x 512; a box is four bins.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training grounding image "$@"
finetune 8 256 10 "${CROSS_ENTROPY[@]}" "${BOXES[@]}" --lr 5e-5 "$@"
