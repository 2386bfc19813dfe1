"""Conversion of checkpoints, as functions on state dicts: rename keys, fit the result to a model, make the container that is written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from unival.checkpoints.architecture import ARCHITECTURES, identify
from unival.checkpoints.conversion import Conversion, KeyReport
from unival.checkpoints.names import hf_ofa, ofa, published
from unival.checkpoints.shapes import media_of_weights
from unival.errors import MISSING_PLUGIN, UserError, counted
from unival.modalities import with_media

SOURCES = ("unival", "ofa", "bart", "hf-bart", "hf-ofa")
TAKEN_AS = {"published": ("unival", "ofa"), "ofa": ("ofa", "unival")}  # architecture -> sources that read it, where they have other names
SHOWN = 8  # most keys in a message


def check_source(source: str, container: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> None:
    """Check that a checkpoint is of the given source.

    Args:
        source: one of :data:`SOURCES`.
        container: content of the file.
        state: its weights.
        where: name of the file, for messages.

    Raises:
        UserError: the checkpoint is recognised as one of another source.
    """
    kind = identify(container, state).kind
    if kind == "backbone":
        raise UserError(f"{where}: looks like a backbone's weights: give it to training as --image-backbone-weights or the like")
    names = TAKEN_AS.get(kind, (kind,))
    if kind != "other" and source not in names:
        raise UserError(f"{where}: looks like {ARCHITECTURES[kind]}, not {ARCHITECTURES[source]}: give --from {names[0]}")


def join_shards(shards: Iterable[tuple[str, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Join the shards of one checkpoint, given with the names of their files.

    Raises:
        UserError: two shards have the same key.
    """
    state: dict[str, Tensor] = {}
    for name, part in shards:
        twice = next((key for key in part if key in state), None)
        if twice is not None:
            raise UserError(f"{name}: {twice} is in an earlier input, too; several inputs are the shards of one checkpoint")
        state.update(part)
    return state


def is_own(source: str, state: Mapping[str, Tensor]) -> bool:
    """Whether weights have our keys already."""
    return source == "unival" and not published.is_published(state)


def to_ours(source: str, state: Mapping[str, Tensor], where: str, fourier: Mapping[str, Tensor] | None = None) -> Conversion:
    """Rename the weights of UnIVAL or OFA to our keys; the tensors are not copied.

    Args:
        source: one of :data:`SOURCES` except BART's, whose weights are not a whole model (see :mod:`unival.checkpoints.names.bart`).
        state: the weights.
        where: name of the file, for messages.
        fourier: Fourier kernels that a published file's own are compared with.

    Raises:
        UserError: the keys are not those of the source.
    """
    if source == "hf-ofa":
        if not hf_ofa.is_hf_ofa(state):
            raise UserError(
                f"{where}: does not look like a checkpoint of Hugging Face's OFA; expected keys such as decoder.layers.0.cross_attn.…"
            )
        return hf_ofa.from_hf_ofa(state)
    if source == "ofa":
        return ofa.from_ofa(state)
    if is_own(source, state):
        return Conversion(dict(state), KeyReport([("kept", key, "") for key in state]))
    return published.from_published(state, fourier)


def fitted(conversion: Conversion, shapes: Mapping[str, Sequence[int]], where: str, drop_unexpected: bool = False) -> dict[str, Tensor]:
    """Fit converted weights to a model: exactly its keys, with its shapes.

    Args:
        conversion: weights under our keys; keys that are left out are added to its report.
        shapes: keys of the model -> shapes.
        where: name of the file, for messages.
        drop_unexpected: leave out keys that the model lacks instead of raising an error.

    Raises:
        UserError: keys are missing or unknown, or shapes differ; the first of them are named.
    """
    state = conversion.state
    unknown = [key for key in state if key not in shapes]
    problems = [f"missing {key}" for key in shapes if key not in state]
    problems += [f"unknown {key}" for key in unknown if not drop_unexpected]
    problems += [
        f"{key} is {tuple(value.shape)}, not {tuple(shapes[key])}"
        for key, value in state.items()
        if key in shapes and tuple(shapes[key]) != tuple(value.shape)
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        only_unknown = len(problems) == len(unknown) and not drop_unexpected
        hint = " (--drop-unexpected leaves unknown keys out)" if only_unknown else ""
        if foreign := sorted(media_of_weights(unknown) - with_media().keys()):
            hint += f"; unknown modality {foreign[0]!r}: {MISSING_PLUGIN}"
        raise UserError(
            f"{where}: does not fit the model of its options ({counted(len(problems), 'key')}): {'; '.join(problems[:SHOWN])}{more}{hint}"
        )
    report = conversion.report
    report.entries = [
        ("unexpected" if (detail or key) in unknown and kind in ("kept", "renamed") else kind, key, detail)
        for kind, key, detail in report.entries
    ]
    return {key: state[key] for key in shapes}


def new_container(
    state: Mapping[str, Tensor],
    cfg: Mapping[str, Any],
    task_state: Mapping[str, Any],
    made_from: Mapping[str, Any],
    is_published: bool = False,
) -> dict[str, Any]:
    """Make the container that fairseq reads: a checkpoint before its first update, without an optimizer's state.

    Args:
        state: the weights.
        cfg: the options, by group.
        task_state: state of the task.
        made_from: description of the origin of the weights, kept in the container.
        is_published: add the entries that the original implementation needs.
    """
    iterator = {"version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True}
    more: dict[str, Any] = {"metrics": {"default": [], "train": []}, "val_loss": None} if is_published else {}
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {"best": None}, "num_updates": 0}
    return {
        "args": None,
        "cfg": cfg,
        "model": dict(state),
        "criterion": None,
        "optimizer_history": [history],
        "task_state": task_state,
        "extra_state": {"train_iterator": iterator, "previous_training_time": 0.0, "converted_from": made_from, **more},
        "last_optimizer_state": None,
    }
