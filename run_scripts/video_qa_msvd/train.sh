#!/usr/bin/env bash
# Fine-tunes a base model on video question answering (MSVD-QA) with the published recipe.
#
#   DATA=msvd_qa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/video_qa_msvd bash run_scripts/video_qa_msvd/train.sh [fairseq-train flags]
#
# Data: python data_utils/build_msvd_qa.py; 30,933 questions of training. Published on 8 GPUs: 128 rows an update, about 9,700
# updates. Paper, test accuracy: 49.55.
#
# 8 frames of 384 pixels. 40 epochs, as the published script has and the paper names. The averaged weights (EMA) are validated.
# If the checkpoint has no video part, add --new-modalities video --video-backbone-weights resnext-101-kinetics.pth.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training vqa video "$@"
finetune 8 128 40 "${ENCOURAGING[@]}" "${QUESTIONS[@]}" "${EMA[@]}" --lr 1e-4 --patch-frame-size 384 --num-frames 8 \
  --instruction "$VIDEO_QUESTION" "$@"
