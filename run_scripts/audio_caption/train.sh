#!/usr/bin/env bash
# Fine-tunes a base model on audio captioning (AudioCaps and its like) with the published recipe.
#
#   DATA=audiocaps VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/audio_caption bash run_scripts/audio_caption/train.sh [fairseq-train flags]
#
# Variables
#   DATA         folder with train.tsv and valid.tsv, or train.jsonl and valid.jsonl (columns audio and caption)
#   VOCAB        folder with encoder.json, vocab.bpe, dict.txt: python data_utils/fetch_vocabulary.py --out vocabulary
#   CHECKPOINT   the model to start from, published or ours; if it has no audio part, add
#                --new-modalities audio --audio-backbone-weights Cnn14_mAP=0.431.pth --audio-sample-rate 32000
#   OUT          folder for checkpoints and the log train.jsonl; the same command started again resumes what is there
#   GPUS         number of GPUs (default: all there are; 0: the CPU)
#   SEED, WORKERS
#
# 10 seconds of sound, 150 tokens; one update sees 128 rows, as in the published run (8 GPUs x 8 x 2), whose prompt says
# "video" of sounds, too. 25 epochs, as the published script has (the paper names 10) over a table with one caption a row; of a
# row with several references an epoch draws one, so with the 5 of Clotho in a row --max-epoch 125 is as much training. Clotho
# is trained with --lr 5e-5. The learning rate follows the length of the run, whatever sets it. It validates every 2,000
# updates and after each epoch, and saves after each epoch: the last, the best and the best by its score (2 GB each).
# --save-interval-updates 2000 --keep-interval-updates 1 saves within epochs as well.
# Flags given on the command line come last and win over the script's.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; exit 0; fi

begin_training "folder with train.tsv or train.jsonl of audio captions" audio
batch_size=8 epochs=25
update_freq 128 "$batch_size"
train_captions "$batch_size" "$epochs" \
  --instruction "[AUDIO:audio] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]" \
  --eval-args '{"beam": 5, "unnormalized": true, "max_len_b": 200, "no_repeat_ngram_size": 0}' \
  --lr 1e-4 --audio-hop-size 200 "$@"
