#!/usr/bin/env bash
# Trains one model through all stages of a mixture file, each of which starts from the last checkpoint of the one before.
#
#   MIXTURE=data/mixture.yaml VOCAB=vocabulary OUT=out/pretrain bash run_scripts/pretrain/curriculum.sh [fairseq-train flags]
#
# Stage k is a run of its own in OUT/k-STAGE. Started again after a stop it goes on where it was: stages that are finished end at
# once, the interrupted one resumes from its own last checkpoint, with the same bits as without the stop. `unival mixture FILE --show`
# says before what each stage does. The published three stages are run_scripts/pretrain/unival.yaml: stage1.sh, stage2.sh and
# stage2_highres.sh train one of them each.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
pretraining "$@"
train_stages "$@"
