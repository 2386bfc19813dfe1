# What every recipe shares: help, checks of inputs, launchers, and the options that the published scripts have in common; install.sh,
# for the messages and the environment, is sourced with it.
# Sourced, never run: `source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"`.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/install.sh"

# Inputs ---------------------------------------------------------------------------------------------------------

# need_file NAME VALUE WHAT: fails with one line when the variable is not set or its file is not there.
need_file() {
  [ -n "$2" ] || die "$1 is not set: it names $3 (see --help)"
  [ -f "$2" ] || die "$1=$2: no such file; it names $3 (see --help)"
}

# need_folder NAME VALUE WHAT FILE...: the same for a folder and the files that it must hold.
need_folder() {
  local name="$1" folder="$2" what="$3" file
  shift 3
  [ -n "$folder" ] || die "$name is not set: it names $what (see --help)"
  [ -d "$folder" ] || die "$name=$folder: no such folder; it names $what (see --help)"
  for file in "$@"; do
    [ -f "$folder/$file" ] || die "$name=$folder: $file is missing there; it names $what (see --help)"
  done
}

# need_number NAME VALUE LEAST: fails with one line when a variable is set and no whole number from LEAST on.
need_number() {
  [[ -z "$2" || "$2" =~ ^[0-9]{1,9}$ && "$((10#$2))" -ge "$3" ]] || die "$1=$2: must be a whole number, at least $3"
}

# need_processes: the variables of processes, which are read when the first of them starts.
need_processes() {
  need_number GPUS "${GPUS:-}" 0
  need_number WORKERS "${WORKERS:-}" 0
  need_number SEED "${SEED:-}" 0
  need_number OMP_NUM_THREADS "${OMP_NUM_THREADS:-}" 1
  need_number NODES "${NODES:-}" 1
  need_number NODE_RANK "${NODE_RANK:-}" 0
  need_number MASTER_PORT "${MASTER_PORT:-}" 1
  case "${LAUNCHER:-fairseq}" in
    fairseq) [ "$((10#${NODES:-1}))" = 1 ] || die "NODES=$NODES: several machines need LAUNCHER=torchrun or LAUNCHER=slurm" ;;
    torchrun) ;;
    slurm) [ -n "${SLURM_JOB_ID:-}" ] || die "LAUNCHER=slurm: not inside of an allocation; start the recipe by sbatch or salloc" ;;
    *) die "LAUNCHER=$LAUNCHER: there are fairseq, torchrun and slurm" ;;
  esac
}

# need_out: fails with one line when OUT is not set or cannot be made. What it checks it does not make: a script that refuses something
# else leaves nothing.
need_out() {
  local folder="${OUT:-}"
  [ -n "$folder" ] || die "OUT is not set: it names the folder for the results (see --help)"
  while [ ! -e "$folder" ]; do folder="$(dirname "$folder")"; done
  [[ -d "$folder" && -w "$folder" ]] || die "OUT=$OUT: cannot make this folder"
}

# make_out: makes OUT, when all has been checked and something is written there.
make_out() {
  mkdir -p "$OUT" || die "OUT=$OUT: cannot make this folder"
}

# need_vocabulary: VOCAB is a vocabulary, or not set: then the checkpoint has one, which training and evaluation name or miss at their start.
# Sets VOCABULARY to their flags.
need_vocabulary() {
  VOCABULARY=()
  [ -n "${VOCAB:-}" ] || return 0
  need_folder VOCAB "$VOCAB" "the folder of the vocabulary" encoder.json vocab.bpe dict.txt
  VOCABULARY=(--vocab-dir "$VOCAB")
}

# find_table SPLIT WHAT: sets TABLE to $DATA/SPLIT.tsv or .jsonl, or fails with one line.
find_table() {
  local ending
  for ending in tsv jsonl; do
    TABLE="$DATA/$1.$ending"
    if [ -f "$TABLE" ]; then return; fi
  done
  die "DATA=$DATA: neither $1.tsv nor $1.jsonl is there; it names the $2 (see --help)"
}

