#!/usr/bin/env bash
# Finds the regions of RefCOCOg with a trained model (beam 5, as published) and scores the boxes.
#
#   DATA=refcocog CHECKPOINT=out/refcocog/checkpoint_best.pt OUT=out/refcocog bash run_scripts/refcocog/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_refcoco.py; SPLIT may be valid, test. Paper, Acc@0.5: val-u 84.70, test-u 85.16.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation grounding image "$@"
evaluate "${ONE_BOX[@]}" "$@"
