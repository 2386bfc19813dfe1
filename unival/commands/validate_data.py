"""``unival validate-data``: read every row of a table as training and evaluation do, and explain those that cannot be read."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, get_type_hints

from unival.errors import UserError, counted, flag, unknown
from unival.text import check_writable, write_json

COUNTS = {  # what is no reason to call a row bad
    "truncated": ("text", "cut to the limit"),
    "empty": ("empty reference", "ignored beside others"),
    "outside": ("row", "with an answer to learn that is no candidate (--train calls it bad)"),
}

OF_TABLE = ("instruction", "builder", "media_root", "columns", "selected_cols", "closed_set")  # options that streams have for themselves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments, among them the options of media that a task has."""
    from unival.modalities.composed import TRAINING_ONLY, MediaOptions

    add = parser.add_argument
    add("table", metavar="TABLE", help=".jsonl or .tsv; or a mixture file, whose tables are all read as its streams read them")
    add("--stage", metavar="NAME", help="of a mixture file this stage only (default: all)")
    add("--builder", metavar="NAME", help="read rows by this builder, as training with --builder does (default: none)")
    add("--task", default="unival", metavar="NAME", help="a task, for its instruction and TSV columns (default: %(default)s)")
    add("--instruction", metavar="LINE", help="e.g. '[IMAGE:image] what does it describe? -> [TEXT:caption]' (default: the task's own)")
    add("--media-root", metavar="DIR", help="folder that media paths are relative to (default: the table's folder)")
    add("--columns", metavar="NAME,NAME", help="TSV: names of the selected columns (default: the task's)")
    add("--selected-cols", metavar="N,N", help="TSV: numbers of the columns to read (default: the task's)")
    add("--closed-set", metavar="FILE", help="candidate answers, one a line (default: the task's own)")
    add("--train", action="store_true", help="a table to train on: rows whose answer is no candidate are bad (else they are counted)")
    add("--vocab-dir", metavar="DIR", help="the vocabulary (default: vocab/ beside the table, else bytes, which suffice to check rows)")
    add("--workers", type=int, default=1, metavar="N", help="processes that read (default: %(default)s; 0: no other than this)")
    add("--json", metavar="FILE", help="also write what was found as a JSON object")
    group, hints = parser.add_argument_group("options of media"), get_type_hints(MediaOptions)
    for option in fields(MediaOptions):
        if option.name in TRAINING_ONLY:
            continue
        kind = hints[option.name]
        takes: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": _plain_type(kind)}
        text = option.metadata["help"] + ("" if kind is bool or option.default is None else f" (default: {option.default})")
        group.add_argument(flag(option.name), help=text.replace("%", "%%"), default=argparse.SUPPRESS, **takes)


def open_mixture(args: argparse.Namespace) -> list[tuple[str, Any, bool]]:
    """The tables of a mixture file: name, findings, and whether it is trained on; each as the first of the stages that have it reads it.

    Raises:
        UserError: the file, a table or an option cannot be used.
    """
    import unival.tasks  # noqa: F401  registers the tasks

    # isort: split
    from unival.data.problems import Findings
    from unival.modalities.composed import MediaOptions
    from unival.tasks.pretraining.arguments import configuration, stage_arguments
    from unival.tasks.pretraining.file import check_files, read_mixture
    from unival.tasks.pretraining.task import PretrainTask
    from unival.tasks.resume import any_vocabulary

    given = [name for name in OF_TABLE if getattr(args, name) is not None]
    given += [field.name for field in fields(MediaOptions) if hasattr(args, field.name)]
    given += ["train"] if args.train else []
    if given:
        raise UserError(f"{flag(given[0])} is for one table: {args.table} says it for every stream or stage")
    mixture = read_mixture(args.table)
    stages = mixture.stages if args.stage is None else [mixture.stage(args.stage)]
    check_files(stages)
    found: dict[str, tuple[str, Any, bool]] = {}
    for stage in stages:
        more = [] if args.vocab_dir is None else ["--vocab-dir", args.vocab_dir]
        cfg = configuration([args.table, *stage_arguments(stage), *more])
        task = PretrainTask(cfg.task, any_vocabulary(cfg.task))
        task.is_training = True
        task.open_mixture()
        for streams, key in ((task.streams, "table"), (task.valid_streams, "valid")):
            for stream in streams:
                name = f"{mixture.path}: streams.{stream.name}.{key}"
                if name not in found:
                    data = stream.training_data() if key == "table" else stream.validation_data()
                    found[name] = name, Findings(stream.every_reading(data)), key == "table"
    return list(found.values())


def _plain_type(kind: Any) -> Any:
    """``int`` of ``int | None``."""
    return next(part for part in getattr(kind, "__args__", (kind,)) if part is not type(None))


