#!/usr/bin/env bash
# Finds the regions of RefCOCO+ with a pretrained model, without fine-tuning, and scores the boxes.
#
#   DATA=refcocoplus VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/zero_shot/refcocoplus bash run_scripts/zero_shot/refcocoplus.sh [fairseq-generate flags]
#
# Data: python data_utils/build_refcoco.py. The instruction is that of pretraining, whatever the checkpoint was trained with.
# Paper (table 10), Acc@0.5: validation 70.81.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation grounding image "$@"
evaluate --instruction "$REGION" "${ONE_BOX[@]}" "$@"
