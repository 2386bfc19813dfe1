#!/usr/bin/env bash
# Answers the questions of MSRVTT-QA with a pretrained model, without fine-tuning, and scores the answers.
#
#   DATA=msrvtt_qa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/zero_shot/video_qa_msrvtt bash run_scripts/zero_shot/video_qa_msrvtt.sh [fairseq-generate flags]
#
# Data: python data_utils/build_msrvtt_qa.py. The instruction is that of pretraining, whatever the checkpoint was trained with.
# The question is given to the encoder alone; the candidate answers limit the search, not the probabilities (--zero-shot). Paper
# (table 11): 5.84.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
SPLIT="${SPLIT:-test}"
recipe evaluation vqa video "$@"
evaluate --instruction "[VIDEO:video] [$QUESTION] -> [TEXT:answer,weighted,closed_set]" --zero-shot --unnormalized "$@"