# Recipes --------------------------------------------------------------------------------------------------------

# recipe training|scratch|evaluation TASK MEDIUM ARGS...: the beginning of every recipe: --help, the checks of its variables before anything
# slow happens, and the environment. Training from scratch needs no CHECKPOINT. TASK is caption, vqa, grounding or entailment. Sets PRESET,
# TABLE, TSV (flags that name the columns of TSV tables in the published layout), ANSWERS and, for evaluation, SCORING.
recipe() {
  local kind="$1" task="$2" medium="$3" what
  shift 3
  if wants_help "$@"; then
    usage "${BASH_SOURCE[1]}"
    "help_$kind" "$task" "$medium"
    exit 0
  fi
  what="folder with the tables"
  begin_recipe "$kind" "$what"
  if [ "$kind" != evaluation ]; then
    find_table "${VALID:-valid}" "$what"
    find_table "${TRAIN:-train}" "$what"
  else
    SPLIT="${SPLIT:-test}"
    find_table "$SPLIT" "$what"
  fi
  PRESET="unival_$task"
  TSV=(--columns "$(columns_of "$task" "$medium")" --selected-cols "$(selected_of "$task")")
  case "$TABLE" in *.tsv) ;; *) TSV=() ;; esac
  find_answers "$kind" "$task"
  [ "$kind $task" != "training grounding" ] || need_area
  case "$medium" in image) ensure_environment eval ;; *) ensure_environment "eval,$medium" ;; esac
  [ "$kind" != evaluation ] || find_scoring "$task"
}

begin_recipe() {
  need_folder DATA "${DATA:-}" "the $2"
  if [ "$1" != scratch ]; then
    need_vocabulary
    need_file CHECKPOINT "${CHECKPOINT:-}" "the model's checkpoint"
  fi
  need_out
  need_processes
}

# columns_of TASK MEDIUM, selected_of TASK: columns of the published TSV tables, and their numbers.
columns_of() {
  case "$1" in
    caption) printf 'id,%s,caption\n' "$2" ;;
    vqa) printf 'id,%s,question,answer,objects\n' "$2" ;;
    grounding) printf 'id,%s,text,box\n' "$2" ;;
    entailment) printf 'id,%s,hypothesis,premise,label\n' "$2" ;;
  esac
}

selected_of() {
  case "$1" in caption) echo 0,4,2 ;; vqa) echo 0,5,2,3,4 ;; grounding) echo 0,4,2,3 ;; entailment) echo 0,2,3,4,5 ;; esac
}

# references_of TASK: the column that holds what is right, and its number in the published TSV tables.
references_of() {
  case "$1" in caption) echo caption 2 ;; vqa) echo answer 3 ;; grounding) echo box 3 ;; entailment) echo label 5 ;; esac
}

metrics_of() {
  case "$1" in caption) echo cider,bleu,rouge_l ;; vqa) echo vqa_score ;; grounding) echo box_accuracy ;; entailment) echo accuracy ;; esac
}

# find_answers KIND TASK: sets ANSWERS to the flags of the candidate answers; training needs the file, evaluation takes those of the
# checkpoint where there is none.
find_answers() {
  local file="${ANSWERS:-${DATA:-}/answers.txt}"
  ANSWERS=()
  [ "$2" = vqa ] || return 0
  if [ "$1" != evaluation ] || [ "$file" != "$DATA/answers.txt" ]; then
    need_file ANSWERS "$file" "the candidate answers, one a line"
  fi
  if [ -f "$file" ]; then ANSWERS=(--closed-set "$file"); fi
}

