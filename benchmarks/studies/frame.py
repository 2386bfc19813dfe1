"""What studies share: runs of every setting with every seed, their scores and their cost, a table, a plot.

A study is a file beside this one: its data, its settings (each a mixture of its own), and which scores it compares; see ``balancing.py``.

    python benchmarks/studies/balancing.py --work FOLDER

trains what is not there yet, so that a study that was stopped goes on, writes ``balancing.json`` and ``balancing.png`` beside the
study's file, and prints the table.  A setting that is trained further, on one task each (as fine-tuning after pretraining is), says so
with ``after``.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLOURS = ("#59636e", "#c0392b", "#1a7f37", "#2f6fb5", "#9a6700", "#8250df")
Mixture = Mapping[str, Any]  # the content of a mixture file, paths relative to the study's data


@dataclass(frozen=True)
class Setting:
    """What is compared.

    Attributes:
        name: a few words.
        mixture: trained stage by stage.
        after: further mixtures by name, each trained from the last checkpoint of ``mixture``.
    """

    name: str
    mixture: Mixture
    after: Mapping[str, Mixture] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        file: its ``__file__``; results stand beside it, under its name.
        question: what it asks, in a line.
        data: writes its tables, a vocabulary in ``vocab`` and what else the mixtures name into a folder, small ones if asked to.
        settings: by whether they are small ones; the first is what the others are compared with.
        scores: what is compared, keys of the training log without ``valid_`` (of ``after``: its name in front) -> what it is called.
    """

    file: str
    question: str
    data: Callable[[pathlib.Path, bool], None]
    settings: Callable[[bool], Sequence[Setting]]
    scores: Mapping[str, str]


Result = dict[str, Any]  # setting, seed, scores by key, updates, processor_seconds, wall_seconds


def parser(study: Study) -> argparse.ArgumentParser:
    """The options of every study."""
    made = argparse.ArgumentParser(description=study.question)
    made.add_argument("--work", required=True, type=pathlib.Path, help="folder for data and runs")
    made.add_argument("--out", type=pathlib.Path, help="folder for the results (default: beside the study's file)")
    made.add_argument("--seeds", type=int, default=3, help="runs of every setting (default: %(default)s)")
    made.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (default: %(default)s)")
    made.add_argument("--smoke", action="store_true", help="small data and short runs, to see that it works")
    return made


def main(study: Study, argv: Sequence[str] | None = None) -> int:
    """Run a study; returns the exit code."""
    args = parser(study).parse_args(argv)
    data, out = args.work / "data", args.out or pathlib.Path(study.file).parent
    if not (data / "done").exists():
        data.mkdir(parents=True, exist_ok=True)
        study.data(data, args.smoke)
        (data / "done").touch()
    settings = study.settings(args.smoke)
    todo = [(setting, seed) for seed in range(1, args.seeds + 1) for setting in settings]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda run: trained(study, *run, args.work), todo))
    name = pathlib.Path(study.file).stem
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(study, settings, results)
    content = {"question": study.question, "settings": {s.name: dict(s.mixture) for s in settings}, "runs": results}
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    plot(study, settings, results, out / f"{name}.png")
    sys.stdout.write(table)
    return 0


def trained(study: Study, setting: Setting, seed: int, work: pathlib.Path) -> Result:
    """Train a setting with a seed, or read what an earlier call made of it."""
    folder = work / f"{setting.name.replace(' ', '-')}-{seed}"
    file = folder / "result.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    start, scores, cost, last = time.monotonic(), {}, Cost(), None
    for name, mixture in {"": setting.mixture, **setting.after}.items():
        path = work / "data" / f"{folder.name}{name and '-' + name}.yaml"
        path.write_text(json.dumps(mixture, indent=1), encoding="utf-8")  # JSON is YAML
        checkpoint = last if name else None
        for stage in mixture.get("stages") or {"all": {}}:
            save = folder / (name or "pretraining") / stage
            save.mkdir(parents=True, exist_ok=True)
            start_from = [] if checkpoint is None else ["--finetune-from-model", str(checkpoint)]
            vocabulary = [] if checkpoint else ["--vocab-dir", str(work / "data" / "vocab")]
            train([str(path), "--stage", stage, "--seed", str(seed), *start_from, *vocabulary], save, cost)
            checkpoint = save / "checkpoint_last.pt"
            found = validated(save / "train.jsonl")
            scores.update({f"{name}{name and '/'}{key}": value for key, value in found.items()})
        last = last if name else checkpoint
    missing = [key for key in study.scores if key not in scores]
    assert not missing, f"{folder}: no {', '.join(missing)} in its logs; there are {', '.join(scores)}"
    wall = round(time.monotonic() - start, 1)
    result = {"setting": setting.name, "seed": seed, "scores": {key: scores[key] for key in study.scores}}
    result |= {"updates": cost.updates, "processor_seconds": round(cost.seconds, 1), "wall_seconds": wall}
    file.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


