#!/usr/bin/env bash
# Fine-tunes one pretrained model on several tasks and averages the weights: one model for all of them.
#
#   DATA=tables VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/merging bash run_scripts/merging/vanilla.sh [fairseq-train flags]
#
# Tables: data_utils/README.md, in DATA/TASK. Writes the models to OUT/finetuned/TASK and the average to OUT/vanilla/TASK.pt:
# the same weights for every task, with its instruction. Hardware and time are those of the tasks' recipes, 8 GPUs as
# published; merging takes seconds on a CPU, as much memory as one model, and 1 GB of disk for each task. TASKS="video_caption_msrvtt
# video_qa_msrvtt" is for videos.
#
# The paper (section 5) averages its four with 1/N each, and two with all lambdas in W = lambda W_1 + (1 - lambda) W_2: 0.8 of
# captioning and 0.2 of VQA have CIDEr 138.51, captioning alone has 136.52 (figure 2). Here the second model's share is the
# lambda: TASKS="caption_coco vqa" MERGE="--lambda 0.2". It is chosen on validation rows: unival sweep scores all of them without writing
# files. Models of different media lack each other's parts: MERGE="--missing skip".
source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"
merging 2 "$@"
check_merge "${#TASK_NAMES[@]}"
finetune_tasks "$@"
best_models "${TASK_NAMES[@]}"
merge_for "$OUT/vanilla" "${TASK_NAMES[@]}" -- "${MODELS[@]}"
