#!/usr/bin/env bash
# Rewarded soups (Ramé et al. 2023): trains a grounding model further three times, with rewards for boxes of small, medium and large
# objects, and averages the weights.
#
#   DATA=refcocoplus CHECKPOINT=out/refcocoplus/checkpoint_best.pt OUT=out/rewarded_soups bash run_scripts/merging/rewarded_soups.sh [fairseq-train flags]
#
# Start from what refcocoplus/train.sh has written. Data: python data_utils/build_refcoco.py; TASK is refcocoplus (default),
# refcoco or refcocog, whose run_scripts/scst/TASK.sh it runs. Published on 8 GPUs (RefCOCO+): 256 rows an update, 10 epochs each.
# Writes the models to OUT/small, OUT/medium and OUT/large and their average to OUT/soup.pt.
#
# Their paper grounds with UnIVAL and rewards small, medium and large objects; it interpolates two models at a time with lambdas from
# 0 to 1, and averages the three. MERGE="--coefficients 0.2,0.3,0.5" are other shares of small, medium, large; unival sweep draws the
# scores on the way between two of the models.
source "$(dirname "${BASH_SOURCE[0]}")/../common_merging.sh"
task="${TASK:-refcocoplus}"
case "$task" in refcoco | refcocoplus | refcocog) ;; *) die "TASK=$task: there are refcoco, refcocoplus and refcocog" ;; esac
recipe training grounding image "$@"
check_merge 3
models=()
for AREA in small medium large; do
  export AREA
  run_recipe "scst/$task.sh" "$CHECKPOINT" "$OUT/$AREA" "$@"
  best_of "$OUT/$AREA"
  models+=("$MODEL")
done
merge_models "$OUT/soup.pt" "${models[0]}" "${models[@]}"
