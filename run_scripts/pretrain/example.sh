#!/usr/bin/env bash
# The whole story of pretraining at small scale: one tiny model learns texts, then images, then images and videos, with all tasks; then it
# is fine-tuned to describe audio, which it has never met, and compared with a model that starts from scratch.
#
#   bash run_scripts/pretrain/example.sh            about 15 minutes on two idle cores (5 to 15 more, once, to install)
#   bash run_scripts/pretrain/example.sh --smoke    the same steps with a few rows and updates; the model learns next to nothing
#
#   --smoke         few rows, two updates a stage
#   --help          this text
#
# Variables: OUT (folder for everything, default: pretraining, or pretraining-smoke), SLOWER (how many times its time a training may
# take on a slow or busy machine, default 4), SEED (default 1), OMP_NUM_THREADS (default: the number of cores, 4 at most), PYTHON, UNIVAL_VENV.
#
# The data are drawn and synthesised here: shapes in images and videos, with captions, questions and boxes that are exactly true. The
# streams, their shares and the stages are in OUT/data/mixture.yaml; started again, it goes on where it stopped. report.html and
# report.png in OUT show every stream's curve, what each stage gained and forgot, examples of every task, and both curves of audio. How
# many updates there are is fixed, so that every machine gets the same model; one that would take longer than SLOWER times as long as two
# idle cores ends a training earlier, and the report says so.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

smoke=0
while [ $# -gt 0 ]; do
  case "$1" in
    --smoke) smoke=1 ;;
    -h | --help)
      usage "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown argument $1: known are --smoke, --help" ;;
  esac
  shift
done

need_processes
slower="${SLOWER:-4}" seed="${SEED:-1}"
awk -v factor="$slower" 'BEGIN { exit !(factor ~ /^[0-9]*\.?[0-9]+$/ && factor > 0) }' ||
  die "SLOWER=$slower: give a number, such as 4: a training may take so many times as long as on two idle cores"

# WHAT TO TUNE -----------------------------------------------------------------------------------------------------
# The trainings of the stages are tuned in data_utils/sampler/mixture.yaml.
image_data=(--sprites shapes --size 64 --objects 16 --train 8000 --valid 60 --test 100)
video_data=(--sprites shapes --size 48 --objects 16 --train 2000 --valid 60 --test 100 --frames 8)
audio_data=(--sounds synthesised --objects 12 --train 1500 --valid 60 --test 100 --rate 16000 --seconds 1.5)
rows=(--valid-rows 48 --test-rows 100)
minutes_of() { case "$1" in *text) echo 1 ;; *images) echo 4 ;; *videos) echo 4 ;; *) echo 2 ;; esac; } # on two idle cores
audio_updates=160
audio_flags=(
  --arch unival_tiny --criterion unival_label_smoothed --batch-size 24 --batch-size-valid 64 --optimizer adam --adam-betas "(0.9, 0.98)"
  --weight-decay 0.01 --clip-norm 1.0 --lr 1e-3 --lr-scheduler unival_polynomial --warmup-ratio 0.1 --dropout 0
  --encoder-drop-path-rate 0 --decoder-drop-path-rate 0 --num-bins 64 --patch-image-size 64 --patch-frame-size 48 --num-frames 4
  --audio-sample-rate 16000 --max-audio-seconds 1.5 --audio-hop-size 640 --audio-mel-bins 32 --audio-fmax 8000
  --num-workers 1 --required-batch-size-multiple 1 --validate-interval-updates 20 --eval-args '{"beam": 1, "max_len_b": 40}'
)
describe="[AUDIO:audio] what does the audio describe? -> [TEXT:caption,clean=caption]"
vocabulary_size=600
smaller=() # of a smoke test
# ------------------------------------------------------------------------------------------------------------------

