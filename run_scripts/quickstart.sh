#!/usr/bin/env bash
# Trains a small captioning model on pictures made on the spot, lets it describe scenes it has never seen, and shows the result.
#
#   bash run_scripts/quickstart.sh              about 10 minutes on two cores (15 more, once, to install)
#   bash run_scripts/quickstart.sh --smoke      the same steps in one to two minutes; the model learns next to nothing
#
#   --smoke         few pictures, half a minute of training, no demand on the scores
#   --shapes        drawn shapes instead of photographs (stamps are used when they can be had; shapes need no download)
#   --force         make the pictures anew when the folder holds others
#   --help          this text
#
# Variables: OUT (folder for everything, default: quickstart, or quickstart-smoke), MINUTES (of training, default 6),
# SEED (default 1), PYTHON (interpreter for a new environment), UNIVAL_VENV (place of that environment).
#
# It ends with CIDEr for the right pixels and for another image's pixels, and fails when they are less than 3 to 1: then the
# model recites sentences and does not look. report.html and report.png in OUT show pictures, captions and the loss curve.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

smoke=0 sprites=auto force=()
while [ $# -gt 0 ]; do
  case "$1" in
    --smoke) smoke=1 ;;
    --shapes) sprites=shapes ;;
    --force) force=(--force) ;;
    -h | --help)
      usage "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown argument $1: known are --smoke, --shapes, --force, --help" ;;
  esac
  shift
done

seed="${SEED:-1}"
if [ "$smoke" -eq 1 ]; then
  OUT="${OUT:-quickstart-smoke}" minutes="${MINUTES:-0.5}" metric_demand=()
  data_size=(--objects 12 --unseen-objects 4 --train 400 --valid 24 --test 32 --test-unseen 16)
else
  OUT="${OUT:-quickstart}" minutes="${MINUTES:-6}" metric_demand=(--require-ratio 3)
  data_size=(--objects 100 --unseen-objects 20 --train 20000 --valid 200 --test 400 --test-unseen 200)
fi

# TRAINING FLAGS: the one place to tune ----------------------------------------------------------------------------
vocabulary_size=800
prompt="what does the image describe?"
training_flags=(
  --task unival_caption --arch unival_tiny --criterion unival_label_smoothed --patch-image-size 96
  --dropout 0 --encoder-drop-path-rate 0 --decoder-drop-path-rate 0
  --optimizer adam --adam-betas "(0.9, 0.98)" --weight-decay 0.01 --clip-norm 1.0 --lr 1.5e-3
  --batch-size 64 --batch-size-valid 64 --num-workers 1 --required-batch-size-multiple 1 --log-interval 10
)
warmup=100
# Processors with bfloat16 instructions train twice as fast with them; the weights stay in float32.
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then training_flags+=(--autocast-bf16); fi
# ------------------------------------------------------------------------------------------------------------------

mkdir -p "$OUT" || die "OUT=$OUT: cannot make this folder"
OUT="$(cd "$OUT" && pwd -P)"
data="$OUT/data" model="$OUT/model" log="$OUT/train.jsonl"
splits=(test test_swapped test_unseen)
task_flags=(--user-dir "$UNIVAL_ROOT/unival" --vocab-dir "$data/vocab" --num-codes 0 --num-bins 0)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" PYTHONUNBUFFERED=1

# quietly LOG COMMAND...: runs COMMAND with its messages in LOG; shows the end of them and stops when it fails.
quietly() {
  local log="$1" code=0
  shift
  "$@" 2>"$log" || code=$?
  if [ "$code" -ne 0 ]; then
    tail -n 10 "$log" >&2
    say "This failed: $1 ${2:-}; all its messages are in $log" >&2
    exit "$code"
  fi
}

say "Step 0 of 5: the environment."
ensure_environment eval

say "Step 1 of 5: pictures with captions (about a minute; at once when they are there already)."
python "$UNIVAL_ROOT/data_utils/build_sampler.py" --out "$data" --sprites "$sprites" --seed "$seed" --workers 2 \
  "${data_size[@]}" ${force[@]+"${force[@]}"}

