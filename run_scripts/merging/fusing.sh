#!/usr/bin/env bash
# Fusing (Choshen et al. 2022): fine-tunes on each target from the average of models that were fine-tuned on the other tasks, then
# averages the targets' models.
#
#   DATA=tables VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/merging bash run_scripts/merging/fusing.sh [fairseq-train flags]
#
# Writes to OUT/finetuned/TASK the models of vanilla.sh, to OUT/fusing/TASK/start.pt the average of the others and beside it what is
# fine-tuned from it, and to OUT/fusing/TASK.pt the average of all targets. With N tasks 2 N trainings, on the tasks'
# hardware (8 GPUs as published), each of which keeps 4 to 6 GB.
#
# Paper: better than vanilla.sh on the tasks themselves (figure 3) and on VizWiz (15.63 against 13.57), not on OK-VQA (35.12 against
# 38.06) and NoCaps (93.58 against 94.39; table 20).
source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"
merging 2 "$@"
check_others
finetune_tasks "$@"
targets=()
for target in "${TARGET_NAMES[@]}"; do
  others_than "$target"
  best_models "${OTHERS[@]}"
  start="$OUT/fusing/$target/start.pt"
  merge_models "$start" "${MODELS[0]}" "${MODELS[@]}"
  finetune_on "$target" "$start" "$OUT/fusing/$target" "$@"
  best_of "$OUT/fusing/$target"
  targets+=("$MODEL")
done
merge_for "$OUT/fusing" "${TARGET_NAMES[@]}" -- "${targets[@]}"
