"""What is recorded: each function makes one part of the record from the code as it is, through entry points that users have."""

import argparse
import copy
import dataclasses
import functools
import hashlib
import json
import lzma
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any
from unittest import mock

import torch
from fairseq import models, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from torch import Tensor

from tests import runs
from tests.unchanged import material
from unival.cli import main
from unival.hub import from_checkpoint
from unival.metrics.score import read_generated

Record = dict[str, Any]
STORED = material.HERE / "stopped.pt.xz"
HALF = torch.tensor(0.5)
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


# Batches ----------------------------------------------------------------------------------------------------------------------


def flat(sample: Mapping[str, Any], pad: int, imagenet: bool = False) -> list[Record]:
    """The rows of a batch in their order, however batches are laid out: ids without padding, media normalised.

    ``net_input`` is one group of rows, or ``{"groups": [group, …]}`` whose rows follow each other.  Media are floats, or bytes that
    the model normalises: to [-1, 1], or by ImageNet's statistics.
    """
    rows: list[Record] = []
    net_input = sample["net_input"]
    for group in net_input.get("groups", [net_input]):
        for i, (source, length) in enumerate(zip(group["src_tokens"], group["src_lengths"], strict=True)):
            at = len(rows)
            row = {
                "row": int(sample["id"][at]),
                "source": unpadded(source, pad),
                "prev_output": unpadded(group["prev_output_tokens"][i], pad),
                "target": sample["target"][at].tolist(),  # padding within it has no loss
                "prefix": unpadded(sample["prefix_tokens"][at], pad) if "prefix_tokens" in sample else [],
                "references": list(sample["references"][at]),
                "media": [],
            }
            assert len(row["source"]) == int(length)
            row["target"] = row["target"][: len(row["prev_output"])]
            assert set(sample["target"][at, len(row["target"]) :].tolist()) <= {pad}
            for item in group.get("media", []):
                for value in item["values"][item["rows"] == i]:
                    row["media"].append((item["modality"].lower(), normalised(value, imagenet)))
            rows.append(row)
    assert len(rows) == sample["nsentences"] == len(sample["id"])
    return rows


def unpadded(ids: Tensor, pad: int) -> list[int]:
    """Ids without the padding on their right."""
    length = int(ids.ne(pad).sum())
    assert (ids[:length] != pad).all(), "padding within the ids"
    return ids[:length].tolist()


def normalised(values: Tensor, imagenet: bool) -> Tensor:
    """Media as the model's networks get them."""
    if values.dtype != torch.uint8:
        return values
    mean, std = IMAGENET if imagenet else (HALF, HALF)
    shape = (-1, *[1] * (values.dim() - 1))
    return (values.float() / 255 - mean.view(shape)) / std.view(shape)


def measured(values: Tensor) -> list[Any]:
    """A tensor's shape, mean, deviation, its product with a fixed wave, and some of its values: what tolerates rounding."""
    x = values.double().flatten()
    wave = torch.cos(torch.arange(len(x), dtype=torch.float64) * 0.37)
    some = x[torch.linspace(0, len(x) - 1, 5).long()]
    numbers = [x.mean(), x.std(correction=0), (x * wave).mean(), *some]
    return [list(values.shape), *(round(float(number), 8) for number in numbers)]


def content(row: Mapping[str, Any]) -> Record:
    """A row as it is recorded."""
    texts = json.dumps([row[key] for key in ("source", "prev_output", "target", "prefix", "references")])
    return {
        "texts": hashlib.sha256(texts.encode()).hexdigest()[:16],
        "references": len(row["references"]),
        "media": [[name, *measured(values)] for name, values in row["media"]],
    }


@functools.cache
def configured(*arguments: str) -> Any:
    """fairseq's configuration of a training command."""
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, input_args=list(arguments)))


def changed(cfg: Any, part: str, **values: Any) -> Any:
    """A copy of a configuration with other values in a part of it; fairseq takes a second to make one of a command line."""
    cfg = copy.deepcopy(cfg)
    for name, value in values.items():
        cfg[part][name] = value
    return cfg


