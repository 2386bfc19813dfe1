#!/usr/bin/env bash
# The last published stage of pretraining: one more epoch of images at 480 pixels and videos of 16 frames at 384 pixels.
#
#   DATA=pretrain CHECKPOINT=out/pretrain/2-videos/checkpoint_last.pt OUT=out/pretrain bash run_scripts/pretrain/stage2_highres.sh [fairseq-train flags]
#
# Data: python data_utils/build_pretrain.py; those of stage2.sh. It is the stage highres of unival.yaml, into OUT/3-highres, from the last
# checkpoint in OUT/2-videos or else from CHECKPOINT: 1 of the 50 epochs of its schedule, 11,250 updates of 2,000 rows.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
published_pretraining "$@"
published_stage 3 highres 2-videos "$@"
