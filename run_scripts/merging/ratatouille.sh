#!/usr/bin/env bash
# Ratatouille (Ramé et al. 2023): fine-tunes models of the other tasks on each target, averages these, then averages the targets'
# models.
#
#   DATA=tables VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/merging bash run_scripts/merging/ratatouille.sh [fairseq-train flags]
#
# Writes to OUT/finetuned/TASK the models of vanilla.sh, to OUT/ratatouille/TARGET/AUXILIARY what is fine-tuned from each on each
# target, to OUT/ratatouille/TARGET/average.pt their average, the target's model, and to OUT/ratatouille/TARGET.pt the average of
# all targets. With N tasks N x N trainings, on the tasks' hardware (8 GPUs as published), each of which keeps 4 to 6 GB;
# TARGETS="vqa" makes the model of one.
#
# Paper: better than vanilla.sh and fusing.sh on the tasks (figures 2, 3 and 6) and without fine-tuning on others (table 20:
# OK-VQA 38.97, VizWiz 18.48, NoCaps 95.28). A target's model is better at the others, too: VQA at captioning 57.80 against 45.64,
# entailment at grounding 72.91 against 66.03, grounding at captioning 121.29 against 118.0 (section 5).
source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"
merging 2 "$@"
check_others
finetune_tasks "$@"
targets=()
for target in "${TARGET_NAMES[@]}"; do
  others_than "$target"
  models=()
  for task in "${OTHERS[@]}"; do
    best_of "$OUT/finetuned/$task"
    finetune_on "$target" "$MODEL" "$OUT/ratatouille/$target/$task" "$@"
    best_of "$OUT/ratatouille/$target/$task"
    models+=("$MODEL")
  done
  average="$OUT/ratatouille/$target/average.pt"
  merge_models "$average" "${models[0]}" "${models[@]}"
  targets+=("$average")
done
merge_for "$OUT/ratatouille" "${TARGET_NAMES[@]}" -- "${targets[@]}"
