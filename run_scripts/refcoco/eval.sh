#!/usr/bin/env bash
# Finds the regions of RefCOCO with a trained model (beam 5, as published) and scores the boxes.
#
#   DATA=refcoco CHECKPOINT=out/refcoco/checkpoint_best.pt OUT=out/refcoco bash run_scripts/refcoco/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_refcoco.py; SPLIT may be valid, testA, testB. Paper, Acc@0.5: val 89.12, testA 91.53, testB
# 85.16.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation grounding image "$@"
evaluate "${ONE_BOX[@]}" "$@"
