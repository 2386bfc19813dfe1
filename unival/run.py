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
    parser.add_argument(
        "--path", required=True, metavar="CHECKPOINT", help="a checkpoint of unival train, or a published one of UnIVAL"
    )
    parser.add_argument("--vocab-dir", help="folder with the vocabulary (default: the one in the checkpoint)")
    parser.add_argument("--instruction", help="(default: the one that the checkpoint was trained with)")
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
    from unival.hub import from_checkpoint, lone_medium

    rows = [_row(text) for text in args.row]
    if not rows and not args.inputs:
        raise UserError("nothing to do: give files or --row")
    if args.instruction:
        lone_medium(args.instruction)  # complains about mistakes before the model is loaded
    model = from_checkpoint(args.path, args.vocab_dir, device=args.device)
    instruction = args.instruction or model.task.instruction_text or CAPTION
    if args.inputs:
        column = lone_medium(instruction)
        if column is None:
            raise UserError(
                f"files can be given only to an instruction with one named media slot, not to {instruction!r};"
                " use --row, or another --instruction"
            )
        rows += [{column: name} for name in args.inputs]
    outputs = model.run(instruction, rows, batch_size=args.batch_size, beam=args.beam, max_len_b=args.max_len_b)
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