def epochs(name: str, shards: int, workers: int, update_freq: int, split: str = "train") -> Iterator[tuple[str, list[Any]]]:
    """``epoch/rank`` and its batches, for two epochs and every rank."""
    basis = configured("data", "--task", material.TASKS[name]["_name"], *material.SMALL, *material.LOOP)
    cfg = changed(changed(basis, "optimization", update_freq=[update_freq]), "task", **material.TASKS[name])
    for rank in range(shards):
        task = tasks.setup_task(cfg.task)
        task.build_model(copy.deepcopy(cfg.model))  # from here on it trains
        task.load_dataset(split, combine=False, epoch=1)
        batches = task.get_batch_iterator(
            task.dataset(split),
            max_sentences=3,
            seed=cfg.common.seed,
            num_shards=shards,
            shard_id=rank,
            num_workers=workers,
            data_buffer_size=2,
            epoch=1,
        )
        for epoch in (1, 2) if split == "train" else (1,):
            samples = list(batches.next_epoch_itr(shuffle=split == "train"))
            yield f"{epoch}/{rank}", [(sample, task.source_dictionary.pad()) for sample in samples]


WAYS: dict[str, dict[str, Any]] = {  # name -> how batches are made
    "alone": {"shards": 1, "workers": 0, "update_freq": 1},
    "two ranks": {"shards": 2, "workers": 2, "update_freq": 1},
    "two ranks, update_freq": {"shards": 2, "workers": 0, "update_freq": 2},
    "valid": {"shards": 1, "workers": 0, "update_freq": 1, "split": "valid"},
}


def batches(name: str) -> Record:
    """``rows``: content by split, epoch and row; ``order``: rows of every batch, by way, epoch and rank, and what it counts."""
    contents: Record = {}
    order: Record = defaultdict(dict)
    imagenet = material.TASKS[name].get("imagenet_mean_and_std", False)
    ways = WAYS if name == "caption" else {key: WAYS[key] for key in ("alone", "valid")}
    for way, how in ways.items():
        for where, samples in epochs(name, **how):
            numbers = order[way].setdefault(where, [])
            for sample, pad in samples:
                rows = flat(sample, pad, imagenet)
                if len({tuple(kind for kind, _ in row["media"]) for row in rows}) > 1:  # each kind is a group of its own
                    rows.sort(key=lambda row: row["row"])
                counts = [sample["ntokens"], sample["num_truncated"], sample["num_empty"], sample["target"].size(1)]
                numbers.append([[row["row"] for row in rows], counts])
                for row in rows:
                    key = f"{how.get('split', 'train')} {where.split('/')[0]} {row['row']}"
                    found = content(row)
                    assert contents.setdefault(key, found) == found, f"{name}, {way}: {key} is another one"
    return {"rows": contents, "order": order}


# Losses -----------------------------------------------------------------------------------------------------------------------


@contextmanager
def losses_of_updates() -> Iterator[list[list[float]]]:
    """Loss (summed over ranks and batches) and gradient norm of every update, as numbers and not as the log rounds them."""
    found: list[list[float]] = []
    log = Trainer._reduce_and_log_stats

    def noted(self: Trainer, outputs: list[Record], sample_size: float, grad_norm: Any = None) -> Any:
        if grad_norm is not None:
            found.append([sum(float(output["loss"]) for output in outputs) / float(sample_size), float(grad_norm)])
        return log(self, outputs, sample_size, grad_norm)

    with mock.patch.object(Trainer, "_reduce_and_log_stats", noted):
        yield found


def run(*arguments: str) -> list[list[float]]:
    """Losses and gradient norms of a run."""
    with losses_of_updates() as found:
        try:
            assert main(["train", *arguments]) == 0
        finally:
            runs.forget_run()
    return found


