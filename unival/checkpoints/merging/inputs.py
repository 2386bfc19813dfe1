"""The checkpoints that are merged: checked against each other before anything is merged, and read tensor by tensor."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.adapters import MARK, method_of
from unival.checkpoints.architecture import ARCHITECTURES, identify
from unival.checkpoints.names.published import rename_published
from unival.checkpoints.summary import TOKEN_NAMES, WRAPPERS, same_values, tied_keys
from unival.errors import UserError, counted

SHOWN = 4  # most keys in a message
MISSING = ("error", "base", "skip")
RELATED = 0.1  # least cosine of two models of one pretraining; independent ones have about 0
SAMPLE = 1 << 16  # values of a matrix that tell whether two models are related
COUNTER = re.compile(r"(^|\.)num_batches_tracked$")
STATISTICS = re.compile(r"(^|\.)running_(mean|var)$")


@dataclass
class Checkpoint:
    """A checkpoint that is merged: its name in messages, the container it came from, and its weights (mapped, not in memory)."""

    name: str
    container: Mapping[str, Any]
    state: dict[str, Tensor]


@dataclass
class Inputs:
    """Checkpoints that fit together.

    Attributes:
        models: what is merged.
        base: the pretrained model they come from; None if the method needs none.
        missing: what becomes of a key that a model lacks: an error, the base's value instead, or the average of the others.
        keys: keys of the result, in order.
        tied: key -> earlier key that shares its values.
    """

    models: list[Checkpoint]
    base: Checkpoint | None = None
    missing: str = "error"
    keys: list[str] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)

    def having(self, key: str) -> tuple[list[int], list[Tensor]]:
        """Numbers and tensors of the models that take part in the merge of a key."""
        values = []
        for number, model in enumerate(self.models):
            if key in model.state:
                values.append((number, model.state[key]))
            elif self.missing == "base":
                assert self.base is not None, "checked by fitting_inputs"
                values.append((number, self.base.state[key]))
        return [number for number, _ in values], [value for _, value in values]


def read_checkpoint(path: str, weights: str = "model") -> Checkpoint:
    """Read a checkpoint, mapped, and compare it with its checksums.

    Args:
        path: the file.
        weights: ``model``, or ``ema``: the moving average of the weights.

    Raises:
        UserError: it cannot be read, is damaged, or has no moving average that is asked for.
    """
    container = files.read(path)
    files.check_sums(path)
    state = files.weights(container, path)
    return Checkpoint(path, container, {**state, **files.ema_weights(container, path)} if weights == "ema" else state)


def with_our_keys(model: Checkpoint) -> Checkpoint:
    """Give a published checkpoint this package's keys, in place: those of a model's tensors, and of statistics of them."""
    if identify(model.container, model.state).kind == "published":
        rename_published(model.state)
    return model


def readers_of(tables: Sequence[str], models: Sequence[Checkpoint], alone: Checkpoint) -> list[Checkpoint]:
    """The checkpoints with whose instructions the tables of ``--recalibrate`` are read.

    Args:
        tables: one table, or one per model.
        models: the models.
        alone: whose instruction a lone table is read with.

    Raises:
        UserError: there is another number of tables.
    """
    if len(tables) not in (1, len(models)):
        raise UserError(f"--recalibrate {','.join(tables)}: expected one table, or one per model ({len(models)}), got {len(tables)}")
    return [alone] if len(tables) == 1 else list(models)


def fitting_inputs(models: Sequence[Checkpoint], base: Checkpoint | None, missing: str, unrelated: bool = False) -> Inputs:
    """Check that checkpoints can be merged.

    Args:
        models: the checkpoints.
        base: the pretrained model; None without.
        missing: one of :data:`MISSING`.
        unrelated: merge models that do not come from one pretraining, too.

    Raises:
        UserError: architectures, vocabularies, keys, shapes, tied weights or integer buffers differ, a model is of another
            pretraining, or one is an adapter; names files and keys.
    """
    everyone = [*models, *([base] if base is not None else [])]
    _one_architecture(everyone)
    _one_vocabulary(everyone)
    keys = _keys(models, base, missing)
    for key in keys:
        _one_shape(key, everyone)
    if not unrelated:
        _one_pretraining(everyone)
    return Inputs(list(models), base, missing, keys, _tied(everyone, keys))


def _one_architecture(models: Sequence[Checkpoint]) -> None:
    for model in models:
        if MARK in model.container:
            raise UserError(f"{model.name}: is an adapter; `unival adapter stack BASE {model.name} --out …` makes a checkpoint to merge")
        if any(method_of(key) == "lora" for key in model.state):
            raise UserError(
                f"{model.name}: has LoRA's factors, and the average of products is not the product of averages:"
                " `unival adapter extract` and `merge` add them to the weights first"
            )
    kinds = [identify(model.container, model.state).kind for model in models]
    if "unival" in kinds and "published" in kinds:
        for model in models:
            with_our_keys(model)
        kinds = ["unival"] * len(kinds)
    for model, kind in zip(models, kinds, strict=True):
        if kind != kinds[0]:
            raise UserError(
                f"{model.name}: is {ARCHITECTURES[kind]}, but {models[0].name} is {ARCHITECTURES[kinds[0]]};"
                " only models of one architecture can be merged"
            )


def _one_vocabulary(models: Sequence[Checkpoint]) -> None:
    kept = [(model.container.get("task_state") or {}).get("vocabulary") for model in models]
    first = next((i for i, mark in enumerate(kept) if mark is not None), None)
    expected = _tokens(models[0].state)
    for model, mark in zip(models, kept, strict=True):
        size = _tokens(model.state)
        if size != expected:
            raise UserError(
                f"{model.name}: has a vocabulary of {size} tokens, {models[0].name} of {expected}: row i of the embeddings is another token"
                " in each; fine-tune both with one vocabulary (that of the pretrained model), image codes and bins included"
            )
        if first is not None and mark not in (None, kept[first]):
            raise UserError(
                f"{model.name}: was trained with another vocabulary than {models[first].name}, of as many tokens:"
                " row i of the embeddings is another token in each; fine-tune both with that of the pretrained model"
            )


def _tokens(state: Mapping[str, Tensor]) -> int | None:
    """Number of tokens that a state dict has embeddings of."""
    return next((len(value) for key, value in state.items() if _bare(key) in TOKEN_NAMES and value.dim() == 2), None)


def _keys(models: Sequence[Checkpoint], base: Checkpoint | None, missing: str) -> list[str]:
    keys = list(dict.fromkeys(key for model in models for key in model.state))
    if base is not None and missing != "skip":
        keys = list(dict.fromkeys([*keys, *base.state]))
    for model in models:
        absent = [key for key in keys if key not in model.state]
        if absent and missing == "error":
            others = [other.name for other in [*models, *([base] if base else [])] if absent[0] in other.state]
            raise UserError(
                f"{model.name}: lacks {_some(absent)} that {others[0]} has; give --missing base (the base's value in their place)"
                " or --missing skip (average the models that have a key)"
            )
        if absent and missing == "base":
            lacking = [key for key in absent if base is None or key not in base.state]
            if lacking:
                raise UserError(f"--missing base: {base.name if base else '--base is not given, which'} lacks {_some(lacking)}")
    if base is not None:
        absent = [key for key in keys if key not in base.state]
        if absent and missing != "skip":
            other = next(model for model in models if absent[0] in model.state)
            raise UserError(
                f"{base.name}: lacks {_some(absent)} that {other.name} has; give --missing skip (these keys have no task vector: averages)"
            )
    return keys


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{counted(len(keys), 'key')} ({', '.join(keys[:SHOWN])}{more})"


def _one_shape(key: str, models: Sequence[Checkpoint]) -> None:
    having = [model for model in models if key in model.state]
    first = having[0].state[key]
    for model in having[1:]:
        value = model.state[key]
        if value.shape != first.shape:
            raise UserError(
                f"{model.name}: {key} is {tuple(value.shape)}, but {tuple(first.shape)} in {having[0].name}; only models of one size"
                " can be merged"
            )
        if value.is_floating_point() != first.is_floating_point():
            raise UserError(f"{model.name}: {key} is {value.dtype}, but {first.dtype} in {having[0].name}")
        if is_constant(key, value) and not same_values(value, first):
            raise UserError(
                f"{model.name}: {key}, a constant of the model and no weight, differs from that in {having[0].name};"
                " only models with equal constants can be merged"
            )


def is_constant(key: str, value: Tensor) -> bool:
    """Whether a key is a table or version that must be equal in all models: integers, but for counters."""
    return not value.is_floating_point() and not value.is_complex() and COUNTER.search(key) is None


def _one_pretraining(models: Sequence[Checkpoint]) -> None:
    """Compare the directions of the models' matrices: those of independent trainings have nothing in common."""
    for model in models[1:]:
        cosine = relation(models[0].state, model.state)
        if cosine is not None and cosine < RELATED:
            raise UserError(
                f"{model.name} and {models[0].name} do not come from one pretraining (their matrices have a cosine of {cosine:.3f};"
                " fine-tuned from one model it is near 1): the average of unrelated networks computes nothing;"
                " --allow-unrelated merges all the same"
            )