help_training() {
  cat <<HELP

Variables
  DATA         folder with train and valid (.tsv in the published layout, or .jsonl), columns $(columns_of "$1" "$2")
  TRAIN, VALID other names of these tables
  CHECKPOINT   the model to start from, published or ours
$(help_vocabulary)
  OUT          folder for checkpoints and the log train.jsonl; the same command started again resumes what is there
HELP
  help_answers "$1"
  help_processes
  cat <<HELP

Flags given on the command line come last and win over the script's (--max-epoch 3). One update sees as many rows as in the
published run, which had 8 GPUs: with fewer, the gradients of several batches are added. The learning rate follows the length of
the run, whatever sets it. It validates every 2,000 updates and after each epoch, and saves after each epoch: the last, the best
and the best by its score (2 GB each); --save-interval-updates 2000 --keep-interval-updates 1 saves within epochs as well.
HELP
}

help_vocabulary() {
  cat <<HELP
  VOCAB        folder with encoder.json, vocab.bpe, dict.txt (default: the vocabulary in CHECKPOINT, which ours have); for a
               published checkpoint: python data_utils/fetch_vocabulary.py --out vocabulary
HELP
}

# help_processes: the variables of a training in several processes.
help_processes() {
  cat <<HELP
  GPUS         number of GPUs of this machine (default: all there are; 0: the CPU)
  LAUNCHER     fairseq (default) starts a process for each GPU; torchrun does with torchrun, over NODES machines (each runs the
               same command with NODE_RANK, MASTER_ADDR, MASTER_PORT); slurm starts them with srun, inside of an allocation
  SEED, WORKERS
HELP
}

help_scratch() {
  cat <<HELP

Variables
  DATA         folder with train and valid (.jsonl, or .tsv in the published layout), columns $(columns_of "$1" "$2")
  TRAIN, VALID other names of these tables
  OUT          folder for the vocabulary, the checkpoints and the log train.jsonl; the same command started again resumes what is there
HELP
  help_answers "$1"
  cat <<HELP
  GPUS         number of GPUs of this machine (default: all there are; 0: the CPU)
  OMP_NUM_THREADS, SEED, WORKERS

The model starts from random weights, and its vocabulary is trained on the texts of train. Flags given on the command line come last
and win over the script's (--max-epoch 3).
HELP
}

help_evaluation() {
  cat <<HELP

Variables
  DATA         folder with ${SPLIT:-test} (.tsv in the published layout, or .jsonl), columns $(columns_of "$1" "$2"); all references in one row
  SPLIT        which table of DATA (default ${SPLIT:-test})
  CHECKPOINT   the model, published or ours
$(help_vocabulary)
  OUT          folder for the generated texts, generate-SPLIT.txt, and their scores, scores-SPLIT.json
HELP
  help_answers "$1"
  cat <<HELP
  METRICS      default $(metrics_of "$1"); none where a table has no references
  SUBMISSION   format of an evaluation server (coco, vqa, vizwiz, nocaps): also write OUT/submission-SPLIT.json in it
  GPUS         number of GPUs, each of which takes a part of the rows (default: all there are; 0: the CPU)

The instruction and the way of reading media are those that the checkpoint was trained with; --instruction and the like change
them. Flags given on the command line come last and win over the script's.
HELP
}

help_answers() {
  [ "$1" != vqa ] || printf '  ANSWERS      file with the candidate answers, one a line (default: answers.txt in DATA)\n'
}

# What published scripts have in common --------------------------------------------------------------------------

