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
#   OUT          folder for checkpoints and the log train.jsonl
#   GPUS         number of GPUs (default: all there are; 0: the CPU)
#   SEED, WORKERS
#
# 16 frames of 384 pixels, augmented; one update sees 256 rows, as in the published run (8 GPUs x 16 x 2). ActivityNet Captions
# is trained with --lr 3e-5 for 25 epochs. Flags given on the command line come last and win over the script's.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; exit 0; fi

begin_training "folder with train.tsv or train.jsonl of video captions" video
batch_size=16 epochs=20
schedule 256 "$batch_size" "$epochs" 0.06
train --task unival_caption --arch unival_base --restore-file "$CHECKPOINT" \
  --reset-optimizer --reset-dataloader --reset-meters --reset-lr-scheduler \
  --instruction "[VIDEO:video] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]" \
  ${TSV_COLUMNS[@]+"${TSV_COLUMNS[@]}"} \
  --criterion unival_encouraging --label-smoothing 0.1 --log-end 0.75 --drop-worst-ratio 0.05 --drop-worst-after 6000 \
  --lr 1e-5 --total-num-update "$TOTAL_UPDATES" --warmup-updates "$WARMUP_UPDATES" \
  --max-epoch "$epochs" --batch-size "$batch_size" --update-freq "$UPDATE_FREQ" \
  --dropout 0.1 --encoder-drop-path-rate 0.1 --decoder-drop-path-rate 0.1 --freeze-token-embeddings \
  --patch-frame-size 384 --num-frames 16 --use-dataaug --max-src-length 80 --max-tgt-length 20 \
  --best-checkpoint-metric cider --maximize-best-checkpoint-metric "$@"