if [ "$smoke" -eq 1 ]; then
  OUT="${OUT:-pretraining-smoke}" audio_updates=2
  few=(--train 16 --valid 4 --test 8) # the last ones count
  image_data+=("${few[@]}") video_data+=("${few[@]}") audio_data+=("${few[@]}")
  smaller=(--max-update 2 --batch-size 8) rows=(--valid-rows 4 --test-rows 6)
else
  OUT="${OUT:-pretraining}"
fi

read -r room _ <<<"$(free_gb "$OUT")"
[ "$room" -ge 2 ] || die "OUT=$OUT: less than 2 GB is free there; data and models take about 1 GB"
say "Step 0 of 6: the environment."
ensure_environment "eval,audio"

mkdir -p "$OUT" || die "OUT=$OUT: cannot make this folder"
OUT="$(cd "$OUT" && pwd -P)"
data="$OUT/data"
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(python -c 'import os; print(min(os.cpu_count() or 1, 4))')}"

# live TITLE LOG ARGUMENT... -- COMMAND...: runs COMMAND with its messages in LOG and shows how far it is; the script ends when it fails.
live() {
  local title="$1" log="$2"
  shift 2
  python "$UNIVAL_ROOT/run_scripts/live.py" --title "$title" --log "$log" "$@"
}

say "Step 1 of 6: images, videos and recordings with what is in them, and the tables of all tasks (a minute; at once when they are there)."
# media MEDIUM FLAGS...: images, videos or recordings.
media() {
  local medium="$1"
  shift
  live "${medium}s" "$OUT/$medium.log" --show -- python "$UNIVAL_ROOT/data_utils/build_sampler.py" --out "$data/$medium" --media "$medium" \
    --unseen-objects 0 --test-unseen 0 --seed "$seed" --workers 2 "$@"
}
media image "${image_data[@]}"
media video "${video_data[@]}"
media audio "${audio_data[@]}"
live tables "$OUT/tables.log" --show -- python "$UNIVAL_ROOT/data_utils/sampler_pretraining.py" --image "$data/image" --video "$data/video" \
  --audio "$data/audio" --out "$data" "${rows[@]}"

say "Step 2 of 6: a vocabulary from the texts (seconds)."
[ -f "$data/vocab/dict.txt" ] || live vocabulary "$OUT/vocabulary.log" -- unival train-vocab --table "$data/text-train.jsonl" --column text \
  --text "what does the image describe? does the video describe? which region does the text describe? what is the answer to question" \
  --size "$vocabulary_size" --out "$data/vocab"

# training FOLDER TITLE UPDATES FLAGS...: trains into $OUT/FOLDER, within a limit of time, and shows how far it is.
training() {
  local folder="$1" title="$2" updates="$3" limit
  shift 3
  limit="$(awk "BEGIN { print $(minutes_of "$folder") * $slower / 60 }")"
  mkdir -p "$OUT/$folder"
  live "$title" "$OUT/$folder.log" --training "$OUT/$folder/train.jsonl" --updates "$updates" --summary "$OUT/$folder/training.json" -- \
    unival train "$@" ${smaller[@]+"${smaller[@]}"} --seed "$seed" --save-dir "$OUT/$folder" --no-epoch-checkpoints --stop-time-hours "$limit" \
    --log-format json --log-interval 5 --log-file "$OUT/$folder/train.jsonl"
}

# stages FILE: the name of each stage and how many updates it makes.
stages() {
  python -c 'import sys, yaml
with open(sys.argv[1], encoding="utf-8") as file:
    for name, stage in yaml.safe_load(file)["stages"].items():
        print(name, stage["epochs"] * stage["updates_per_epoch"])' "$1"
}

say "Step 3 of 6: pretraining, stage by stage (about 9 minutes)."
start=(--vocab-dir "$data/vocab") number=0 report=()
while read -r stage updates; do
  number=$((number + 1))
  folder="$number-$stage"
  [ "$smoke" -eq 0 ] || updates=2
  training "$folder" "$stage" "$updates" "$data/mixture.yaml" --stage "$stage" "${start[@]}"
  pretrained="$OUT/$folder/checkpoint_last.pt"
  start=(--finetune-from-model "$pretrained")
  report+=(--stage "$stage=$OUT/$folder/train.jsonl")
