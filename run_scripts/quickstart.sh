#!/usr/bin/env bash
# Trains a small captioning model on composed pictures of real things, or of drawn shapes, that are made on the spot; lets it
# describe scenes it has never seen; shows the result.
#
#   bash run_scripts/quickstart.sh              about 12 minutes on two idle cores (5 to 15 more, once, to install)
#   bash run_scripts/quickstart.sh --smoke      the same steps in two minutes; the model learns next to nothing
#
#   --smoke         few pictures, half a minute of training, no demand on the scores
#   --shapes        drawn shapes (a red house, a blue fish) instead of real things (cut-outs of photographs and drawings, which are
#                   used when Debian's package client can fetch them; shapes need no download)
#   --force         make the pictures anew when the folder holds others
#   --help          this text
#
# Variables: OUT (folder for everything, default: quickstart, or quickstart-smoke), MINUTES (of training, default 6), SEED
# (default 1), OMP_NUM_THREADS (default: what is fastest when tried), PYTHON (interpreter for a new environment), UNIVAL_VENV (place
# of that environment).
#
# Training takes MINUTES; on a slow or busy machine it goes on until the model looks, for 5 x MINUTES at most. It ends with
# CIDEr for the right pixels and for another image's pixels, and fails when they are less than 3 to 1: then the model recites sentences
# and does not look. report.html and report.png in OUT show pictures, captions and the loss curve.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

smoke=0 sprites=auto force=() again="bash run_scripts/quickstart.sh"
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
  again="$again $1"
  shift
done

need_processes
seed="${SEED:-1}"
if [ "$smoke" -eq 1 ]; then
  OUT="${OUT:-quickstart-smoke}" minutes="${MINUTES:-0.5}" limit_factor=1 metric_demand=()
  data_size=(--objects 12 --unseen-objects 4 --train 400 --valid 24 --valid-swapped 24 --test 32 --test-unseen 16)
else
  OUT="${OUT:-quickstart}" minutes="${MINUTES:-6}" limit_factor=5 metric_demand=(--require-ratio 3)
  data_size=(--objects 100 --unseen-objects 20 --train 20000 --valid 128 --valid-swapped 128 --test 400 --test-unseen 200)
fi
awk -v minutes="$minutes" 'BEGIN { exit !(minutes ~ /^[0-9]*\.?[0-9]+$/ && minutes > 0) }' ||
  die "MINUTES=$minutes: give a number of minutes, such as 6 or 0.5"

# TRAINING FLAGS: the one place to tune ----------------------------------------------------------------------------
vocabulary_size=800
prompt="what does the image describe?"
training_flags=(
  --task unival_caption --arch unival_tiny --criterion unival_label_smoothed --patch-image-size 96
  --dropout 0 --encoder-drop-path-rate 0 --decoder-drop-path-rate 0
  --optimizer adam --adam-betas "(0.9, 0.98)" --weight-decay 0.01 --clip-norm 1.0 --lr 1.5e-3
  --batch-size 64 --batch-size-valid 64 --num-workers 1 --required-batch-size-multiple 1 --eval-args '{"beam": 1}'
)
warmup=100 decay=200
[ "$smoke" -eq 0 ] || warmup=10
validate_every=75  # updates: half a minute to a minute on two idle cores
looks_at=4         # times the score with another image's pixels, on the validation slice; the report asks for 3
needed_updates=250 # until a model looks, as measured, with room; for the advice when one does not
# Processors with bfloat16 instructions train twice as fast with them; the weights stay in float32.
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then training_flags+=(--autocast-bf16); fi
# ------------------------------------------------------------------------------------------------------------------

read -r room _ <<<"$(free_gb "$OUT")"
[ "$room" -ge 1 ] || die "OUT=$OUT: less than 1 GB is free there; pictures and model take about 0.5 GB"
say "Step 0 of 5: the environment."
ensure_environment eval

mkdir -p "$OUT" || die "OUT=$OUT: cannot make this folder"
OUT="$(cd "$OUT" && pwd -P)"
data="$OUT/data" model="$OUT/model" log="$OUT/train.jsonl"
splits=(test test_swapped test_unseen)
task_flags=(--user-dir "$UNIVAL_ROOT/unival" --vocab-dir "$data/vocab" --num-codes 0 --num-bins 0)
export PYTHONUNBUFFERED=1

# live TITLE LOG ARGUMENT... -- COMMAND...: runs COMMAND with its messages in LOG and shows how far it is; the script ends when it fails.
live() {
  local title="$1" log="$2"
  shift 2
  python "$UNIVAL_ROOT/run_scripts/live.py" --title "$title" --log "$log" "$@"
}

# count_of SPLIT: how many rows of it will be made.
count_of() { awk -v option="--$1" '$0 == option { getline; print }' < <(printf '%s\n' "${data_size[@]}"); }

