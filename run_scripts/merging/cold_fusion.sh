#!/usr/bin/env bash
# ColD Fusion (Don-Yehiya et al. 2023): in every round, fine-tunes the shared model on each task and replaces it by the average.
#
#   DATA=tables VOCAB=vocabulary CHECKPOINT=pretrained.pt OUT=out/merging bash run_scripts/merging/cold_fusion.sh [fairseq-train flags]
#
# ROUNDS (default 10) are of an epoch each, with the learning rate falling to 0 in each; --max-epoch changes that.
# Writes to OUT/cold_fusion/round-K/TASK.pt the average after round K: the same weights for every task, with its instruction.
# The trainings of a round are removed when it is merged, all but their logs: N tasks keep N GB a round, and need 4 to 6 GB for
# each task in between. Hardware is that of the tasks' recipes, 8 GPUs as published.
#
# UnIVAL's paper has no such run. That of ColD Fusion, on 35 text data sets of which some take part in each round, finds that what it makes
# is a better start for further fine-tuning: CHECKPOINT=OUT/cold_fusion/round-10/TASK.pt for a task's train.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"
rounds="${ROUNDS:-10}"
[[ "$rounds" =~ ^[1-9][0-9]*$ ]] || die "ROUNDS=$rounds: must be a whole number from 1 on"
merging 2 "$@"
check_merge "${#TASK_NAMES[@]}"
shared="$CHECKPOINT"
last="${TASK_NAMES[$((${#TASK_NAMES[@]} - 1))]}"
for number in $(seq 1 "$rounds"); do
  round="$OUT/cold_fusion/round-$number"
  models=()
  if [ ! -f "$round/$last.pt" ]; then
    say "round $number of $rounds"
    for task in "${TASK_NAMES[@]}"; do
      finetune_on "$task" "$shared" "$round/$task" --max-epoch 1 "$@"
      best_of "$round/$task"
      models+=("$MODEL")
    done
    merge_for "$round" "${TASK_NAMES[@]}" -- "${models[@]}"
  fi
  rm -f "$round"/*/checkpoint*.pt
  shared="$round/$last.pt"
done