def relation(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float | None:
    """Cosine between the matrices of two models' layers, of some values of each; None if they have no common matrix.

    Media backbones are left out: unrelated models may have started from one that is public.
    """
    aa, bb, ab = products(a, b)
    length = math.sqrt(aa * bb)
    return ab / length if length else None


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float | None:
    """Distance between the same values of two models, as a share of their mean norm; independent models have about the root of 2."""
    aa, bb, ab = products(a, b)
    norm = (math.sqrt(aa) + math.sqrt(bb)) / 2
    return math.sqrt(max(aa + bb - 2 * ab, 0.0)) / norm if norm else None


def products(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> tuple[float, float, float]:
    """Scalar products ``aa``, ``bb``, ``ab`` of some values of the matrices of two models' layers."""
    common = [key for key, value in a.items() if key in b and value.dim() == 2 and value.is_floating_point()]
    layers = [key for key in common if ".layers." in key and ".media." not in key] or common
    sums = torch.zeros(3, dtype=torch.float64)
    for key in layers:
        x, y = (state[key].reshape(-1)[:SAMPLE].double() for state in (a, b))
        sums += torch.stack([x @ x, y @ y, x @ y])
    aa, bb, ab = sums.tolist()
    return aa, bb, ab


def _tied(models: Sequence[Checkpoint], keys: Sequence[str]) -> dict[str, str]:
    """Keys whose values are those of an earlier key, in all models."""
    found = [tied_keys(model.state) for model in models]
    tied: dict[str, str] = {}
    for key in keys:
        firsts = {(key in ties, ties.get(key)) for ties, model in zip(found, models, strict=True) if key in model.state}
        if firsts == {(False, None)}:
            continue
        if len(firsts) > 1:
            with_tie = next(model for ties, model in zip(found, models, strict=True) if key in ties)
            without = next((m for ties, m in zip(found, models, strict=True) if key in m.state and key not in ties), models[0])
            if key in TOKEN_NAMES or _bare(key) in TOKEN_NAMES:
                raise UserError(f"{without.name}: {key} has values of its own, in {with_tie.name} it is tied to the token embeddings")
            continue  # equal by chance: values of one memory in one file
        tied[key] = next(iter(firsts))[1] or key
    return tied


def _bare(key: str) -> str:
    for start in WRAPPERS:
        key = key.removeprefix(start)
    return key


def frozen_statistics(inputs: Inputs) -> set[str]:
    """Keys of batch norms' statistics that are equal in all models: their norms were frozen in training."""
    everyone = [*inputs.models, *([inputs.base] if inputs.base else [])]
    found = {key: [model.state[key] for model in everyone if key in model.state] for key in inputs.keys if STATISTICS.search(key)}
    return {key for key, values in found.items() if len(values) > 1 and all(same_values(value, values[0]) for value in values)}


def iterate(inputs: Inputs) -> Iterator[str]:
    """The keys that are merged: those that are not tied to an earlier one."""
    yield from (key for key in inputs.keys if key not in inputs.tied)
