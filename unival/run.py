"""`unival run`: an instruction on images or on a table, with a checkpoint."""

import argparse
import json
import sys

from unival.errors import UserError
from unival.tasks.caption import CAPTION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "inputs", nargs="*", metavar="FILE", help="media files: one row each, for the instruction's one media slot"
    )
    parser.add_argument("--path", required=True, metavar="CHECKPOINT", help="a checkpoint of unival train")
    parser.add_argument("--instruction", default=CAPTION, help="(default: %(default)s)")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="JSON",
        help='a row such as \'{"image": "a.jpg"}\'; may be repeated',
    )
    parser.add_argument("--beam", type=int, default=5, help="beam size (default: %(default)s)")
    parser.add_argument("--max-len-b", type=int, default=30, help="longest answer in tokens (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="rows at a time (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print one answer a line; returns the exit code."""
    from unival.hub import from_checkpoint
    from unival.instructions import parse

    rows = [_row(text) for text in args.row]
    if args.inputs:
        media = [slot for slot in parse(args.instruction)[0].source if slot.modality != "TEXT"]
        if len(media) != 1 or media[0].column is None:
            raise UserError("files can be given only to an instruction with one named media slot; use --row for others")
        rows += [{media[0].column: name} for name in args.inputs]
    if not rows:
        raise UserError("nothing to do: give files or --row")
    model = from_checkpoint(args.path, device=args.device)
    outputs = model.run(args.instruction, rows, batch_size=args.batch_size, beam=args.beam, max_len_b=args.max_len_b)
    for row, output in zip(rows, outputs, strict=True):
        name = next(iter(row.values())) if len(row) == 1 else json.dumps(row, ensure_ascii=False)
        sys.stdout.write(f"{name}\t{output.text}\n")
    return 0


def _row(text: str) -> dict:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--row {text!r} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f'--row {text!r}: expected an object such as {{"image": "a.jpg"}}')
    return row
