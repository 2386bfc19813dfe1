#!/usr/bin/env bash
# Goes on with a grounding model by self-critical training on RefCOCO: right boxes of one size are rewarded, as in rewarded
# soups.
#
#   DATA=refcoco CHECKPOINT=out/refcoco/checkpoint_best.pt OUT=out/scst/refcoco bash run_scripts/scst/refcoco.sh [fairseq-train flags]
#
# Start from what refcoco/train.sh has written. Data: python data_utils/build_refcoco.py. Published on 8 GPUs (RefCOCO+): 256
# rows an update, 10 epochs, the box of a beam of 5, reward 1 if it overlaps the right one by half, and cross-entropy beside it.
#
# AREA says which boxes are rewarded: large (default; from 100,000 square pixels on, as in the published script), medium or
# small (by COCO's areas), all. Models of different AREA are what rewarded soups average.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training grounding image "$@"
finetune 8 256 10 --criterion unival_grounding_scst "${REWARDED[@]}" "${BOXES[@]}" --lr 3e-5 "$@"
