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
# added up. 10 epochs, as the published script has (the paper names 4) over a table with one caption a row; of a row with
# several references an epoch draws one, so with 5 a row --max-epoch 50 is as much training. The learning rate follows the
# length of the run, whatever sets it. It validates every 2,000 updates and after each epoch, and saves after each epoch: the
# last, the best and the best by its score (2 GB each). --save-interval-updates 2000 --keep-interval-updates 1 saves within
# epochs as well. Flags given on the command line come last and win over the script's.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; exit 0; fi

begin_training "folder with train.tsv or train.jsonl of image captions" image
batch_size=16 epochs=10
update_freq 128 "$batch_size"
train_captions "$batch_size" "$epochs" \
  --lr 1e-5 --patch-image-size 480 --eval-args '{"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}' "$@"
