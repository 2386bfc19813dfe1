"""Tables of multitask pretraining, of the data sets' own files: captions, questions and boxes of images and videos.

python data_utils/build_pretrain.py --media-root MEDIA --out OUT --held-out coco=KARPATHY --held-out refcoco=REFCOCO --source coco=COCO
    --source vg=VG --source sbu=SBU --source cc3m=CC3M --source vqa=VQA --source gqa=GQA --source refcoco=REFCOCO --source webvid=WEBVID

Names of --source, the files that it has (in itself or in the folders in it) and the tables:

coco      captions_{train,val}2014.json; instances_{train,val}2014.json for objects. coco.jsonl
vg        image_data.json, region_descriptions.json, question_answers.json; objects.json for objects. vg_captions.jsonl (of regions that
          cover 30% of the image), vg_regions.jsonl, vg_questions.jsonl
sbu       folders or tars of img2dataset; or SBU_captioned_photo_dataset_{urls,captions}.txt; or sbu-captions-all.json. sbu.jsonl
cc3m      folders or tars of img2dataset; or Train_GCC-training.tsv. cc3m.jsonl
cc12m     folders or tars of img2dataset; or cc12m.tsv. cc12m.jsonl
vqa       v2_OpenEnded_mscoco_train2014_questions.json, v2_mscoco_train2014_annotations.json. vqa.jsonl
gqa       train_balanced_questions.json; image_data.json, here or of vg. gqa.jsonl
refcoco   refs(unc).p, for refcocog refs(umd).p, and instances.json; also refcoco+, refcocog. refcoco.jsonl, …
webvid    results_2M_train.csv or results_10M_train.csv; or folders or tars of video2dataset. webvid.jsonl
webvidqa  webvidvqa.json (of webvidvqa.pkl, which is refused), val_webvidvqa.csv. webvidqa.jsonl

Names of --held-out, the files that it has and what is left out of all tables:

coco                       dataset_coco.json: Karpathy's images for validation and test
vqa, okvqa                 v2_OpenEnded_mscoco_val2014_questions.json, OpenEnded_mscoco_val2014_questions.json: their images
refcoco, refcoco+, refcocog  refs(unc).p, refs(unc).p, refs(umd).p: images for validation and test
snli_ve                    snli_ve_dev.jsonl, snli_ve_test.jsonl: their images

Images are compared by COCO's ids (also those that Visual Genome says) and by Flickr's (of addresses and of files' names).

Media are searched below --media-root under their usual names, also in a folder with the name of the source; tars are unpacked there.
mixture.yaml has a stream for each task and medium. The exit code is 0, or 1 where tables were written and something is missing, which is
said, or 2 for an error, after which no table was written.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from pretrain.frame import Run, build
from pretrain.held_out import BENCHMARKS, parse_folders
from pretrain.readers import READERS

from unival.errors import UserError

DONE, DIFFERS, FAILED = 0, 1, 2  # exit codes


def parser() -> argparse.ArgumentParser:
    """The command's argument parser."""
    made = argparse.ArgumentParser(
        prog="build_pretrain.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--source", required=True, action="append", metavar="NAME=DIR", help="a data set, and the folder with its own files; repeatable"
    )
    made.add_argument(
        "--held-out", default=[], action="append", metavar="NAME=DIR", help="a benchmark, and the folder with its own files; repeatable"
    )
    made.add_argument("--out", required=True, metavar="DIR", type=pathlib.Path, help="folder for the tables and mixture.yaml")
    made.add_argument(
        "--media-root",
        metavar="DIR",
        type=pathlib.Path,
        help="folder of the media of all sources, for training, too; rows without a file are left out and counted (default: nobody looks"
        " whether files are there)",
    )
    made.add_argument("--force", action="store_true", help="replace files that are there")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        sources = parse_folders("--source", args.source, READERS)
        held_out = parse_folders("--held-out", args.held_out, BENCHMARKS)
        text, is_complete = build(READERS, Run(sources, held_out, args.out, args.media_root, args.force))
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    sys.stdout.write(f"{text}\n")
    return DONE if is_complete else DIFFERS


if __name__ == "__main__":
    sys.exit(main())
