#!/usr/bin/env bash
# Fine-tunes a base model on video captioning (MSR-VTT and its like) with the published recipe.
#
#   DATA=msrvtt VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/video_caption bash run_scripts/video_caption/train.sh [fairseq-train flags]
#
# Variables
#   DATA         folder with train.tsv and valid.tsv, or train.jsonl and valid.jsonl (columns video and caption)
#   VOCAB        folder with encoder.json, vocab.bpe, dict.txt: python data_utils/fetch_vocabulary.py --out vocabulary
#   CHECKPOINT   the model to start from, published or ours; if it has no video part, add
#                --new-modalities video --video-backbone-weights resnext-101-kinetics.pth
#   OUT          folder for checkpoints and the log train.jsonl; the same command started again resumes what is there
#   GPUS         number of GPUs (default: all there are; 0: the CPU)
#   SEED, WORKERS
#
# 16 frames of 384 pixels, augmented; one update sees 256 rows, as in the published run (8 GPUs x 16 x 2). 20 epochs, as the
# published script has (the paper names 15) over a table with one caption a row; of a row with several references an epoch
# draws one, so with the 20 of MSR-VTT in a row --max-epoch 400 is as much training. ActivityNet Captions is trained with
# --lr 3e-5 for 25 epochs. The learning rate follows the length of the run, whatever sets it. It validates every 2,000 updates
# and after each epoch, and saves after each epoch: the last, the best and the best by its score (2 GB each).
# --save-interval-updates 2000 --keep-interval-updates 1 saves within epochs as well. From a published checkpoint, validation
# and evaluation crop frames without resizing, as the original does (--frame-fit crop resizes them).
# Flags given on the command line come last and win over the script's.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; exit 0; fi

begin_training "folder with train.tsv or train.jsonl of video captions" video
batch_size=16 epochs=20
update_freq 256 "$batch_size"
train_captions "$batch_size" "$epochs" \
  --instruction "[VIDEO:video] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]" \
  --eval-args '{"beam": 5, "unnormalized": true, "max_len_b": 200, "no_repeat_ngram_size": 0}' \
  --lr 1e-5 --patch-frame-size 384 --num-frames 16 --use-dataaug "$@"
