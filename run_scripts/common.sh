# What every run script shares: checks of inputs, and the launch of training and generation; install.sh, for the messages and the
# environment, is sourced with it.
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

# Training and generation ------------------------------------------------------------------------------------------

# find_table SPLIT WHAT: sets TABLE to $DATA/SPLIT.tsv or .jsonl, or fails with one line.
find_table() {
  local ending
  for ending in tsv jsonl; do
    TABLE="$DATA/$1.$ending"
    if [ -f "$TABLE" ]; then return; fi
  done
  die "DATA=$DATA: neither $1.tsv nor $1.jsonl is there; it names the $2 (see --help)"
}

# begin_training WHAT MEDIUM, begin_evaluation WHAT MEDIUM: check the variables that every recipe takes, before anything slow
# happens. Set TSV_COLUMNS to the flags that name the columns of TSV tables (published layout: media in column 4, texts in 2).
begin_training() {
  begin_recipe "$1"
  find_table valid "$1"
  find_table train "$1"
  tsv_columns "$2"
  ensure_environment "$(extras_for "$2")"
}

begin_evaluation() {
  begin_recipe "$1"
  find_table "$SPLIT" "$1"
  tsv_columns "$2"
  ensure_environment "$(extras_for "$2")"
}

tsv_columns() {
  # shellcheck disable=SC2034 # the recipes use it
  case "$TABLE" in *.tsv) TSV_COLUMNS=(--columns "id,$1,caption" --selected-cols 0,4,2) ;; *) TSV_COLUMNS=() ;; esac
}

extras_for() {
  case "$1" in video | audio) printf 'eval,%s\n' "$1" ;; *) printf 'eval\n' ;; esac
}

begin_recipe() {
  need_folder DATA "${DATA:-}" "the $1"
  need_folder VOCAB "${VOCAB:-}" "the folder of the vocabulary" encoder.json vocab.bpe dict.txt
  need_file CHECKPOINT "${CHECKPOINT:-}" "the model's checkpoint"
  [ -n "${OUT:-}" ] || die "OUT is not set: it names the folder for the results (see --help)"
  mkdir -p "$OUT" || die "OUT=$OUT: cannot make this folder"
}

# update_freq TOTAL_BATCH BATCH: sets UPDATE_FREQ so that one update sees TOTAL_BATCH rows on the GPUs at hand, BATCH a GPU at a time.
update_freq() {
  local gpus="${GPUS:-$(gpu_count)}" batch
  [ "$gpus" -gt 0 ] || gpus=1
  batch=$(($2 * gpus))
  # shellcheck disable=SC2034 # train_captions uses it
  UPDATE_FREQ=$((($1 + batch - 1) / batch))
}

# train ARGS...: fairseq-train with the plugin and what the published fine-tuning recipes have in common; ARGS come last
# and win.  How many updates there are follows from the rows, the batches and --max-epoch, whoever gives it.
train() {
  local gpus="${GPUS:-$(gpu_count)}" device=(--cpu) schedule=(--lr-scheduler unival_polynomial --warmup-ratio 0.06)
  case " $* " in
    *" --lr-scheduler"[\ =]"unival_polynomial "*) ;;
    *" --lr-scheduler"[\ =]*) schedule=() ;; # another one knows no --warmup-ratio
  esac
  # a batch of captions uses no parameters of image codes: DistributedDataParallel has to look which there are
  [ "$gpus" -eq 0 ] || device=(--fp16 --fp16-scale-window 512 --distributed-world-size "$gpus"
    --ddp-backend pytorch_ddp --find-unused-parameters)
  fairseq-train "$DATA" --user-dir "$UNIVAL_ROOT/unival" --vocab-dir "$VOCAB" \
    --optimizer adam --adam-betas "(0.9, 0.999)" --adam-eps 1e-8 --weight-decay 0.01 --clip-norm 1.0 \
    ${schedule[@]+"${schedule[@]}"} --required-batch-size-multiple 1 --num-workers "${WORKERS:-2}" --seed "${SEED:-1}" \
    --save-dir "$OUT" --no-epoch-checkpoints --keep-best-checkpoints 1 --validate-interval-updates 2000 \
    --log-format json --log-file "$OUT/train.jsonl" --log-interval 50 "${device[@]}" "$@"
}

# train_captions BATCH EPOCHS ARGS...: the published fine-tuning on captions of any medium, from $CHECKPOINT; started again
# after a stop, it resumes from $OUT/checkpoint_last.pt.
train_captions() {
  local batch_size="$1" epochs="$2"
  shift 2
  train --task unival_caption --arch unival_base --finetune-from-model "$CHECKPOINT" ${TSV_COLUMNS[@]+"${TSV_COLUMNS[@]}"} \
    --criterion unival_encouraging --label-smoothing 0.1 --log-end 0.75 --drop-worst-ratio 0.05 --drop-worst-after 6000 \
    --max-epoch "$epochs" --batch-size "$batch_size" --update-freq "$UPDATE_FREQ" \
    --dropout 0.1 --encoder-drop-path-rate 0.1 --decoder-drop-path-rate 0.1 --freeze-token-embeddings \
    --max-src-length 80 --max-tgt-length 20 --best-checkpoint-metric cider --maximize-best-checkpoint-metric "$@"
}

# generate_captions SPLIT ARGS...: beam search as published, then the scores. The instruction, sizes, frames and rates are the
# checkpoint's; flags change them.
generate_captions() {
  local split="$1"
  shift
  generate "$split" --task unival_caption ${TSV_COLUMNS[@]+"${TSV_COLUMNS[@]}"} \
    --beam 5 --no-repeat-ngram-size 3 --batch-size 16 "$@"
  score_captions "$split"
}

# generate SPLIT ARGS...: fairseq-generate of one split into $OUT/generate-SPLIT.txt.
generate() {
  local split="$1" device=()
  shift
  [ "${GPUS:-$(gpu_count)}" -gt 0 ] || device=(--cpu)
  fairseq-generate "$DATA" --user-dir "$UNIVAL_ROOT/unival" --vocab-dir "$VOCAB" \
    --path "$CHECKPOINT" --gen-subset "$split" --results-path "$OUT" --scoring unival \
    --required-batch-size-multiple 1 --num-workers "${WORKERS:-2}" --seed "${SEED:-1}" ${device[@]+"${device[@]}"} "$@"
}

# score_captions SPLIT: scores what generate wrote against the captions of $TABLE into $OUT/scores-SPLIT.json.
score_captions() {
  local columns=()
  case "$TABLE" in *.tsv) columns=(--columns caption --selected-cols 2) ;; esac
  unival score "$OUT/generate-$1.txt" --table "$TABLE" --metrics "${METRICS:-cider,bleu,rouge_l}" \
    --json "$OUT/scores-$1.json" ${columns[@]+"${columns[@]}"}
}

gpu_count() {
  python -c "import torch; print(torch.cuda.device_count())"
}
