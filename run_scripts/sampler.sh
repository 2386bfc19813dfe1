#!/usr/bin/env bash
# Trains a small model from scratch on a task of the sampler, whose images, videos and recordings are made on the spot and whose
# questions have known answers; evaluates it; shows what it looks at; writes a report.
#
#   bash run_scripts/sampler.sh TASK [--smoke] [fairseq-train flags]
#
#   TASK            vqa, grounding, entailment, video_qa or audio_caption
#   --smoke         the same steps with a few rows and a few updates; the model learns next to nothing
#   --help          this text
#
# Variables: OUT (folder for everything, default: sampler), SEED (default 1), OMP_NUM_THREADS, WORKERS, GPUS (default: all there are; 0:
# the CPU).
#
# Test is scored four times: as it is; with the image (video, recording) of another row; with another question (text, hypothesis) about the
# same image, which must change the answer; and by guesses of somebody who knows the training data and does not look. report.html
# and report.png in OUT/TASK show the scores and examples, with boxes drawn on the images.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tasks="vqa, grounding, entailment, video_qa, audio_caption"
if wants_help "$@"; then
  usage "${BASH_SOURCE[0]}"
  exit 0
fi
task="${1:-}" smoke=0
[ -n "$task" ] || die "no task: there are $tasks"
shift
if [ "${1:-}" = --smoke ]; then
  smoke=1
  shift
fi

# What differs between the tasks: TASK's medium, preset, columns of the vocabulary, score, training.
TSV=() # the tables are JSON lines
generation=(--beam 1) rows=() instruction=() inputs=() extras=eval asked="" boxes=() bins=()
case "$task" in
  vqa)
    medium=image PRESET=unival_vqa texts=(question answer) metric=accuracy asked=question reference=answer
    training=(--eval-metrics accuracy --best-checkpoint-metric accuracy)
    ;;
  grounding)
    medium=image PRESET=unival_grounding texts=(text) metric=box_accuracy asked=text reference=box
    training=(--best-checkpoint-metric box_accuracy) boxes=(--boxes) bins=(--num-bins 64)
    ;;
  entailment)
    medium=image PRESET=unival_entailment texts=(hypothesis label) metric=accuracy asked=hypothesis reference=label
    training=(--best-checkpoint-metric accuracy)
    ;;
  video_qa)
    medium=video PRESET=unival_vqa texts=(question answer) metric=accuracy asked=question reference=answer extras=eval,video
    training=(--eval-metrics accuracy --best-checkpoint-metric accuracy) inputs=(--patch-frame-size 48 --num-frames 8)
    instruction=(--instruction "$VIDEO_QUESTION")
    ;;
  audio_caption)
    medium=audio PRESET=unival_caption texts=(caption) metric=cider reference=caption extras=eval,audio
    training=(--best-checkpoint-metric cider) inputs=(--audio-sample-rate 16000 --max-audio-seconds 3 --audio-fmax 8000)
    instruction=(--instruction "[AUDIO:audio] what does the audio describe? -> [TEXT:caption,no_punctuation,max_length=20]")
    generation=(--beam 5 --max-len-b 22 --no-repeat-ngram-size 3)
    ;;
  *) die "unknown task $task: there are $tasks" ;;
esac
case "$medium" in
  image) data_size=(--sprites shapes --size 64 --objects 25 --train 4000 --valid 60 --test 100) batch=32 epochs=10 ;;
  video) data_size=(--sprites shapes --size 48 --objects 16 --train 1500 --valid 60 --test 100 --frames 8) batch=16 epochs=10 ;;
  audio) data_size=(--sounds synthesised --objects 12 --train 2000 --valid 60 --test 100 --rate 16000) batch=32 epochs=10 ;;
esac
# A model from scratch learns what things look like by naming them: beside the task, where a builder does both, or before it.
caption_epochs=0
case "$task" in
  vqa) rows=(--row-per-file) training+=(--builder grouped) ;; # several are about one image
  grounding) rows=(--row-per-file) training+=(--builder grounding_and_region) ;;
  entailment) rows=(--row-per-file) training+=(--builder grouped) epochs=6 caption_epochs=4 ;;
  video_qa) rows=(--row-per-file) training+=(--builder grouped) epochs=8 caption_epochs=4 ;;
