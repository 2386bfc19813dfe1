#!/usr/bin/env bash
# WiSE-FT (Wortsman et al. 2022): fine-tunes a model on each task and interpolates it with the pretrained one, which keeps more of what
# that can do on other data.
#
#   DATA=tables VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/merging TASKS=vqa bash run_scripts/merging/wise_ft.sh [fairseq-train flags]
#
# Writes to OUT/finetuned/TASK the models of vanilla.sh, and to OUT/wise_ft/TASK.pt the interpolation. SHARE is that of the
# fine-tuned model (default 0.5, which their paper recommends where there are no rows of the other data to choose it by). Parts that
# fine-tuning left out, of other media, are the pretrained model's. UnIVAL's paper has no such run.
source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"
merging 1 "$@"
MERGE="--lambda ${SHARE:-0.5} --missing skip ${MERGE:-}"
check_merge 2
finetune_tasks "$@"
for task in "${TASK_NAMES[@]}"; do
  best_of "$OUT/finetuned/$task"
  merge_models "$OUT/wise_ft/$task.pt" "$MODEL" "$CHECKPOINT" "$MODEL"
done
