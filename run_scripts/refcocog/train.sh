#!/usr/bin/env bash
# Fine-tunes a base model on visual grounding (RefCOCOg) with the published recipe.
#
#   DATA=refcocog VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/refcocog bash run_scripts/refcocog/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_refcoco.py; 80,512 expressions of training. Published on 8 GPUs: 256 rows an update, about 3,100
# updates. Paper, Acc@0.5: val-u 84.70, test-u 85.16.
#
# 10 epochs, as the published script has (the paper names 8). Images become 512 x 512; a box is four bins.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training grounding image "$@"
finetune 8 256 10 "${CROSS_ENTROPY[@]}" "${BOXES[@]}" --lr 5e-5 "$@"
