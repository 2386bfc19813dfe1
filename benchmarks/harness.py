"""What the benchmarks share: figures that are measured in this tree and in another one in turns, and inputs that every commit takes.

A benchmark names its figures; each is a function that does the work once and gives the seconds of its parts.  With
``--against FOLDER`` (a git worktree of another commit) two processes run the same benchmark file, one importing ``unival`` from
this tree, one from that folder.  They wait for each other, so that each has the machine to itself, and take turns figure by
figure, so that a machine whose speed drifts slows both.
"""

import argparse
import contextlib
import inspect
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Figure = Callable[[], Mapping[str, float]]  # does the work once; part -> seconds
Builders = dict[str, Callable[[], Figure]]  # name -> prepares a figure; only those that are asked for are built
PUBLISHED_VOCABULARY = 59457
MEMORY = "peak of the memory, GiB"
THIS_TREE = pathlib.Path(__file__).resolve().parents[1]


class Stopwatch:
    """Adds up the seconds of named parts: wall time, or processor time of all threads (``cpu``)."""

    def __init__(self, clock: str) -> None:
        self.now = time.process_time if clock == "cpu" else time.perf_counter
        self.parts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + self.now() - start


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    other = "a worktree of another commit, measured in turns with this one"
    parser.add_argument("--against", type=pathlib.Path, metavar="FOLDER", help=other)
    parser.add_argument("--rounds", type=int, default=5, help="how often every figure is measured (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the figures whose names contain this")
    clocks = "wall time, or processor time, which other work disturbs less (default: %(default)s)"
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=clocks)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures to this file as well")
    parser.add_argument("--serve", choices=("this", "other"), help=argparse.SUPPRESS)  # a process of one tree, see Tree
    return parser


def model_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options of benchmarks of a model."""
    parser.add_argument("--vocabulary", type=int, default=PUBLISHED_VOCABULARY, help="its size (default: %(default)s, as published)")
    parser.add_argument("--arch", default="unival_base")
    return parser


class Tree:
    """A process that measures figures of one tree when asked to; the other tree may lack some (``lacking``: name -> why)."""

    def __init__(self, folder: pathlib.Path, script: str, argv: list[str], threads: int, which: str = "this") -> None:
        path = os.pathsep.join(filter(None, [str(folder.resolve()), os.environ.get("PYTHONPATH")]))  # what is to be compared may lie there
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        self.command = [sys.executable, script, *argv, "--serve", which]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  it lives as long as the process
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        self.process = subprocess.Popen(self.command, env=environment, text=True, **pipes)  # type: ignore[call-overload]
        answer = self.answer()
        assert pathlib.Path(answer["unival"]).is_relative_to(folder.resolve()), f"{folder}: imports {answer['unival']}"
        self.figures: list[str] = answer["figures"]
        self.note: str = answer["note"]
        self.lacking: dict[str, str] = answer["lacking"]

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.log.seek(0)
            raise SystemExit(f"{self.log.read()[-3000:]}\n{' '.join(self.command)}: ended with code {code}")
        return json.loads(line)

    def measure(self, figure: str) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(figure + "\n")
        self.process.stdin.flush()
        return self.answer()

    def peak(self) -> float:
        """The most memory that the process has had so far, in GiB."""
        return self.measure("")["peak"]

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.log.close()


def serve(builders: Builders, note: str, which: str) -> None:
    """Answer the names of figures on standard input with their seconds, after one warm-up each, and "" with the peak of the memory."""
    import resource

    import unival

    figures: dict[str, Figure] = {}
    lacking: dict[str, str] = {}
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anybody prints is no answer
        for name, build in builders.items():
            try:
                figure = build()
                figure()
            except Exception as error:  # another commit need not have what a figure measures
                if which == "this":
                    raise
                lacking[name] = f"{type(error).__name__}: {error}"
            else:
                figures[name] = figure
        out.write(json.dumps({"unival": unival.__file__, "figures": list(figures), "note": note, "lacking": lacking}) + "\n")
        out.flush()
        for line in sys.stdin:
            name = line.strip()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            out.write(json.dumps(dict(figures[name]()) if name else {"peak": peak}) + "\n")
            out.flush()


def main(
    script: str,
    parser: argparse.ArgumentParser,
    figures: Callable[[argparse.Namespace], tuple[Builders, str]],
    argv: list[str] | None = None,
    prepare: Callable[[argparse.Namespace], contextlib.AbstractContextManager[list[str]]] | None = None,
) -> None:
    """Run a benchmark.

    Args:
        script: its file.
        parser: its options, from :func:`arguments`.
        figures: gives its figures by name, and a note (or ""), in a process that has one tree's ``unival``.
        argv: the command line.
        prepare: what both trees need; gives options to add for them.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    if args.serve:
        builders, note = figures(args)
        serve({name: build for name, build in builders.items() if args.only in name}, note, args.serve)
        return
    with prepare(args) if prepare else contextlib.nullcontext([]) as more:
        folders = {"this": THIS_TREE} if args.against is None else {"this": THIS_TREE, "other": args.against}
        trees = [Tree(folder, script, [*argv, *more], args.threads, which) for which, folder in folders.items()]
        try:
            compare(trees, args)
        finally:
            for tree in trees:
                tree.close()


