#!/usr/bin/env bash
# Finds the regions of RefCOCO+ with a trained model (beam 5, as published) and scores the boxes.
#
#   DATA=refcocoplus CHECKPOINT=out/refcocoplus/checkpoint_best.pt OUT=out/refcocoplus bash run_scripts/refcocoplus/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_refcoco.py; SPLIT may be valid, testA, testB. Paper, Acc@0.5: val 82.18, testA 86.92, testB
# 75.27.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation grounding image "$@"
evaluate "${ONE_BOX[@]}" "$@"
