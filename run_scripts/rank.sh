#!/usr/bin/env bash
# Runs a training as one of several processes, which torchrun or srun has started.
# Called by common.sh: `bash run_scripts/rank.sh unival train ARGS...`.
export RANK="${RANK:-${SLURM_PROCID:?neither torchrun nor srun has started this}}" LOCAL_RANK="${LOCAL_RANK:-${SLURM_LOCALID:-0}}"
export WORLD_SIZE="${WORLD_SIZE:-$SLURM_NTASKS}"
exec "$@" --distributed-init-method env:// --distributed-world-size "$WORLD_SIZE" --distributed-rank "$RANK" \
  --device-id "$LOCAL_RANK" --distributed-no-spawn
