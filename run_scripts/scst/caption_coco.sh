#!/usr/bin/env bash
# Goes on with a captioning model by self-critical training on COCO: the model's own captions are rewarded by CIDEr-D.
#
#   DATA=coco CHECKPOINT=out/caption_coco/checkpoint_best.pt OUT=out/scst/caption_coco bash run_scripts/scst/caption_coco.sh [fairseq-train flags]
#
# Start from what caption_coco/train.sh has written. Data: python data_utils/build_coco.py, with all references of an image in one
# row (not --row-per-reference). The paper has no such run; here one update sees 64 images with 5 sampled captions each, 3 epochs,
# about 5,300 updates, without dropout. --scst-args '{"beam": 5, "nbest": 5}' takes the captions of a beam search, --cider-df FILE
# the document frequencies of published evaluations.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe training caption image "$@"
finetune 8 64 3 --criterion unival_scst "${CAPTIONS[@]}" --lr 1e-6 --warmup-ratio 0 --patch-image-size 480 \
  --dropout 0 --encoder-drop-path-rate 0 --decoder-drop-path-rate 0 \
  --eval-args '{"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}' "$@"
