"""Answer the test tables of several tasks with one model, loaded once; writes what fairseq-generate would write of each.

    python predict.py --path CHECKPOINT --data DATA --out OUT 'captions=[IMAGE:image] what does the image describe? -> [TEXT:caption]' ...

reads DATA/captions-test.jsonl and writes OUT/generate-captions-test.txt.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from unival.boxes import box_text
from unival.errors import UserError
from unival.hub import from_checkpoint

MEDIA = ("image", "video", "audio")
BATCH = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, help="the model's checkpoint")
    parser.add_argument("--data", required=True, type=pathlib.Path, help="folder with the tables TASK-test.jsonl")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for what is generated")
    parser.add_argument("--beam", type=int, default=3, help="hypotheses of the search (default: %(default)s)")
    parser.add_argument("--max-len-b", type=int, default=40, help="tokens of an answer at most (default: %(default)s)")
    parser.add_argument("tasks", nargs="+", metavar="TASK=INSTRUCTION")
    args = parser.parse_args(arguments)
    try:
        model = from_checkpoint(args.path)
        for task in args.tasks:
            name, _, instruction = task.partition("=")
            lines = (args.data / f"{name}-test.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [{key: str(args.data / cell) if key in MEDIA else cell for key, cell in json.loads(line).items()} for line in lines]
            outputs = model.run(instruction, rows, batch_size=BATCH, beam=args.beam, max_len_b=args.max_len_b)
            said = [box_text(output.box) if output.box else output.text for output in outputs]
            made = [f"D-{row}\t{output.score}\t{text}\n" for row, (output, text) in enumerate(zip(outputs, said, strict=True))]
            (args.out / f"generate-{name}-test.txt").write_text("".join(made), encoding="utf-8")
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