# shellcheck disable=SC2034 # the recipes use these
{
  CROSS_ENTROPY=(--criterion unival_label_smoothed --label-smoothing 0.1)
  ENCOURAGING=(--criterion unival_encouraging --label-smoothing 0.1 --log-end 0.75 --drop-worst-ratio 0.05 --drop-worst-after 6000)
  EMA=(--store-ema --ema-decay 0.9999 --ema-fp32 --validate-with ema)
  IMAGE_CAPTION="[IMAGE:image] what does the image describe? -> [TEXT:caption,no_punctuation,max_length=20]"
  VIDEO_CAPTION="[VIDEO:video] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]"
  AUDIO_CAPTION="[AUDIO:audio] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]" # published: video, too
  CAPTIONS=(--max-tgt-length 20 --freeze-token-embeddings --best-checkpoint-metric cider)
  QUESTIONS=(--max-tgt-length 30 --freeze-token-embeddings --warmup-ratio 0.04 --best-checkpoint-metric vqa_score
    --eval-args '{"beam": 5, "unnormalized": true}')
  REGION='[IMAGE:image] which region does the text " [TEXT:text,clean=caption] " describe? -> [BOX:box]'
  QUESTION='TEXT:question,clean=question,ending="?",max_length=80'
  VIDEO_QUESTION="[VIDEO:video] [$QUESTION] -> [$QUESTION,no_loss] [TEXT:answer,weighted,closed_set]"
  BOXES=(--max-tgt-length 20 --patch-image-size 512 --max-image-size 512 --best-checkpoint-metric box_accuracy
    --eval-args '{"beam": 5, "min_len": 4, "max_len_a": 0, "max_len_b": 4}')
  ONE_BOX=(--min-len 4 --max-len-a 0 --max-len-b 4)
  UNNORMALIZED='{"beam": 5, "unnormalized": true, "max_len_b": 200, "no_repeat_ngram_size": 0}'
}

# Training -------------------------------------------------------------------------------------------------------

# finetune BATCH TOTAL EPOCHS ARGS...: fine-tune $CHECKPOINT, TOTAL rows an update, BATCH a GPU at a time; started again after a stop, it
# resumes from $OUT/checkpoint_last.pt.
finetune() {
  local batch="$1" total="$2" epochs="$3"
  shift 3
  update_freq "$total" "$batch"
  train --task "$PRESET" --arch unival_base --finetune-from-model "$CHECKPOINT" ${TSV[@]+"${TSV[@]}"} ${ANSWERS[@]+"${ANSWERS[@]}"} \
    --train-subset "${TRAIN:-train}" --valid-subset "${VALID:-valid}" \
    --max-epoch "$epochs" --batch-size "$batch" --update-freq "$UPDATE_FREQ" --maximize-best-checkpoint-metric \
    --dropout 0.1 --encoder-drop-path-rate 0.1 --decoder-drop-path-rate 0.1 --max-src-length 80 "$@"
}

# own_vocabulary SIZE COLUMN...: train a vocabulary of SIZE tokens on columns of $TABLE, unless $OUT/vocabulary is there; sets VOCAB.
own_vocabulary() {
  local size="$1" column columns=()
  shift
  for column in "$@"; do columns+=(--column "$column"); done
  [ "${#TSV[@]}" -eq 0 ] || columns+=(--selected-cols "$(numbers_of "$@")")
  VOCAB="$OUT/vocabulary" VOCABULARY=(--vocab-dir "$OUT/vocabulary")
  make_out
  [ -f "$VOCAB/dict.txt" ] || unival train-vocab --table "$TABLE" "${columns[@]}" --size "$size" --out "$VOCAB"
}

# numbers_of COLUMN...: the numbers of columns in TSV tables.
numbers_of() {
  local names numbers column i found=()
  IFS=, read -ra names <<<"${TSV[1]}"
  IFS=, read -ra numbers <<<"${TSV[3]}"
  for column in "$@"; do
    for i in "${!names[@]}"; do [ "${names[i]}" != "$column" ] || found+=("${numbers[i]}"); done
  done
  (IFS=, && printf '%s\n' "${found[*]}")
}

# train_small BATCH EPOCHS ARGS...: train a small model from scratch; started again after a stop, it resumes as after `finetune`.
train_small() {
  local batch="$1" epochs="$2"
  shift 2
  train --task "$PRESET" --arch unival_tiny ${TSV[@]+"${TSV[@]}"} ${ANSWERS[@]+"${ANSWERS[@]}"} \
    --train-subset "${TRAIN:-train}" --valid-subset "${VALID:-valid}" --criterion unival_label_smoothed \
    --max-epoch "$epochs" --batch-size "$batch" --batch-size-valid 256 --maximize-best-checkpoint-metric \
    --adam-betas "(0.9, 0.98)" --dropout 0 --encoder-drop-path-rate 0 --decoder-drop-path-rate 0 "$@"
}