esac
root="${OUT:-sampler}"
if [ "$smoke" -eq 1 ]; then
  root="${OUT:-sampler-smoke}"
  data_size+=(--train 40 --valid 8 --test 24) # the last ones count
  batch=8 epochs=1 caption_epochs="$((caption_epochs > 0))" inputs+=(--max-update 2)
fi

need_processes
say "Step 0 of 4: the environment."
ensure_environment "$extras"
mkdir -p "$root" || die "OUT=$root: cannot make this folder"
root="$(cd "$root" && pwd -P)"
media="$root/$medium" OUT="$root/$task" DATA="$root/$task/data"
media_root=(--media-root "$media")
mkdir -p "$OUT"

say "Step 1 of 4: ${medium}s with what is in them, and the tables of $task."
python "$UNIVAL_ROOT/data_utils/build_sampler.py" --out "$media" --media "$medium" --unseen-objects 0 --test-unseen 0 \
  --seed "${SEED:-1}" "${data_size[@]}"
python "$UNIVAL_ROOT/data_utils/sampler_tasks.py" --data "$media" --task "$task" --out "$DATA" ${rows[@]+"${rows[@]}"}
TABLE="$DATA/train.jsonl"
find_answers scratch "${PRESET#unival_}"
own_vocabulary 500 "${texts[@]}"

inputs+=(--patch-image-size 64 ${bins[@]+"${bins[@]}"})
if [ "$caption_epochs" -gt 0 ]; then
  say "Step 2 of 4: training; first $caption_epochs epochs of captions of the ${medium}s."
  case "$medium" in image) caption="$IMAGE_CAPTION" ;; video) caption="$VIDEO_CAPTION" ;; esac
  (
    PRESET=unival_caption DATA="$media" OUT="$OUT/captions" ANSWERS=()
    train_small "$batch" "$caption_epochs" --lr 1e-3 "${inputs[@]}" --instruction "$caption" --best-checkpoint-metric cider \
      --eval-args '{"beam": 1, "max_len_b": 40}' "$@"
  )
  training+=(--finetune-from-model "$OUT/captions/checkpoint_best.pt")
fi
say "Step 2 of 4: training, $epochs epochs."
train_small "$batch" "$epochs" --lr 1e-3 "${inputs[@]}" ${instruction[@]+"${instruction[@]}"} \
  "${media_root[@]}" "${training[@]}" --eval-args '{"beam": 1}' "$@"

say "Step 3 of 4: test, also with other ${medium}s${asked:+ and with another $asked}."
CHECKPOINT="$OUT/checkpoint_best.pt"
splits=(test test_other_media) report_flags=()
[ -z "$asked" ] || splits+=(test_other_text)
for SPLIT in "${splits[@]}"; do
  generate "${media_root[@]}" ${bins[@]+"${bins[@]}"} "${generation[@]}" --batch-size 64
done
cp "$DATA/guesses-test.txt" "$OUT/generate-guesses.txt"
for SPLIT in "${splits[@]}" guesses; do
  TABLE="$DATA/$SPLIT.jsonl"
  [ "$SPLIT" != guesses ] || TABLE="$DATA/test.jsonl"
  say "$SPLIT:"
  unival score "$OUT/generate-$SPLIT.txt" --table "$TABLE" --columns "$reference" --metrics "$metric" \
    --json "$OUT/scores-$SPLIT.json" --per-row "$OUT/scores-$SPLIT.rows.json"
  report_flags+=(--table "$SPLIT=$TABLE" --generated "$SPLIT=$OUT/generate-$SPLIT.txt"
    --summary "$SPLIT=$OUT/scores-$SPLIT.json" --per-row "$SPLIT=$OUT/scores-$SPLIT.rows.json")
done

say "Step 4 of 4: the report."
shown="$medium" # a video by its first frame; a recording cannot be seen
[ "$medium" != audio ] || shown=none
unival report --out "$OUT" --log "$OUT/train.jsonl" --title "A small UnIVAL on the sampler: $task" --metric "$metric" \
  --image-column "$shown" --reference-column "$reference" ${asked:+--text-column "$asked"} ${boxes[@]+"${boxes[@]}"} \
  "${media_root[@]}" --swapped test_other_media "${report_flags[@]}"
