#!/usr/bin/env bash
# Trains the linear projection alone on video question answering (MSRVTT-QA) with the published recipe.
#
#   DATA=msrvtt_qa VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/linear_only/video_qa_msrvtt bash run_scripts/linear_only/video_qa_msrvtt.sh [fairseq-train flags]
#
# Trains nothing but the linear projections of the media (1,573,632 parameters each); table 16 of the paper. The published code
# trains 5.86 million, tables of positions among them. Data: python data_utils/build_msrvtt_qa.py. Published on 8 GPUs: 128 rows
# an update, 40 epochs, about 50,000 updates. Paper, test accuracy: 19.1 from stage 1, 33.6 from stage 2. From stage 1, add
# --new-modalities video --video-backbone-weights resnext-101-kinetics.pth.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training vqa video "$@"
finetune 8 128 40 "${ENCOURAGING[@]}" "${QUESTIONS[@]}" "${EMA[@]}" --trainable projections --lr 1e-4 --patch-frame-size 384 \
  --num-frames 8 --use-dataaug --instruction "$VIDEO_QUESTION" "$@"
