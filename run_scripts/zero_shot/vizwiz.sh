#!/usr/bin/env bash
# Answers the questions of VizWiz with a pretrained model, without fine-tuning, and scores the answers.
#
#   DATA=vizwiz VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/zero_shot/vizwiz bash run_scripts/zero_shot/vizwiz.sh [fairseq-generate flags]
#
# Data: python data_utils/build_vizwiz.py. The instruction is that of pretraining, whatever the checkpoint was trained with. The
# question is given to the encoder alone; the candidate answers limit the search, not the probabilities (--zero-shot). Paper
# (table 11): 20.22.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-valid}"
recipe evaluation vqa image "$@"
evaluate --instruction "[IMAGE:image] [$QUESTION] -> [TEXT:answer,weighted,closed_set]" --zero-shot --unnormalized "$@"
