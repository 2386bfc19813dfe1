# What the recipes of merging share: checks of the tasks, fine-tuning by the recipes of benchmarks, and merging what these write.
# Sourced, never run: `source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"`.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PAPERS_TASKS="caption_coco vqa refcocoplus snli_ve"

# merging NUMBER ARGS...: the beginning of a script that fine-tunes on NUMBER tasks or more: --help, and the checks of its variables before
# anything slow happens. Sets TASK_NAMES and TARGET_NAMES.
merging() {
  local least="$1" task extras=eval
  shift
  if wants_help "$@"; then
    usage "${BASH_SOURCE[1]}"
    help_merging
    exit 0
  fi
  read -ra TASK_NAMES <<<"${TASKS:-$PAPERS_TASKS}"
  read -ra TARGET_NAMES <<<"${TARGETS:-${TASK_NAMES[*]}}"
  [ "${#TASK_NAMES[@]}" -ge "$least" ] || die "TASKS=${TASK_NAMES[*]}: expected $least tasks or more, got ${#TASK_NAMES[@]}"
  begin_recipe training "folder with a folder of tables for each task"
  for task in "${TASK_NAMES[@]}" "${TARGET_NAMES[@]}"; do
    check_task "$task"
    case "$task" in video* | audio*) extras="$extras,${task%%_*}" ;; esac
  done
  ensure_environment "$extras"
}

# check_task TASK: fails with one line when there is no recipe that fine-tunes on it, or no tables.
check_task() {
  local recipes DATA="$DATA/$1"
  recipes="$(cd "$UNIVAL_ROOT/run_scripts" && grep -l "^recipe training " ./*/train.sh | cut -d / -f 2)" # not those from scratch
  grep -qxF -e "$1" <<<"$recipes" || die "unknown task $1: there are $(paste -sd ' ' - <<<"$recipes")"
  find_table "${VALID:-valid}" "tables of $1"
  find_table "${TRAIN:-train}" "tables of $1"
}

# finetune_on TASK START FOLDER ARGS...: fine-tune START by the task's recipe, into FOLDER.
finetune_on() {
  local task="$1" DATA="$DATA/$1"
  shift
  run_recipe "$task/train.sh" "$@"
}

# run_recipe RECIPE START FOLDER ARGS...: train START by a recipe on the tables in DATA, into FOLDER. Started again after a stop it resumes,
# and what is finished ends at once.
run_recipe() {
  local recipe="$1" start="$2" folder="$3"
  shift 3
  say "$recipe from $start: $folder"
  DATA="$DATA" CHECKPOINT="$start" OUT="$folder" bash "$UNIVAL_ROOT/run_scripts/$recipe" "$@"
}

# best_of FOLDER: sets MODEL to the best checkpoint of a training, that of averaged weights where the recipe has these.
best_of() {
  MODEL="$1/checkpoint_best_ema.pt"
  [ -f "$MODEL" ] || MODEL="$1/checkpoint_best.pt"
  [ -f "$MODEL" ] || die "$MODEL: was not written; the best checkpoint is chosen by validation"
}

# finetune_tasks ARGS...: fine-tune CHECKPOINT on each task, into $OUT/finetuned, which all scripts share.
finetune_tasks() {
  local task
  for task in "${TASK_NAMES[@]}"; do finetune_on "$task" "$CHECKPOINT" "$OUT/finetuned/$task" "$@"; done
}

# best_models TASK...: sets MODELS to the best checkpoint of each task of finetune_tasks.
best_models() {
  local task
  MODELS=()
  for task in "$@"; do
    best_of "$OUT/finetuned/$task"
    MODELS+=("$MODEL")
  done
}

# others_than TASK: sets OTHERS to the other tasks, which are auxiliary to it.
others_than() {
  local task
  OTHERS=()
  for task in "${TASK_NAMES[@]}"; do [ "$task" = "$1" ] || OTHERS+=("$task"); done
}

# check_merge NUMBER: fails with one line when NUMBER models cannot be merged by the flags in MERGE, before they are trained.
check_merge() {
  local flags
  read -ra flags <<<"${MERGE:-}"
  # shellcheck disable=SC2046 # a name for each model
  unival merge --check $(seq -f 'model-%g.pt' "$1") --out "$OUT/merged" --force ${flags[@]+"${flags[@]}"}
}

# check_others: the same for the models that others_than and the targets give.
check_others() {
  local target
  for target in "${TARGET_NAMES[@]}"; do
    others_than "$target"
    check_merge "${#OTHERS[@]}"
  done
  check_merge "${#TARGET_NAMES[@]}"
}

# merge_models FILE LIKE MODEL...: merge models, by uniform average or by the flags in MERGE; FILE has the task, instruction and candidate
# answers of LIKE, one of them.
merge_models() {
  local file="$1" like="$2" flags
  shift 2
  read -ra flags <<<"${MERGE:-}"
  unival merge "$@" --config-from "$like" --out "$file" --force ${flags[@]+"${flags[@]}"}
}

# merge_for FOLDER TASK... -- MODEL...: merge a model of each task into FOLDER/TASK.pt: the same weights, with the instruction and candidate
# answers of each.
merge_for() {
  local folder="$1" names=() number
  shift
  while [ "$1" != -- ]; do
    names+=("$1")
    shift
  done
  shift
  local models=("$@")
  for number in "${!names[@]}"; do merge_models "$folder/${names[number]}.pt" "${models[number]}" "${models[@]}"; done
}

help_merging() {
  cat <<HELP

Variables
  TASKS        names of recipes, run_scripts/TASK/train.sh (default: $PAPERS_TASKS)
  TARGETS      the tasks that fusing.sh and ratatouille.sh make models for, out of models of the other TASKS (default: all of TASKS)
  DATA         folder with a folder TASK for each, with its train and valid (.tsv in the published layout, or .jsonl) and
               answers.txt where there are candidate answers
  CHECKPOINT   the pretrained model that all start from, published or ours
$(help_vocabulary)
  OUT          folder for the results, one for all scripts of merging: models that are there already are not trained again
  MERGE        flags of unival merge in place of the uniform average, such as "--method ties --base pretrained.pt"
  TRAIN, VALID other names of the tables
HELP
  help_processes
  cat <<HELP

Flags given on the command line are those of fairseq-train and go to every training. Started again after a stop it goes on: trainings that
are finished end at once, the interrupted one resumes, merging is done anew. Evaluate what is merged as any checkpoint, with the
eval.sh of each task.
HELP
}