def losses(name: str) -> list[list[float]]:
    """The first updates of a run."""
    updates = material.UPDATES.get(name, 20)
    return run(*material.RUNS[name], "--max-update", str(updates), "--no-save", "--save-dir", "none")


# Options ----------------------------------------------------------------------------------------------------------------------


def value_of(default: Any) -> Any:
    """A default as JSON holds it."""
    if isinstance(default, Enum):
        return default.value
    return default if isinstance(default, str | int | float | bool | list | type(None)) else str(default)


def defaults(config: type) -> Record:
    """Name -> default of every option of a dataclass."""
    found = {}
    for field in dataclasses.fields(config):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        found[field.name] = value_of(made)
    return found


def registered() -> Record:
    """Kind and name of all that is registered with fairseq by this package -> its options."""
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    import unival.tasks  # noqa: F401

    kinds = {"task": TASK_DATACLASS_REGISTRY, "model": MODEL_DATACLASS_REGISTRY}
    kinds |= {kind: registry["dataclass_registry"] for kind, registry in REGISTRIES.items()}
    found = {
        f"{kind} {name}": defaults(config)
        for kind, registry in kinds.items()
        for name, config in registry.items()
        if config is not None and config.__module__.startswith("unival.")
    }
    for arch in sorted(arch for arch, model in ARCH_MODEL_NAME_REGISTRY.items() if model == "unival"):
        model = OmegaConf.to_container(configured("x", "--task", "unival", "--arch", arch).model)
        found[f"arch {arch}"] = {key: value for key, value in model.items() if value != found["model unival"].get(key)}
    return found


class _ParserMadeError(Exception):
    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


COMMANDS = ("train-vocab", "score", "report", "convert", "inspect", "run")


