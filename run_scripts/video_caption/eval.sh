#!/usr/bin/env bash
# Captions the videos of a split with a trained model (beam 5, as published) and scores the captions.
#
#   DATA=msrvtt VOCAB=vocabulary CHECKPOINT=out/video_caption/checkpoint_best.pt OUT=out/video_caption bash run_scripts/video_caption/eval.sh [fairseq-generate flags]
#
# Variables
#   DATA         folder with test.tsv or test.jsonl (columns video and caption; all references of a video in one row)
#   VOCAB        folder with encoder.json, vocab.bpe, dict.txt: python data_utils/fetch_vocabulary.py --out vocabulary
#   CHECKPOINT   the model, published or ours
#   OUT          folder for generate-test.txt and scores-test.json
#   SPLIT        which table of DATA (default test)
#   METRICS      default cider,bleu,rouge_l (meteor and spice need Java)
#   GPUS         0: the CPU
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; exit 0; fi

SPLIT="${SPLIT:-test}"
begin_evaluation "folder with $SPLIT.tsv or $SPLIT.jsonl of video captions" video
generate_captions "$SPLIT" \
  --instruction "[VIDEO:video] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]" \
  --patch-frame-size 384 --num-frames 16 "$@"