def run(args: argparse.Namespace) -> int:
    """Print one line per bad row and a summary; returns 1 if there are bad rows."""
    from unival.tasks.pretraining.file import is_mixture

    if args.workers < 0:
        raise UserError(f"--workers {args.workers}: must be 0 or more")
    if args.json:
        check_writable("--json", args.json)
    if is_mixture(args.table):
        found = [check(name, every, is_train, args.workers) for name, every, is_train in open_mixture(args)]
        content = {"mixture": args.table, "tables": found}
    elif args.stage is not None:
        raise UserError(f"--stage {args.stage}: {args.table} is no mixture file")
    else:
        found = [check(args.table, open_table(args), args.train, args.workers)]
        content = found[0]
    if args.json:
        write_json(args.json, content)
    return int(any(each["bad"] for each in found))


def check(name: str, every: Any, train: bool, workers: int) -> dict[str, Any]:
    """Read every row of a table, and print what is wrong; returns what was found, for JSON.

    Args:
        name: of the table.
        every: its :class:`unival.data.problems.Findings`.
        train: a row whose answer is no candidate is bad.
        workers: processes that read.
    """
    from unival.data.problems import findings
    from unival.tasks.progress import Step, tell

    counts, problems = dict.fromkeys(COUNTS, 0), []
    try:
        for done, found in enumerate(findings(every, workers), start=1):
            problem = found.problem or (found.outside if train else None)
            if problem is not None:
                problems.append(problem)
            elif found.outside is not None:
                counts["outside"] += 1
            counts["truncated"] += found.truncated
            counts["empty"] += found.empty
            tell(Step(f"checking {name}: {counted(len(problems), 'bad row')}", done, len(every)))
    finally:  # also what was found until Ctrl-C
        sys.stdout.writelines(f"{problem.message}{_shown(problem)}\n" for problem in problems)
    sys.stdout.write(summary(name, len(every), problems, counts) + "\n")
    return {"table": name, "rows": len(every), **counts, "bad": [asdict(problem) for problem in problems]}


def _shown(problem: Any) -> str:
    """The value, where the message does not have it."""
    is_told = problem.value is None or problem.value in problem.message
    return "" if is_told else f" (the value is {problem.value})"


def summary(table: str, rows: int, problems: Sequence[Any], counts: Mapping[str, int]) -> str:
    """What was found, in one line."""
    columns = Counter("the row itself" if problem.column is None else f"column {problem.column!r}" for problem in problems)
    where = ", ".join(f"{count:,} in {column}" for column, count in columns.most_common())
    parts = [f"{counted(len(problems), 'bad row')} of {rows:,}: {where}" if problems else f"{counted(rows, 'row')} can be read"]
    parts += [f"{counted(count, COUNTS[name][0])} {COUNTS[name][1]}" for name, count in counts.items() if count]
    return f"{table}: {'; '.join(parts)}"


def open_table(args: argparse.Namespace) -> Any:
    """The :class:`unival.data.problems.Findings` of the table, read through each alternative of the instruction, as evaluation reads it,
    or through the builder.

    Raises:
        UserError: the table or an option cannot be used.
    """
    import unival.tasks  # noqa: F401  registers the tasks

    # isort: split
    from fairseq.tasks import TASK_REGISTRY
    from omegaconf import OmegaConf

    from unival.data.problems import Findings
    from unival.modalities.composed import MediaOptions
    from unival.tasks.base import UnivalTask
    from unival.tasks.config import UnivalTaskConfig
    from unival.tasks.presets import PRESETS
    from unival.tasks.pretraining.streams import alternatives
    from unival.tasks.resume import any_vocabulary

    kind = TASK_REGISTRY.get(args.task)
    if kind is None or not issubclass(kind, UnivalTask):
        raise UserError(unknown("--task", args.task, PRESETS))
    given = {name: getattr(args, name) for name in (*OF_TABLE, "vocab_dir") if getattr(args, name) is not None}
    media = {field.name: getattr(args, field.name) for field in fields(MediaOptions) if hasattr(args, field.name)}
    cfg = OmegaConf.structured(UnivalTaskConfig(data=args.table, seed=1, cpu=True, bf16=False, fp16=False, **given, **media))
    task = kind(cfg, any_vocabulary(cfg))
    table = task.open_table(args.table)
    if args.builder is None:
        each = [task.build_dataset(table, instructions=[instruction]) for instruction in task.instructions]
        streams = each or [task.build_dataset(table)]
    elif not task.instructions:
        raise UserError(f"--builder {args.builder}: give the task whose rows it makes, --task or --instruction")
    else:
        streams = [task.stream(table, each, False, builder=args.builder) for each in alternatives(task.to_build())]
    for stream in streams:
        stream.candidates = None if task.trie is None else task.trie.answers
    return Findings(streams)
