#!/usr/bin/env bash
# The second published stage of pretraining: images, videos and texts, without CC12M.
#
#   DATA=pretrain CHECKPOINT=out/pretrain/1-images/checkpoint_last.pt OUT=out/pretrain bash run_scripts/pretrain/stage2.sh [fairseq-train flags]
#
# Data: python data_utils/build_pretrain.py; those of stage1.sh without CC12M, and WebVid-2M, WebVidQA. It is the stage videos of
# unival.yaml, into OUT/2-videos, from the last checkpoint in OUT/1-images or else from CHECKPOINT: 8 of the 50 epochs of its schedule,
# 90,000 updates of 2,000 rows, of which each gives two examples. Half of a batch are images, half are videos, as in the paper (4,000
# examples, 2,000 of each modality); the counters of the published script read 4 videos beside 10 rows of images.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
published_pretraining "$@"
published_stage 2 videos 1-images "$@"