say "Step 2 of 5: a vocabulary from the training captions (seconds)."
quietly "$OUT/vocabulary.log" unival train-vocab --table "$data/train.jsonl" --column caption --text "$prompt" --size "$vocabulary_size" --out "$data/vocab"

say "Step 3 of 5: training for $minutes minutes; progress in $log"
mkdir -p "$model"
rm -f "$model"/checkpoint*.pt "$log" # of an earlier run: this one starts anew

# run_training ARGUMENTS: fairseq-train with everything that does not change; its output goes to train.log.
run_training() {
  fairseq-train "$data" "${task_flags[@]}" "${training_flags[@]}" --seed "$seed" --log-format json "$@" >"$OUT/train.log" 2>&1 ||
    { tail -n 25 "$OUT/train.log" >&2; die "training failed; the whole output is in $OUT/train.log"; }
}

# The learning rate falls to zero over the whole run, so the number of updates must be known: time a few first.
rm -f "$OUT/timing.jsonl"
run_training --lr-scheduler fixed --max-update 14 --no-save --save-dir "$model" --disable-validation --log-interval 2 --log-file "$OUT/timing.jsonl"
updates="$(python - "$OUT/timing.jsonl" "$minutes" <<'PYTHON'
import json
import sys

lines = [json.loads(line[line.index("{") :]) for line in open(sys.argv[1]) if '"ups"' in line]
seconds = sorted(2 / float(line["ups"]) / 2 for line in lines[2:])  # per update, without the first, slow ones
print(max(20, int(float(sys.argv[2]) * 60 * 0.85 / seconds[len(seconds) // 2])))  # the rest is for start and validation
PYTHON
)"
[ "$warmup" -lt "$updates" ] || warmup=$((updates / 4))
say "  $updates updates of 64 pictures"
run_training --lr-scheduler polynomial_decay --total-num-update "$updates" --max-update "$updates" --warmup-updates "$warmup" \
  --stop-time-hours "$(python -c "import sys; print(float(sys.argv[1]) / 60)" "$minutes")" \
  --validate-interval-updates "$(((updates + 2) / 3))" --save-interval-updates "$(((updates + 2) / 3))" --keep-interval-updates 1 \
  --validate-interval 1000 --save-interval 1000 --best-checkpoint-metric cider --maximize-best-checkpoint-metric \
  --no-epoch-checkpoints --save-dir "$model" --log-file "$log"
checkpoint="$model/checkpoint_best.pt"
[ -f "$checkpoint" ] || die "training ended without $checkpoint; see $OUT/train.log"

say "Step 4 of 5: captions for unseen scenes, and their scores (about a minute)."
mkdir -p "$OUT/scores"
report_flags=()
for split in "${splits[@]}"; do
  quietly "$OUT/generate.log" fairseq-generate "$data" "${task_flags[@]}" --task unival_caption --patch-image-size 96 --path "$checkpoint" --gen-subset "$split" \
    --beam 5 --max-len-b 22 --no-repeat-ngram-size 3 --batch-size 64 --results-path "$OUT/generated" >/dev/null
  quietly "$OUT/score.log" unival score "$OUT/generated/generate-$split.txt" --table "$data/$split.jsonl" --metrics cider,bleu,rouge_l,exact_match \
    --json "$OUT/scores/$split.json" --per-row "$OUT/scores/$split.rows.json" >/dev/null
  report_flags+=(--table "$split=$data/$split.jsonl" --generated "$split=$OUT/generated/generate-$split.txt"
    --summary "$split=$OUT/scores/$split.json" --per-row "$split=$OUT/scores/$split.rows.json")
done

say "Step 5 of 5: the report."
quietly "$OUT/report.log" unival report --out "$OUT" --log "$log" --title "What a small UnIVAL says about scenes it has never seen" \
  "${report_flags[@]}" ${metric_demand[@]+"${metric_demand[@]}"}