# Pretraining ----------------------------------------------------------------------------------------------------

# pretraining ARGS...: the beginning of a script that trains on the mixture file MIXTURE: --help, the checks of its variables, the
# environment.
pretraining() {
  if wants_help "$@"; then
    usage "${BASH_SOURCE[1]}"
    help_pretraining
    exit 0
  fi
  need_file MIXTURE "${MIXTURE:-}" "the mixture file"
  [ -z "${CHECKPOINT:-}" ] || need_file CHECKPOINT "$CHECKPOINT" "the model's checkpoint"
  begin_pretraining
  need_stage
}

# published_pretraining ARGS...: the same for a stage of unival.yaml, whose tables are in DATA.
published_pretraining() {
  if wants_help "$@"; then
    usage "${BASH_SOURCE[1]}"
    help_published_pretraining
    exit 0
  fi
  need_folder DATA "${DATA:-}" "the folder with the tables"
  need_file CHECKPOINT "${CHECKPOINT:-}" "the model's checkpoint"
  MIXTURE="${MIXTURE:-$UNIVAL_ROOT/run_scripts/pretrain/unival.yaml}"
  TABLES="$(cd "$DATA" && pwd -P)" # paths of a mixture are relative to it
  export TABLES
  begin_pretraining
}

begin_pretraining() {
  need_vocabulary
  need_out
  need_processes
  ensure_environment eval,video,audio
}

# need_stage: STAGE, where it is set, is a stage of MIXTURE.
need_stage() {
  local names
  names="$(unival mixture "$MIXTURE" --stages)"
  [ -z "${STAGE:-}" ] || grep -qxF -e "$STAGE" <<<"$names" || die "STAGE=$STAGE: the stages of $MIXTURE are $(paste -sd ' ' - <<<"$names")"
}

# stage_options ARGS...: the options of the stages of MIXTURE, one line each, quoted for eval; ARGS of `unival mixture`.
stage_options() {
  unival mixture "$MIXTURE" --options --set "distributed_world_size=$(processes)" "$@"
}

# train_stages ARGS...: train all stages of MIXTURE, or those from STAGE on; started again after a stop, it goes on where it was.
train_stages() {
  local lines options line name number=0 before="${CHECKPOINT:-}" begun="" shown
  shown="$(unival mixture "$MIXTURE" --show --set "distributed_world_size=$(processes)")" # finds what is wrong with later stages
  lines="$(stage_options)"
  make_out
  say "$shown" >"$OUT/mixture.txt"
  while IFS= read -r line; do
    number=$((number + 1))
    eval "options=($line)"
    name="${options[3]}"
    if [ -n "$begun" ] || [ -z "${STAGE:-}" ] || [ "$STAGE" = "$name" ]; then
      begun=yes
      train_stage "$OUT/$number-$name" "$before" "$line" "$@"
    fi
    if [ -n "$begun" ] || [ -f "$OUT/$number-$name/checkpoint_last.pt" ]; then before="$OUT/$number-$name/checkpoint_last.pt"; fi
  done <<<"$lines"
}

# published_stage NUMBER NAME BEFORE ARGS...: train one stage of unival.yaml, from the last checkpoint of the stage BEFORE if OUT has it.
published_stage() {
  local number="$1" name="$2" start="$OUT/${3:-none}/checkpoint_last.pt" line
  shift 3
  [ -f "$start" ] || start="$CHECKPOINT"
  line="$(stage_options --stage "$name")"
  train_stage "$OUT/$number-$name" "$start" "$line" "$@"
}