say "Step 1 of 5: pictures with captions (a minute or two; at once when they are there already)."
pictures=$(($(count_of train) + $(count_of valid) + $(count_of test) + $(count_of test-unseen)))
live pictures "$OUT/pictures.log" --files "$OUT/.data-*/images/*/*.jpg" --total "$pictures" --show -- \
  python "$UNIVAL_ROOT/data_utils/build_sampler.py" --out "$data" --sprites "$sprites" --seed "$seed" --workers 2 \
  "${data_size[@]}" ${force[@]+"${force[@]}"}
sed -n 's/^sprites: /  /p' "$OUT/pictures.log" # why there are no others, where there are none
kind="$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["sprites"]["kind"])' "$data/manifest.json")"
case "$kind" in
  shapes) pictures_are="drawn shapes" ;;
  *) pictures_are="composed pictures of real things" ;;
esac
say "  The data are $pictures_are, with captions that are exactly true."

say "Step 2 of 5: a vocabulary from the training captions (seconds)."
live vocabulary "$OUT/vocabulary.log" -- \
  unival train-vocab --table "$data/train.jsonl" --column caption --text "$prompt" --size "$vocabulary_size" --out "$data/vocab"

limit="$(awk "BEGIN { print $minutes * $limit_factor }")"
if [ "$smoke" -eq 1 ]; then
  say "Step 3 of 5: training for $minutes minutes."
else
  say "Step 3 of 5: training for $minutes minutes; if the model does not look by then, on until it does, for $limit minutes at most."
fi
mkdir -p "$model"
rm -f "$model"/checkpoint*.pt "$log" "$OUT/looks" # of an earlier run: this one starts anew

caption_threads="${OMP_NUM_THREADS:-}"
if [ -z "${OMP_NUM_THREADS:-}" ]; then
  live "trying numbers of threads" "$OUT/threads.log" --show -- \
    python "$UNIVAL_ROOT/run_scripts/threads.py" --out "$OUT/threads.txt" -- "$data" "${task_flags[@]}" "${training_flags[@]}" --seed "$seed"
  read -r OMP_NUM_THREADS caption_threads <"$OUT/threads.txt"
  export OMP_NUM_THREADS
fi
live training "$OUT/train.log" --training "$log" --minutes "$minutes" --limit "$limit" --signal "$OUT/looks" --ratio "$looks_at" \
  --summary "$OUT/training.json" -- \
  fairseq-train "$data" "${task_flags[@]}" "${training_flags[@]}" --seed "$seed" \
  --lr-scheduler unival_timed --warmup-updates "$warmup" --decay-updates "$decay" \
  --planned-minutes "$minutes" --limit-minutes "$limit" --decay-signal "$OUT/looks" \
  --valid-subset valid,valid_swapped --validate-interval-updates "$validate_every" --validate-interval 1000 --save-interval 1000 \
  --no-epoch-checkpoints --best-checkpoint-metric cider --maximize-best-checkpoint-metric --save-dir "$model" \
  --log-format json --log-interval 2 --log-file "$log"
checkpoint="$model/checkpoint_best.pt"
[ -f "$checkpoint" ] || die "training ended without $checkpoint; see $OUT/train.log"

say "Step 4 of 5: captions for unseen scenes, and their scores (about a minute)."
mkdir -p "$OUT/scores" "$OUT/generated"
report_flags=()
for split in "${splits[@]}"; do
  rm -f "$OUT/generated/generate-$split.txt"
  OMP_NUM_THREADS="$caption_threads" live "captions of $split" "$OUT/generate.log" --lines "$OUT/generated/generate-$split.txt" --prefix D- \
    --total "$(wc -l <"$data/$split.jsonl")" -- \
    fairseq-generate "$data" "${task_flags[@]}" --task unival_caption --patch-image-size 96 --path "$checkpoint" --gen-subset "$split" \
    --beam 5 --max-len-b 22 --no-repeat-ngram-size 3 --batch-size 64 --results-path "$OUT/generated"
  live "scores of $split" "$OUT/score.log" -- \
    unival score "$OUT/generated/generate-$split.txt" --table "$data/$split.jsonl" --metrics cider,bleu,rouge_l,exact_match \
    --json "$OUT/scores/$split.json" --per-row "$OUT/scores/$split.rows.json"
  report_flags+=(--table "$split=$data/$split.jsonl" --generated "$split=$OUT/generated/generate-$split.txt"
    --summary "$split=$OUT/scores/$split.json" --per-row "$split=$OUT/scores/$split.rows.json")
done

say "Step 5 of 5: the report."
advice="$(python "$UNIVAL_ROOT/run_scripts/advice.py" "$OUT/training.json" --minutes "$minutes" --factor "$limit_factor" \
  --needed "$needed_updates" --command "$again")"
live report "$OUT/report.log" --show -- unival report --out "$OUT" --log "$log" \
  --title "What a small UnIVAL says about $pictures_are it has never seen" --advice "$advice" \
  "${report_flags[@]}" ${metric_demand[@]+"${metric_demand[@]}"}
