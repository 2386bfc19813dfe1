#!/usr/bin/env bash
# Fine-tunes a base model on image captioning (COCO Karpathy split) with the published recipe.
#
#   DATA=coco VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/caption bash run_scripts/caption/train.sh [fairseq-train flags]
#
# Variables
#   DATA         folder with train.tsv and valid.tsv, or train.jsonl and valid.jsonl (columns image and caption)
#   VOCAB        folder with encoder.json, vocab.bpe, dict.txt: python data_utils/fetch_vocabulary.py --out vocabulary
#   CHECKPOINT   the model to start from
#   OUT          folder for checkpoints and the log train.jsonl; the same command started again resumes what is there
#   GPUS         number of GPUs (default: all there are; 0: the CPU)
#   SEED, WORKERS
#
# One update sees 128 rows, as in the published run (8 GPUs x 16): with fewer GPUs the gradients of several batches are
# added up. Flags given on the command line come last and win over the script's.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; exit 0; fi

begin_training "folder with train.tsv or train.jsonl of image captions" image
batch_size=16 epochs=10
schedule 128 "$batch_size" "$epochs" 0.06
train_captions "$batch_size" "$epochs" \
  --lr 1e-5 --patch-image-size 480 "$@"