# train_stage FOLDER START LINE ARGS...: one stage with its options in LINE, from the checkpoint START if that is not empty.
train_stage() {
  local OUT="$1" DATA="$MIXTURE" start=() options
  eval "options=($3)"
  [ -z "$2" ] || start=(--finetune-from-model "$2")
  shift 3
  say "stage ${options[3]}: $OUT"
  train --keep-best-checkpoints=-1 "${options[@]}" ${start[@]+"${start[@]}"} "$@"
}

help_pretraining() {
  cat <<HELP

Variables
  MIXTURE      the mixture file; its paths are relative to it
  CHECKPOINT   the model that the first stage starts from, e.g. a converted BART (default: random weights)
  STAGE        begin with this stage, from the last checkpoint in OUT of the one before, if there is one, else from CHECKPOINT
HELP
  help_of_stages
}

help_published_pretraining() {
  cat <<HELP

Variables
  DATA         folder with the tables that python data_utils/build_pretrain.py has written
  CHECKPOINT   the model to start from, where OUT does not have the stage before
  MIXTURE      a mixture file in place of run_scripts/pretrain/unival.yaml
HELP
  help_of_stages
}

help_of_stages() {
  cat <<HELP
$(help_vocabulary)
  OUT          folder for a folder of each stage, with its checkpoints and its log train.jsonl
HELP
  help_processes
  cat <<HELP

Options of training are in the mixture file; flags given on the command line come last and win over it, in every stage
(--patch-image-size 224).
HELP
}

# need_area: sets REWARDED to the flags of the boxes that self-critical training rewards, by AREA.
need_area() {
  # shellcheck disable=SC2034 # the recipes of self-critical training use it
  case "${AREA:-large}" in
    large) REWARDED=(--min-area-size 100000) ;;
    medium | small | all) REWARDED=(--reward-area "$AREA") ;;
    *) die "AREA=$AREA: there are small, medium, large and all" ;;
  esac
}

# update_freq TOTAL BATCH: sets UPDATE_FREQ so that one update sees TOTAL rows on the GPUs at hand, BATCH a GPU at a time.
update_freq() {
  local gpus batch
  gpus="$(processes)"
  batch=$(($2 * gpus))
  UPDATE_FREQ=$((($1 + batch - 1) / batch))
}

# processes: how many take part in training, one a GPU; on the CPU one.
processes() {
  local gpus="${GPUS:-$(gpu_count)}"
  [ "$gpus" -gt 0 ] || gpus=1
  echo $((gpus * ${NODES:-${SLURM_NNODES:-1}}))
}

# train ARGS...: `unival train` (fairseq-train with the plugin and a short output) with what all published fine-tuning has in common; ARGS come last and win. How many
# updates there are follows from the rows, the batches and --max-epoch, whoever gives it.
train() {
  make_out
  local device=(--cpu) schedule=(--lr-scheduler unival_polynomial --warmup-ratio 0.06)
  case " $* " in
    *" --lr-scheduler"[\ =]"unival_polynomial "*) ;;
    *" --lr-scheduler"[\ =]*) schedule=() ;; # another one has no --warmup-ratio
  esac
  # a batch of one task does not use every parameter: DistributedDataParallel has to find out which
  [ "${GPUS:-$(gpu_count)}" -eq 0 ] || device=(--fp16 --fp16-scale-window 512 --distributed-world-size "$(processes)"
    --ddp-backend pytorch_ddp --find-unused-parameters)
  launch unival train "$DATA" --user-dir "$UNIVAL_ROOT/unival" ${VOCABULARY[@]+"${VOCABULARY[@]}"} \
    --optimizer adam --adam-betas "(0.9, 0.999)" --adam-eps 1e-8 --weight-decay 0.01 --clip-norm 1.0 \
    ${schedule[@]+"${schedule[@]}"} --required-batch-size-multiple 1 --num-workers "${WORKERS:-2}" --seed "${SEED:-1}" \
    --save-dir "$OUT" --no-epoch-checkpoints --keep-best-checkpoints 1 --validate-interval-updates 2000 \
    --log-file "$OUT/train.jsonl" --log-interval 50 "${device[@]}" "$@"
}

