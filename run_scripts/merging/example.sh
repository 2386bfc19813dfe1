#!/usr/bin/env bash
# Merges two tasks at small scale: pretrains a small model on images made on the spot, fine-tunes it on captioning and on questions, alone
# and one after the other, and draws what the interpolations can do: figure 2 of the paper, vanilla against Ratatouille.
#
#   bash run_scripts/merging/example.sh [--smoke]
#
#   --smoke         the same steps with a few rows and a few updates; the models learn next to nothing
#   --help          this text
#
# Variables: OUT (folder for everything, default: merging-example), SEED (default 1), OMP_NUM_THREADS, WORKERS, GPUS (default: all
# there are; 0: the CPU).
#
# It is made for about ten minutes on two idle cores. Vanilla interpolates the models of the two tasks; in Ratatouille each of the two was
# fine-tuned on the other task before its own. The coefficient is the question model's share: 0 is the captioning model. Started again
# after a stop it goes on. curves.png and report.html in OUT show both.
source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"

if wants_help "$@"; then
  usage "${BASH_SOURCE[0]}"
  exit 0
fi
root="${OUT:-merging-example}"
data_size=(--objects 8 --train 4000 --valid 50 --test 200)
batch=32 pretraining=400 finetuning=80 points=0:1:0.1
case "${1:-}" in
  "") ;;
  --smoke)
    root="${OUT:-merging-example-smoke}"
    data_size=(--objects 12 --train 24 --valid 8 --test 24)
    batch=4 pretraining=2 finetuning=2 points=0,1
    ;;
  *) die "unknown argument $1: known are --smoke, --help" ;;
esac

need_processes
say "Step 0 of 4: the environment."
ensure_environment eval
mkdir -p "$root" || die "OUT=$root: cannot make this folder"
root="$(cd "$root" && pwd -P)"

say "Step 1 of 4: images with captions, and questions about them."
media="$root/images" questions="$root/questions" grouped="$root/grouped" TSV=() # the tables are JSON lines
python "$UNIVAL_ROOT/data_utils/build_sampler.py" --out "$media" --sprites shapes --size 64 --unseen-objects 0 --test-unseen 0 \
  --seed "${SEED:-1}" "${data_size[@]}"
python "$UNIVAL_ROOT/data_utils/sampler_tasks.py" --data "$media" --task vqa --test-rows 400 --out "$questions"
python "$UNIVAL_ROOT/data_utils/sampler_tasks.py" --data "$media" --task vqa --row-per-file --out "$grouped"
VOCAB="$root/vocabulary" VOCABULARY=(--vocab-dir "$root/vocabulary")
[ -f "$VOCAB/dict.txt" ] || unival train-vocab --table "$media/train.jsonl" --column caption --size 400 --out "$VOCAB" \
  --text "which side of the picture is the" --text "is there a" --text "what is left of the, right of the, above, below the"
small=(--arch unival_tiny --criterion unival_label_smoothed --batch-size "$batch" --adam-betas "(0.9, 0.98)" --patch-image-size 64
  --dropout 0 --encoder-drop-path-rate 0 --decoder-drop-path-rate 0)

say "Step 2 of 4: pretraining on both tasks, $pretraining updates."
cat >"$root/pretraining.yaml" <<YAML
streams:
  captions: {table: images/train.jsonl, preset: unival_caption}
  questions: {table: questions/train.jsonl, preset: unival_vqa, closed_set: questions/answers.txt, media_root: images}
balancing: equal
stages:
  all: {epochs: 1, updates_per_epoch: $pretraining}
YAML
mkdir -p "$root/pretrained"
OUT="$root/pretrained" DATA="$root/pretraining.yaml" train "${small[@]}" --stage all --lr 1e-3 --disable-validation
pretrained="$root/pretrained/checkpoint_last.pt"

# finetune_small TASK START FOLDER: fine-tune START on caption or vqa, into FOLDER, whose checkpoint_best.pt is the model.
finetune_small() {
  local PRESET="unival_$1" DATA="$media" OUT="$3" ANSWERS=() own=(--best-checkpoint-metric cider)
  [ "$1" = caption ] || DATA="$grouped" ANSWERS=(--closed-set "$questions/answers.txt") \
    own=(--best-checkpoint-metric vqa_score --builder grouped --media-root "$media")
  say "$1 from $2: $3"
  mkdir -p "$OUT"
  train_small "$batch" 99 "${small[@]}" --finetune-from-model "$2" --max-update "$finetuning" --lr 5e-4 "${own[@]}" \
    --eval-args '{"beam": 1}'
}

say "Step 3 of 4: fine-tuning, $finetuning updates each."
finetune_small caption "$pretrained" "$root/caption"
finetune_small vqa "$pretrained" "$root/vqa"
finetune_small caption "$root/vqa/checkpoint_best.pt" "$root/vqa-caption"
finetune_small vqa "$root/caption/checkpoint_best.pt" "$root/caption-vqa"

say "Step 4 of 4: both interpolations, on test; the best coefficient by the validation rows."
# interpolate NAME A B: evaluate the models between the captioning model in folder A and the question model in folder B.
interpolate() {
  local a="$root/$2/checkpoint_best.pt" b="$root/$3/checkpoint_best.pt"
  unival sweep "$a" "$b" --points "$points" --batch-size 64 --out "$root/$1" --title "Interpolation, $1" \
    --table "captions=$media/test.jsonl" --valid "captions=$media/valid.jsonl" --of "captions=$a" --metric captions=cider \
    --table "questions=$questions/test.jsonl" --valid "questions=$questions/valid.jsonl" --of "questions=$b" \
    --set "questions.media_root=$media" --metric questions=vqa_score
}
interpolate vanilla caption vqa
interpolate ratatouille vqa-caption caption-vqa
unival report --sweep "vanilla=$root/vanilla/results.jsonl" --sweep "ratatouille=$root/ratatouille/results.jsonl" --out "$root" \
  --title "Captioning and questions: vanilla against Ratatouille"