def of_command(command: str) -> Record:
    """Option (all its names) or positional argument of a command -> default and choices."""

    def stop(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        raise _ParserMadeError(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            main(["--traceback", command])
        except _ParserMadeError as made:
            parser = made.parser
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {
        " ".join(action.option_strings) or action.dest: [value_of(action.default), [str(choice) for choice in action.choices or []]]
        for action in commands.choices[command]._actions
    }


def all_options() -> Record:
    """Of everything registered, and of the commands."""
    return {**registered(), **{f"command {name}": of_command(name) for name in COMMANDS}}


# Checkpoint keys --------------------------------------------------------------------------------------------------------------

MODELS = {"unival_tiny": "image,video,audio", "unival_base": "image,video,audio", "unival_large": "image"}  # size -> media
KEY_OPTIONS: dict[str, dict[str, Any]] = {  # of the smallest with images, or what is said here
    "modality layernorm of audio": {"modality_layernorm": True, "modality_layernorm_media": "audio", "modalities": "audio,image"},
    "norms, scales": {"modality_layernorm": True, "add_mm_type_embedding": True, "qk_norm": True, "scale_resids": True},
    "attention input norm, four stages": {"attention_input_norm": True, "image_backbone_stages": 4},
    "text only": {"modalities": ""},
}


def state_shapes(*flags: str, **model: Any) -> dict[str, list[int]]:
    """Key -> shape of a model's state, without its weights: flags of a command line, options changed."""
    sizes = ("--vocab-dir", "vocab", "--num-codes", "16", "--num-bins", "10")
    cfg = changed(configured("data", "--task", "unival", "--instruction", material.TEXT, *sizes, *flags, "--cpu"), "model", **model)
    task = tasks.setup_task(cfg.task)
    with torch.device("meta"):
        built = models.build_model(cfg.model, task)
    return {key: list(value.shape) for key, value in built.state_dict().items()}


def folded(shapes: Mapping[str, Sequence[int]]) -> Record:
    """Keys that differ in their numbers only are one line: the pattern and shape -> how many, and a hash of the numbers."""
    numbers: dict[str, list[str]] = defaultdict(list)
    for key, shape in shapes.items():
        numbers[f"{re.sub(r'[0-9]+', '#', key)} {tuple(shape)}"].append("/".join(re.findall(r"[0-9]+", key)))
    return {
        pattern: [len(found), hashlib.sha256(" ".join(sorted(found)).encode()).hexdigest()[:8]] for pattern, found in numbers.items()
    }


def summed(shapes: Mapping[str, Sequence[int]]) -> list[Any]:
    """How many keys, and a hash of them and their shapes."""
    return [len(shapes), hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()[:8]]


def states() -> Record:
    """Keys and shapes of the named sizes, and what options change in the smallest."""
    shapes = {arch: state_shapes("--arch", arch, modalities=media) for arch, media in MODELS.items()}
    plain = state_shapes("--arch", "unival_tiny", modalities="image")
    changes = {}
    for name, option in KEY_OPTIONS.items():
        other = state_shapes("--arch", "unival_tiny", **{"modalities": "image", **option})
        changes[name] = {
            "less": summed({key: shape for key, shape in plain.items() if other.get(key) != shape}),
            "more": folded({key: shape for key, shape in other.items() if plain.get(key) != shape}),
        }
    return {"models": {name: folded(found) for name, found in shapes.items()}, "options": changes}


# The stored run ---------------------------------------------------------------------------------------------------------------


def stored(folder: pathlib.Path) -> pathlib.Path:
    """The stored checkpoint, unpacked."""
    path = folder / "stopped.pt"
    if not path.exists():
        path.write_bytes(lzma.decompress(STORED.read_bytes()))
    return path


def generated(checkpoint: pathlib.Path) -> list[Any]:
    """Texts and scores by fairseq-generate, with the checkpoint's own vocabulary and options."""
    flags = ("--path", str(checkpoint), "--gen-subset", "valid", "--batch-size", "2", "--results-path", "results", "--cpu")
    task = ("--task", "unival_caption", "--beam", "3", "--max-len-b", "12", "--nbest", "1", "--no-repeat-ngram-size", "3")
    assert main(["generate", "data", *task, *flags, "--required-batch-size-multiple", "1"]) == 0
    found = read_generated(pathlib.Path("results") / "generate-valid.txt")
    return [[row, text, score] for row, (text, score) in sorted(found.items())]


def from_hub(checkpoint: pathlib.Path) -> list[Any]:
    """Texts, scores, tokens and alternatives of an image that is in no table."""
    model = from_checkpoint(checkpoint)
    rows = [{"image": material.image_file(pathlib.Path(), number)} for number in (30, 31)]
    outputs = model.run(material.CAPTION, rows, beam=3, nbest=2, max_len_b=12)
    return [[o.text, o.score, list(o.tokens), [[a.text, a.score] for a in o.alternatives]] for o in outputs]


def going_on(checkpoint: pathlib.Path) -> Record:
    """Losses of some further updates, and the weights after them."""
    last = pathlib.Path("went-on") / "checkpoint_last.pt"
    arguments = [*material.STOPPED, "--restore-file", str(checkpoint), "--save-dir", str(last.parent)]
    found = run(*arguments, "--max-update", str(material.STOPPED_AFTER + material.GOES_ON))
    state = torch.load(last, weights_only=True)
    weights = {key: measured(value.float())[1:4] for key, value in state["model"].items() if ".backbone." not in key}
    optimizer = state["last_optimizer_state"]["state"].values()
    moments: Iterable[Tensor] = [value for entry in optimizer for value in entry.values() if isinstance(value, Tensor) and value.dim()]
    iterator = state["extra_state"]["train_iterator"]
    where = {key: iterator[key] for key in ("epoch", "iterations_in_epoch")}
    return {"losses": found, "weights": weights, "moments": sum(float(value.double().square().sum()) for value in moments), **where}


def from_the_stored_run(folder: pathlib.Path) -> Record:
    """What becomes of the stored checkpoint."""
    checkpoint = stored(folder)
    return {"generate": generated(checkpoint), "hub": from_hub(checkpoint), "going on": going_on(checkpoint)}
