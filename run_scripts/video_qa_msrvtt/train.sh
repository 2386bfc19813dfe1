#!/usr/bin/env bash
# Fine-tunes a base model on video question answering (MSRVTT-QA) with the published recipe.
#
#   DATA=msrvtt_qa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/video_qa_msrvtt bash run_scripts/video_qa_msrvtt/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_msrvtt_qa.py; 158,581 questions of training. Published on 8 GPUs: 128 rows an update, about
# 43,000 updates. Paper, test accuracy: 43.48.
#
# 8 frames of 384 pixels. 35 epochs, as the published script has (the paper names 25). The averaged weights (EMA) are validated.
# If the checkpoint has no video part, add --new-modalities video --video-backbone-weights resnext-101-kinetics.pth.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training vqa video "$@"
finetune 8 128 35 "${ENCOURAGING[@]}" "${QUESTIONS[@]}" "${EMA[@]}" --lr 1e-4 --patch-frame-size 384 --num-frames 8 \
  --instruction "$VIDEO_QUESTION" "$@"
