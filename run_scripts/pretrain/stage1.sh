#!/usr/bin/env bash
# The first published stage of pretraining: images and texts, from BART.
#
#   DATA=pretrain VOCAB=vocabulary CHECKPOINT=bart.pt OUT=out/pretrain bash run_scripts/pretrain/stage1.sh [fairseq-train flags]
#
# Data: python data_utils/build_pretrain.py; captions (COCO, Visual Genome, SBU, CC3M), CC12M, questions (VQAv2, GQA, Visual Genome),
# regions (RefCOCO, RefCOCO+, RefCOCOg, Visual Genome). CHECKPOINT is BART-base: unival convert --from bart. It is the stage images of
# unival.yaml, into OUT/1-images: 15 of the 50 epochs of its schedule, 150,000 updates of 1,600 rows, of which each gives two
# examples: the paper's batch of 3,200. The script gives 2 rows of captions a GPU at a time, and with each a question, a region
# and, with every eighth, a row of CC12M; its number of GPUs is not in it (128 make 3,200 of this).
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
published_pretraining "$@"
published_stage 1 images "" "$@"
