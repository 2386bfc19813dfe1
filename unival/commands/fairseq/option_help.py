"""``unival train --help`` (also ``validate``, ``generate``): this package's options, then fairseq's."""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fairseq.dataclass import configs
from fairseq.registry import REGISTRIES

from unival.commands.options import (
    Option,
    by_group,
    named_sizes,
    options_of,
    our_models,
    our_parts,
    our_tasks,
)
from unival.errors import flag
from unival.tasks.restore import PLAIN_CRITERIONS

INTRODUCTIONS = {
    "train": "Train a model; `fairseq-train` with this package's tasks and models.",
    "validate": "Loss and metrics of a checkpoint on a split; `fairseq-validate` with this package's tasks and models.",
    "generate": "Generate for a split with a checkpoint; `fairseq-generate` with this package's tasks and models.",
}
# Options of this command line alone.
OWN_OPTIONS = {
    "--help": "this text; --task, --arch and --criterion choose whose options are shown",
    "--help-all": "this text with all options of fairseq",
    "--verbose": "show everything that is logged (LOGLEVEL=DEBUG: even more)",
    "--traceback": "show where an error came from",
}
FAIRSEQ_CONFIGS: dict[str, tuple[type, ...]] = {
    "train": (
        configs.DatasetConfig,
        configs.OptimizationConfig,
        configs.CheckpointConfig,
        configs.CommonConfig,
        configs.DistributedTrainingConfig,
        configs.EMAConfig,
    ),
    "validate": (
        configs.CommonEvalConfig,
        configs.DatasetConfig,
        configs.CommonConfig,
        configs.DistributedTrainingConfig,
    ),
    "generate": (
        configs.CommonEvalConfig,
        configs.GenerationConfig,
        configs.DatasetConfig,
        configs.CommonConfig,
        configs.DistributedTrainingConfig,
        configs.CheckpointConfig,
    ),
}
# fairseq's options that most runs need.
COMMON = {
    "train": """--batch-size --update-freq --max-update --max-epoch --lr --clip-norm --train-subset --valid-subset --batch-size-valid
        --num-workers --validate-interval-updates --save-dir --restore-file --finetune-from-model --save-interval-updates
        --keep-interval-updates --no-epoch-checkpoints --no-save --best-checkpoint-metric --maximize-best-checkpoint-metric --patience
        --seed --cpu --fp16 --log-interval --log-format --log-file --tensorboard-logdir --distributed-world-size --ddp-backend
        --find-unused-parameters""",
    "validate": "--path --batch-size --valid-subset --num-workers --seed --cpu --fp16",
    "generate": """--path --results-path --gen-subset --batch-size --beam --nbest --max-len-b --min-len --lenpen --no-repeat-ngram-size
        --sampling --sampling-topp --temperature --prefix-size --num-workers --seed --cpu --fp16 --quiet""",
}
REGISTRY_OPTIONS = {"train": ("criterion", "optimizer", "lr_scheduler"), "validate": (), "generate": ("scoring",)}


def help_text(command: str, arguments: Sequence[str]) -> str:
    """The help of a command, for the task, architecture and criterion among its arguments."""
    everything = "--help-all" in arguments
    chosen = _chosen(arguments)
    lines = [f"usage: unival {command} DATA [options]", "", INTRODUCTIONS[command], ""]
    lines += _section("this command", [Option(name, "", text, None, "") for name, text in OWN_OPTIONS.items()])
    lines += _our_sections(command, chosen)
    lines += _fairseq_sections(command, chosen, everything)
    if not everything:
        lines.append("fairseq has more options: --help-all shows them. docs/options.md has all of this package's on one page.")
    return "\n".join(lines) + "\n"


def _chosen(arguments: Sequence[str]) -> dict[str, str | None]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("task", "arch", *REGISTRIES):
        parser.add_argument(flag(name), nargs="?")
    return vars(parser.parse_known_args([argument for argument in arguments if argument not in OWN_OPTIONS])[0])


def _our_sections(command: str, chosen: dict[str, str | None]) -> Iterator[str]:
    tasks = our_tasks()
    task = chosen["task"]
    yield from _section("what to do", list(_choices(command)))
    for group, members in by_group(options_of(tasks.get(task or "", tasks["unival"]))).items():
        yield from _section(f"{group} ({f'--task {task}' if task in tasks else 'every task'})", members)
    if task not in tasks:
        shared = {option.name for option in options_of(tasks["unival"])}
        for name, config in tasks.items():
            if own := [option for option in options_of(config) if option.name not in shared]:
                yield from _section(f"task (--task {name})", own)
    if command != "train":
        return
    models = our_models()
    arch = chosen["arch"]
    named = arch if arch in models else next(iter(models))
    title = f"model (--arch {arch})" if arch in models else f"model (defaults of --arch {named}; --arch NAME --help shows another's)"
    yield from _section(title, options_of(models[named], named_sizes().get(named)))
    for registry, configs_of in our_parts().items():
        option, choice = flag(registry), chosen.get(registry)
        for name, config in configs_of.items():
            if choice in (None, name) and options_of(config):
                yield from _section(f"{registry.replace('_', ' ')} ({option} {name})", options_of(config))


def _choices(command: str) -> Iterator[Option]:
    yield Option("--task", "NAME", ", ".join(our_tasks()), None, "")
    if command == "train":
        yield Option("--arch", "NAME", ", ".join(our_models()), None, "")
    parts = our_parts()
    for registry in REGISTRY_OPTIONS[command]:
        ours = list(parts.get(registry, {}))
        fairseqs = PLAIN_CRITERIONS if registry == "criterion" else REGISTRIES[registry]["registry"]
        others = sorted(set(fairseqs) - set(ours))
        text = "; ".join(part for part in (", ".join(ours), "fairseq's: " + ", ".join(others)) if part)
        yield Option(flag(registry), "NAME", text, None, "")


def _fairseq_sections(command: str, chosen: dict[str, str | None], everything: bool) -> Iterator[str]:
    shown = [option for config in FAIRSEQ_CONFIGS[command] for option in options_of(config)]
    if everything:
        for config in FAIRSEQ_CONFIGS[command]:
            yield from _section(f"fairseq: {config.__name__.removesuffix('Config')}", options_of(config))
    else:
        by_name = {option.name: option for option in shown}
        yield from _section("the most used of fairseq's options", [by_name[name] for name in COMMON[command].split()])
    for registry in REGISTRY_OPTIONS[command]:
        name = chosen.get(registry)
        part: Any = REGISTRIES[registry]["dataclass_registry"].get(name)
        if part and not part.__module__.startswith("unival.") and options_of(part):
            yield from _section(f"fairseq: {flag(registry)} {name}", options_of(part))


def _section(title: str, options: Iterable[Option]) -> Iterator[str]:
    """A title and its options, wrapped to the terminal."""
    width = max(shutil.get_terminal_size((110, 24)).columns - 1, 60)
    indent = 34 if width >= 90 else 24
    yield f"{title}:"
    for option in options:
        lines = textwrap.wrap(option.text, width - indent) or [""]
        head = f"  {option.usage}"
        if len(head) >= indent - 1:
            yield head
        else:
            lines[0] = f"{head:{indent}}{lines[0]}"
        yield from (line if line.startswith(head) else " " * indent + line for line in lines)
    yield ""