# launch COMMAND ARGS...: run it as LAUNCHER says, with the processes of this machine or of the allocation.
launch() {
  local each="${GPUS:-$(gpu_count)}"
  [ "$each" -gt 0 ] || each=1
  case "${LAUNCHER:-fairseq}" in
    fairseq) "$@" ;;
    torchrun)
      torchrun --nnodes "${NODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$each" \
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
        --no-python bash "$UNIVAL_ROOT/run_scripts/rank.sh" "$@"
      ;;
    slurm)
      MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)" MASTER_PORT=$((20000 + SLURM_JOB_ID % 30000)) \
        srun --ntasks-per-node "$each" --kill-on-bad-exit=1 bash "$UNIVAL_ROOT/run_scripts/rank.sh" "$@"
      ;;
  esac
}

# Evaluation -----------------------------------------------------------------------------------------------------

# evaluate ARGS...: generate for $SPLIT, as published by beam search of 5, and score what was generated.
evaluate() {
  generate --beam 5 --batch-size 16 "$@"
  score
}

# generate ARGS...: `unival generate` of $SPLIT into $OUT/generate-$SPLIT.txt; of several GPUs each takes a part of the rows, and writes
# into $OUT/shard-N-of-M/.
generate() {
  make_out
  local gpus="${GPUS:-$(gpu_count)}" shard processes=()
  if [ "$gpus" -le 1 ]; then
    generate_shard "$@"
    return
  fi
  for shard in $(seq 0 $((gpus - 1))); do
    CUDA_VISIBLE_DEVICES="$shard" generate_shard --num-shards "$gpus" --shard-id "$shard" "$@" >"$OUT/shard-$shard.log" 2>&1 &
    processes+=($!)
  done
  for shard in "${!processes[@]}"; do
    wait "${processes[$shard]}" || die "shard $shard of $gpus failed: see $OUT/shard-$shard.log"
  done
}

generate_shard() {
  local device=()
  [ "${GPUS:-$(gpu_count)}" -gt 0 ] || device=(--cpu)
  unival generate "$DATA" --user-dir "$UNIVAL_ROOT/unival" ${VOCABULARY[@]+"${VOCABULARY[@]}"} --task "$PRESET" ${TSV[@]+"${TSV[@]}"} \
    ${ANSWERS[@]+"${ANSWERS[@]}"} --path "$CHECKPOINT" --gen-subset "$SPLIT" --results-path "$OUT" --scoring unival \
    --required-batch-size-multiple 1 --num-workers "${WORKERS:-2}" --seed "${SEED:-1}" ${device[@]+"${device[@]}"} "$@"
}

# find_scoring TASK: sets SCORING to what `unival score` is asked for, and checks it before anything is generated.
find_scoring() {
  local task="$1" column number
  read -r column number <<<"$(references_of "$task")"
  SCORING=(--table "$TABLE" --columns "$column" --metrics "${METRICS:-$(metrics_of "$task")}" --json "$OUT/scores-$SPLIT.json")
  case "$TABLE" in *.tsv) SCORING+=(--columns "id,$column" --selected-cols "0,$number") ;; esac
  [ -z "${SUBMISSION:-}" ] || SCORING+=(--submission "$SUBMISSION:$OUT/submission-$SPLIT.json")
  unival score --check "${SCORING[@]}"
}

# score: compare what generate wrote with the references of $TABLE; the scores are printed and kept in $OUT/scores-$SPLIT.json.
score() {
  local outputs=("$OUT/generate-$SPLIT.txt") gpus="${GPUS:-$(gpu_count)}"
  [ "$gpus" -le 1 ] || outputs=("$OUT"/shard-*-of-"$gpus/generate-$SPLIT.txt")
  unival score "${outputs[@]}" "${SCORING[@]}"
}

gpu_count() {
  python -c "import torch; print(torch.cuda.device_count())"
}
