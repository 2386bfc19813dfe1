#!/usr/bin/env bash
# Decides on the entailment of SNLI-VE with a trained model (beam 5 over yes, no and maybe) and scores the answers.
#
#   DATA=snli_ve CHECKPOINT=out/snli_ve/checkpoint_best.pt OUT=out/snli_ve bash run_scripts/snli_ve/eval.sh [fairseq-generate flags]
#
# Data: python data_utils/build_snli_ve.py; SPLIT may be valid (the paper's dev) or test. Paper: dev 78.2, test 78.6.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipe evaluation entailment image "$@"
evaluate "$@"
