#!/usr/bin/env bash
# Captions a split with a trained model (beam 5, unnormalized, as published) and scores it.
#
#   DATA=coco VOCAB=vocabulary CHECKPOINT=out/caption/checkpoint_best.pt OUT=out/caption bash run_scripts/caption/eval.sh [fairseq-generate flags]
#
# Variables
#   DATA         folder with test.tsv or test.jsonl (columns image and caption; all references of an image in one row)
#   VOCAB        folder with encoder.json, vocab.bpe, dict.txt: python data_utils/fetch_vocabulary.py --out vocabulary
#   CHECKPOINT   the model, published or ours
#   OUT          folder for generate-test.txt and scores-test.json
#   SPLIT        which table of DATA (default test)
#   METRICS      default cider,bleu,rouge_l (meteor and spice need Java)
#   GPUS         0: the CPU
#
# The instruction and the size of images are those that the checkpoint was trained with; --instruction and the like
# change them. Flags given on the command line come last and win over the script's.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; exit 0; fi

SPLIT="${SPLIT:-test}"
begin_evaluation "folder with $SPLIT.tsv or $SPLIT.jsonl of image captions" image
generate_captions "$SPLIT" --max-len-b 22 --unnormalized "$@"
