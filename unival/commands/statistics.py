"""``unival statistics``: what some methods of ``unival merge`` need of a model, computed on a table and kept in a file."""

import argparse
import pathlib
import sys

from unival.checkpoints.merging import ROWS
from unival.errors import UserError, counted, flag, unknown
from unival.text import check_new

KINDS = {"fisher": "diagonal Fisher information (--method fisher)", "gram": "Gram matrices of linear layers' inputs (--method regmean)"}
ANSWERS = {"model": "sampled from the model", "table": "those of the table"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a checkpoint that will be merged")
    add("--kind", required=True, metavar="NAME", help="; ".join(f"{name}: {about}" for name, about in KINDS.items()))
    add("--table", required=True, metavar="TABLE", help="rows of the checkpoint's task, read with its instruction")
    add("--out", required=True, metavar="FILE", help="file to write; the suffix .safetensors chooses that format")
    add("--rows", type=int, default=ROWS, metavar="N", help="most rows that are used, evenly spread over the table (default: %(default)s)")
    about = "; ".join(f"{name}: {what}" for name, what in ANSWERS.items())
    add("--answers", metavar="NAME", help=f"answers whose likelihood is computed; {about} (default: fisher model, gram table)")
    add("--seed", type=int, default=1, help="seed of the sampled answers (default: %(default)s)")
    about = "the checkpoint's weights, or their moving average (default: %(default)s)"
    add("--weights", choices=("model", "ema"), default="model", help=about)
    add("--vocab-dir", metavar="DIR", help="folder with the vocabulary (default: the one in the checkpoint)")
    add("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    add("--force", action="store_true", help="overwrite the file of --out")


def run(args: argparse.Namespace) -> int:
    """Compute and write the file; returns the exit code."""
    out = pathlib.Path(args.out)
    check_arguments(args, out)
    from unival.checkpoints import files  # imports torch, and what follows fairseq
    from unival.checkpoints.merging.inputs import read_checkpoint
    from unival.checkpoints.merging.statistics import container_of, made_from
    from unival.hub import from_checkpoint
    from unival.models.fitting import share_weights
    from unival.tasks.progress import Step, tell
    from unival.tasks.statistics import weighing
    from unival.tasks.statistics.rows import rows_of, spread

    kind = weighing.KINDS[args.kind]
    answers = args.answers or kind.answers
    model = from_checkpoint(args.checkpoint, args.vocab_dir, device=args.device, weights=args.weights)
    share_weights(model.model, read_checkpoint(args.checkpoint, args.weights).state)  # in memory are the statistics alone
    stream = rows_of(model.task, args.table, with_target=answers == "table")
    rows = len(spread(len(stream), args.rows))
    options = {"rows": rows, "answers": answers, "instruction": model.task.instruction_text}
    options |= {"seed": args.seed} if answers == "model" else {}
    made = made_from(args.kind, args.checkpoint, args.weights, args.table, **options)  # hashes of what is read, not of what follows it

    def told(done: int, total: int) -> None:
        tell(Step(f"{args.kind} of {args.checkpoint}", done, total))

    batches = weighing.examples(model.task, model.model, stream, answers, rows, args.seed, told)
    state = {key: value.cpu() for key, value in kind.compute(model.task, model.model, batches).items()}
    files.write(out, container_of(state, made))
    said = f"{args.kind} of {args.checkpoint} on {counted(rows, 'row')} of {args.table}, answers {ANSWERS[answers]}"
    sys.stdout.write(f"{out}: {said}; {counted(len(state), 'key')}, {out.stat().st_size / 1e6:.1f} MB\n")
    return 0


def check_arguments(args: argparse.Namespace, out: pathlib.Path) -> None:
    """Check the arguments before anything is read.

    Raises:
        UserError: a value is none of those that there are, or a file would be overwritten.
    """
    for name, known in (("kind", KINDS), ("answers", ANSWERS)):
        value = getattr(args, name)
        if value is not None and value not in known:
            raise UserError(unknown(flag(name), value, known))
    if args.rows < 1:
        raise UserError(f"--rows {args.rows}: must be at least 1")
    check_new(out, (args.checkpoint, args.table), args.force)