@dataclass
class Cost:
    """What the processes of a run have used."""

    seconds: float = 0.0  # of processors
    updates: int = 0


def train(arguments: Sequence[str], save: pathlib.Path, cost: Cost) -> None:
    """Run ``unival train``; its messages go to a file."""
    command = [sys.executable, "-m", "unival", "train", *arguments, "--save-dir", str(save), "--no-epoch-checkpoints"]
    command += ["--log-format", "json", "--log-file", str(save / "train.jsonl")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (save / "messages.txt").open("wb") as messages:
        process = subprocess.Popen(command, env=environment, stdout=messages, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{(save / 'messages.txt').read_text()[-2000:]}\n{' '.join(command)}: failed")
    cost.seconds += used.ru_utime + used.ru_stime
    cost.updates += int(float(records(save / "train.jsonl")[-1].get("train_num_updates", 0)))


def records(log: pathlib.Path) -> list[dict[str, Any]]:
    """The JSON objects of a training log."""
    lines = dict.fromkeys(log.read_text(encoding="utf-8").splitlines())
    return [json.loads(line) for line in lines if line.startswith('{"')]  # the configuration starts with {'


def validated(log: pathlib.Path) -> dict[str, float]:
    """The values of the last validation, without ``valid_``."""
    found = [record for record in records(log) if "valid_num_updates" in record]
    return {key.removeprefix("valid_"): float(value) for key, value in found[-1].items() if key.startswith("valid_")}


def script(name: str, *arguments: str) -> None:
    """Run a script of ``data_utils``."""
    subprocess.run([sys.executable, str(ROOT / "data_utils" / name), *arguments], check=True)


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: pathlib.Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Write a table."""
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")


def vocabulary(folder: pathlib.Path, *columns: tuple[str, str], size: int = 500) -> None:
    """Train a vocabulary on columns of tables, and on the published prompts."""
    from unival.data.builders import BUILDERS
    from unival.vocab import train_vocabulary

    prompts = [text for builder in BUILDERS.values() for text in builder.instructions("image").values()]
    texts = [f" {text}" for name, column in columns for row in rows(folder / name) for text in listed(row[column])]
    train_vocabulary([*prompts, *texts], size, folder / "vocab")


def listed(cell: str | list[str]) -> list[str]:
    """The texts of a cell."""
    return [cell] if isinstance(cell, str) else cell


def options(**more: Any) -> dict[str, Any]:
    """Options of a small training; ``more`` are the study's own."""
    common = {"arch": "unival_tiny", "criterion": "unival_label_smoothed", "optimizer": "adam", "adam_betas": "(0.9, 0.98)", "lr": 1e-3}
    common |= {"weight_decay": 0.01, "clip_norm": 1.0, "lr_scheduler": "unival_polynomial", "warmup_ratio": 0.05, "batch_size_valid": 64}
    common |= dict.fromkeys(("dropout", "encoder_drop_path_rate", "decoder_drop_path_rate"), 0.0)
    return common | {"required_batch_size_multiple": 1, "num_workers": 0, "log_interval": 25} | more


def by_setting(results: Sequence[Result], setting: str, key: str) -> list[float]:
    """The values of a score, a seed each."""
    return [result["scores"][key] for result in results if result["setting"] == setting]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def markdown(study: Study, settings: Sequence[Setting], results: Sequence[Result]) -> str:
    """The table: a row for each setting, means and standard deviations over seeds, and the cost of a run."""
    lines = [f"| {study.question} | {' | '.join(study.scores.values())} | updates | processor seconds |"]
    lines.append("|---" * (len(study.scores) + 3) + "|")
    for setting in settings:
        runs = [result for result in results if result["setting"] == setting.name]
        cells = [spread(by_setting(results, setting.name, key)) for key in study.scores]
        seconds = statistics.mean(run["processor_seconds"] for run in runs)
        lines.append(f"| {setting.name} | {' | '.join(cells)} | {runs[0]['updates']} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def plot(study: Study, settings: Sequence[Setting], results: Sequence[Result], path: pathlib.Path) -> None:
    """A panel for each score: a dot for each seed, a bar for the mean of each setting."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(study.scores) + 1, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, (key, label) in zip(figure.subplots(1, len(study.scores), squeeze=False)[0], study.scores.items(), strict=True):
        for place, setting in enumerate(settings):
            values, colour = by_setting(results, setting.name, key), COLOURS[place % len(COLOURS)]
            axes.bar(place, statistics.mean(values), color=colour, alpha=0.35, width=0.7)
            axes.plot([place] * len(values), values, "o", color=colour, markersize=5)
        axes.set_title(label, fontsize=11)
        axes.set_xticks(range(len(settings)), [textwrap.fill(setting.name, 16) for setting in settings], fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, None)
    figure.suptitle(study.question, fontsize=12)
    figure.savefig(path, dpi=90)