@dataclass
class Result:
    """A part of a figure in this tree and in the other one: a value per round.

    Attributes:
        name: figure and part.
        ours, theirs: values (seconds unless the name says otherwise), in the order of the rounds; empty: the other tree lacks it.
    """

    name: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """This tree's values by the other one's of the same rounds."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=False) if theirs]

    def line(self) -> str:
        """The medians, the median of the ratios, and the lowest and highest of them (of one tree: of its values)."""
        cells = [f"{self.name:48} {statistics.median(self.ours):9.4f}"]
        if self.ratios:
            cells.append(f"{statistics.median(self.theirs):20.4f} {statistics.median(self.ratios):12.2f}")
        spread, digits = (self.ratios, 2) if self.ratios else (self.ours, 4)
        return " ".join([*cells, f"{min(spread):9.{digits}f} to {max(spread):.{digits}f}"])


def measured(trees: list[Tree], rounds: int) -> list[Result]:
    """Measure all figures in turns, then the peaks of the memory."""
    times: list[dict[tuple[str, str], list[float]]] = [{} for _ in trees]
    for number in range(rounds):
        for figure in trees[0].figures:
            turns = [(tree, taken) for tree, taken in zip(trees, times, strict=True) if figure in tree.figures]
            for tree, taken in turns[:: 1 if number % 2 else -1]:
                for part, seconds in tree.measure(figure).items():
                    taken.setdefault((figure, part), []).append(seconds)
    other = times[1] if len(trees) > 1 else {}
    results = [Result(", ".join(filter(None, key)), ours, other.get(key, [])) for key, ours in times[0].items()]
    peak, *others = [tree.peak() for tree in trees]
    return [*results, Result(MEMORY, [peak], others)]


def compare(trees: list[Tree], args: argparse.Namespace) -> None:
    """Measure and print; write the values of all rounds to ``--json``."""
    results = measured(trees, args.rounds)
    head = "this tree" if len(trees) == 1 else f"this tree {str(args.against)[-20:]:>20} this : other"
    lines = [f"{f'{args.clock} seconds, medians of {args.rounds}':48} {head}    lowest to highest"]
    lacking = [f"{name}: not measured in the other tree ({why})" for name, why in trees[-1].lacking.items()]
    note = "\n".join(filter(None, [trees[0].note, *lacking]))
    lines += [*(result.line() for result in results), *([note] if note else [])]
    sys.stdout.write("\n".join(lines) + "\n")
    if args.json:
        found = {"clock": args.clock, "note": note, "results": [asdict(result) for result in results]}
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def dictionary(size: int = PUBLISHED_VOCABULARY) -> Any:
    """A dictionary of some size."""
    from fairseq.data import Dictionary

    result = Dictionary()
    while len(result) < size:
        result.add_symbol(f"token{len(result)}")
    return result


def build_model(arch: str, vocabulary: Any, **options: Any) -> Any:
    """A model with random weights, in evaluation mode."""
    import torch
    from omegaconf import OmegaConf

    from unival.models.config import UnivalConfig
    from unival.models.unival import SIZES, UnivalModel

    torch.manual_seed(0)
    cfg = OmegaConf.structured(UnivalConfig(**{**SIZES[arch], **options}))
    return UnivalModel.build_model(cfg, argparse.Namespace(source_dictionary=vocabulary)).eval()


def text_input(vocabulary: Any, rows: int, source: int, target: int, pad_from: int | None = None) -> dict[str, Any]:
    """One group of a batch: random source and target tokens; row i of the target is padded from ``pad_from - i`` on."""
    import torch

    generator = torch.Generator().manual_seed(1)
    prev = torch.randint(4, len(vocabulary), (rows, target), generator=generator)
    for row in range(rows if pad_from is not None else 0):
        prev[row, max(1, (pad_from or 0) - row) :] = vocabulary.pad()
    return {
        "src_tokens": torch.randint(4, len(vocabulary), (rows, source), generator=generator),
        "src_lengths": torch.full((rows,), source),
        "prev_output_tokens": prev,
    }


def media_input(modality: str, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Random values, one item per row."""
    import torch

    values = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    return [{"modality": modality, "values": values, "rows": torch.arange(shape[0])}]


def training_input(model: Any, modality: str, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """As :func:`media_input`, as a loader gives them to the model: pixels are bytes."""
    import torch

    media = media_input(modality, shape)
    if getattr(model.encoder.media[modality], "statistics", None) is not None:  # a tree in which pixels travel as bytes
        media[0]["values"] = media[0]["values"].mul(64).add(128).clamp(0, 255).to(torch.uint8)
    return media


def label_smoothed(vocabulary: Any) -> Any:
    """The criterion of training, with label smoothing 0.1."""
    from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion

    config = LabelSmoothedConfig(label_smoothing=0.1, sentence_avg=False)
    return LabelSmoothedCriterion(argparse.Namespace(target_dictionary=vocabulary), config).train()


def net_input(forward: Callable[..., Any], group: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a model's or an encoder's ``forward`` for one group, which is all of its batch where batches have groups."""
    parameters = inspect.signature(forward).parameters
    if "groups" in parameters:
        return {"groups": [group]}
    return {key: value for key, value in group.items() if key in parameters}