done < <(stages "$data/mixture.yaml")

say "Step 4 of 6: captions of audio, from that model and from scratch (about 3 minutes)."
# audio FOLDER TITLE FLAGS...: trains captions of audio.
audio() {
  local folder="$1" title="$2"
  shift 2
  training "$folder" "$title" "$audio_updates" "$data/audio_captions-train.jsonl,$data/audio_captions-valid.jsonl" \
    --task unival_caption --instruction "$describe" --max-update "$audio_updates" --best-checkpoint-metric cider \
    --maximize-best-checkpoint-metric "${audio_flags[@]}" "$@"
  report+=(--after "$title=$OUT/$folder/train.jsonl")
}
audio audio-pretrained "audio, pretrained" --finetune-from-model "$pretrained" --new-modalities audio
audio audio-scratch "audio, from scratch" --vocab-dir "$data/vocab"

say "Step 5 of 6: what the models say of test rows, and the scores (about a minute)."
mkdir -p "$OUT/generated"
# predictions CHECKPOINT TASK=INSTRUCTION...: what a model says of test tables.
predictions() {
  live predictions "$OUT/generate.log" -- python "$UNIVAL_ROOT/run_scripts/pretrain/predict.py" --path "$1" --data "$data" \
    --out "$OUT/generated" "${@:2}"
}
question="[TEXT:question,clean=question] -> [TEXT:answer,weighted]"
predictions "$pretrained" \
  'text=what is the complete text of " [TEXT:masked,masks] "? -> [TEXT:text]' \
  "captions=[IMAGE:image] what does the image describe? -> [TEXT:caption,clean=caption]" \
  'matching=[IMAGE:image] does the image describe " [TEXT:caption,clean=caption] "? -> [TEXT:match]' \
  "questions=[IMAGE:image] $question" \
  'regions=[IMAGE:image] which region does the text " [TEXT:text,clean=caption] " describe? -> [BOX:box]' \
  'region_captions=[IMAGE:image] \ what does the region describe? region: [BOX:box] -> [TEXT:text,clean=caption]' \
  "video_captions=[VIDEO:video] what does the video describe? -> [TEXT:caption,clean=caption]" \
  "video_questions=[VIDEO:video] $question"
predictions "$OUT/audio-pretrained/checkpoint_best.pt" "audio_captions=$describe"

# scores TASK IMAGE ASKED REFERENCE METRICS: scores what was said, and adds it to the report; columns that are not shown are empty.
scores() {
  local task="$1" made="$OUT/generated/generate-$1-test.txt"
  live "scores of $task" "$OUT/score.log" -- unival score "$made" --table "$data/$task-test.jsonl" --columns "$4" \
    --metrics "$5" --json "$OUT/generated/$task.json" --per-row "$OUT/generated/$task.rows.json"
  report+=(--table "$task=$data/$task-test.jsonl" --generated "$task=$made" --summary "$task=$OUT/generated/$task.json"
    --per-row "$task=$OUT/generated/$task.rows.json" --view "$task=$2,$3,$4,${5%%,*}")
}
scores captions image "" caption cider,exact_match
scores questions image question answer accuracy
scores regions image text box box_accuracy
scores region_captions image box text accuracy
scores matching image caption match accuracy
scores video_captions video "" caption cider,exact_match
scores video_questions video question answer accuracy
scores text "" masked text cider,exact_match
scores audio_captions "" "" caption cider,exact_match # a recording cannot be seen

say "Step 6 of 6: the report."
note="$(python "$UNIVAL_ROOT/run_scripts/pretrain/note.py" --slower "$slower" "$OUT"/*/training.json)"
live report "$OUT/report.log" --show -- unival report --out "$OUT" --title "Texts, images, videos: one tiny model, all tasks, and audio afterwards" \
  --examples 12 --note "$note" "${report[@]}"
