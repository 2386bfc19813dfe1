"""``unival run``: run an instruction on media files or on rows (``--row``), with a checkpoint."""

import argparse
import json
import sys
from typing import Any

from unival.data.builders.grouped import places
from unival.errors import UserError, counted, printable
from unival.instructions import Slot, parse
from unival.modalities import MODALITIES
from unival.tasks.presets import CAPTION

SHOWN = 200  # characters of a row in a message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "inputs", nargs="*", metavar="FILE", help="media files: one row each, for the instruction's one media slot"
    )
    parser.add_argument(
        "--path", required=True, metavar="CHECKPOINT", help="a checkpoint of unival train, or a published one of UnIVAL"
    )
    parser.add_argument("--adapter", metavar="FILE", help="an adapter of `unival adapter extract`, whose base --path is")
    parser.add_argument("--vocab-dir", help="folder with the vocabulary (default: the one in the checkpoint)")
    parser.add_argument(
        "--weights",
        choices=("model", "ema"),
        default="model",
        help="the checkpoint's weights, or their moving average, which --store-ema keeps (default: %(default)s)",
    )
    parser.add_argument("--instruction", help="(default: the one that the checkpoint was trained with)")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="JSON",
        help='a row such as \'{"image": "a.jpg"}\'; may be repeated',
    )
    parser.add_argument("--beam", type=int, help="beam size (default: as in validation, else 5)")
    parser.add_argument("--max-len-b", type=int, help="longest answer in tokens (default: as in validation, else 200)")
    parser.add_argument(
        "--inference", choices=("beam", "candidates"), help="search, or score every candidate answer (default: as in validation, else beam)"
    )
    parser.add_argument("--zero-shot", action="store_true", default=None, help="mask what is no candidate after the softmax")
    parser.add_argument("--reject-below", type=float, metavar="X", help="no answer where the best one's answer_score (--json) is lower")
    parser.add_argument("--nbest", type=int, default=1, help="answers per row, best first, a line each (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="rows at a time (default: %(default)s)")
    types = "type of numbers to compute in; int8: linear layers are quantised, on CPUs (default: %(default)s)"
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16", "int8"), default="fp32", help=types)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="a JSON object a row: inputs, text, score, answer_score (without a prefix given in the target; what --reject-below compares),"
        " box or codes if predicted, alternatives (of --nbest); rejected where there is no answer",
    )
    parser.add_argument(
        "--on-bad-sample",
        choices=("raise", "skip"),
        default="raise",
        help="rows that cannot be read are named, and the others answered; then fail, or only count them (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Print one answer per line; returns the exit code."""
    from unival.hub import from_checkpoint, lone_medium

    rows = [_row(text) for text in args.row]
    if not rows and not args.inputs:
        raise UserError("nothing to do: give files or --row")
    if args.instruction:
        lone_medium(args.instruction)  # complains about mistakes before the model is loaded
    model = from_checkpoint(args.path, args.vocab_dir, device=args.device, weights=args.weights, adapter=args.adapter, dtype=args.dtype)
    instruction = args.instruction or model.task.instruction_text or CAPTION
    if args.inputs:
        column = lone_medium(instruction)
        if column is None:
            example = json.dumps(example_row(instruction, args.inputs[0]), ensure_ascii=False)
            raise UserError(
                f"files can be given only to an instruction with one named media slot, not to {instruction!r};"
                f" use --row '{example}', or another --instruction"
            )
        rows += [{column: name} for name in args.inputs]
    rows = [each for row in rows for each in questions_of(row, instruction)]
    names = ("beam", "max_len_b", "nbest", "inference", "zero_shot", "reject_below")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    bad = 0
    for row, answer in zip(rows, model.answers(instruction, rows, batch_size=args.batch_size, **given), strict=True):
        if isinstance(answer, UserError):
            bad += 1
            sys.stderr.write(f"unival: {'skipped' if args.on_bad_sample == 'skip' else 'error'}: {answer}\n")
            continue
        sys.stdout.write(printable(_json(row, answer) if args.json else _lines(row, answer)))
        sys.stdout.flush()
    if bad:
        sys.stderr.write(f"unival: {bad:,} of {counted(len(rows), 'row')} could not be read\n")
    return int(bad > 0 and args.on_bad_sample != "skip")


def example_row(instruction: str, file: str) -> dict[str, str]:
    """A row for an instruction, with a file in its first medium."""
    found: dict[str, str] = {}
    for slot in source_slots(instruction):
        is_first = MODALITIES[slot.modality].media is not None and file not in found.values()
        found.setdefault(str(slot.column), file if is_first else "…")
    return found


def questions_of(row: dict[str, Any], instruction: str) -> list[dict[str, Any]]:
    """The rows of a row whose source has lists, such as several questions about an image: one for each of their places.

    Raises:
        UserError: the lists have different lengths.
    """
    return places(row, {str(slot.column) for slot in source_slots(instruction)})


def source_slots(instruction: str) -> list[Slot]:
    """The slots that name columns in the source of an instruction."""
    return [slot for slot in parse(instruction, MODALITIES)[0].source if not slot.is_plain and slot.column is not None]


def _lines(row: dict[str, Any], answer: Any) -> str:
    """The row's only value, or the row, before each of its answers."""
    name = next(iter(row.values())) if len(row) == 1 else json.dumps(row, ensure_ascii=False)
    return "".join(f"{name}\t{output.text}\n" for output in (answer, *answer.alternatives))


def _json(row: dict[str, Any], answer: Any) -> str:
    found = {"inputs": row, **_said(answer), "alternatives": [_said(output) for output in answer.alternatives]}
    return json.dumps(found, ensure_ascii=False) + "\n"


def _said(output: Any) -> dict[str, Any]:
    """Text and scores, the box or the image codes of a target that has them, and whether the answer was rejected, if so."""
    values = {name: getattr(output, name) for name in ("box", "codes")}
    rejected = {"rejected": True} if output.rejected else {}
    scores = {"score": output.score, "answer_score": output.answer_score}
    return {"text": output.text, **scores, **{name: v for name, v in values.items() if v is not None}, **rejected}


def _row(text: str) -> dict:
    from unival.data.table import parse_row

    return parse_row(text, f"--row {text if len(text) <= SHOWN else text[:SHOWN] + '...'!r}")
