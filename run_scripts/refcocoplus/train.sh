#!/usr/bin/env bash
# Fine-tunes a base model on visual grounding (RefCOCO+) with the published recipe.
#
#   DATA=refcocoplus VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/refcocoplus bash run_scripts/refcocoplus/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_refcoco.py; 120,191 expressions of training. Published on 8 GPUs: 256 rows an update, about
# 4,700 updates. Paper, Acc@0.5: val 82.18, testA 86.92, testB 75.27.
#
# 10 epochs, as the published script has (the paper names 8). Images become 512 x 512; a box is four bins.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training grounding image "$@"
finetune 8 256 10 "${CROSS_ENTROPY[@]}" "${BOXES[@]}" --lr 5e-5 "$@"
