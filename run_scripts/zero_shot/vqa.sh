#!/usr/bin/env bash
# Answers the questions of VQAv2 with a pretrained model, without fine-tuning, and scores the answers.
#
#   DATA=vqa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/zero_shot/vqa bash run_scripts/zero_shot/vqa.sh [fairseq-generate flags]
#
# Data: python data_utils/build_vqa.py. The instruction is that of pretraining, whatever the checkpoint was trained with. The
# question is given to the encoder alone; the candidate answers limit the search, not the probabilities (--zero-shot). Paper
# (table 10): test-dev 70.18.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation vqa image "$@"
evaluate --instruction "[IMAGE:image] [$QUESTION] -> [TEXT:answer,weighted,closed_set]" --zero-shot --unnormalized "$@"
