"""Files of statistics of models on data, one for each model that is merged: what they were computed from, and whether that fits."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.merging.inputs import Inputs
from unival.checkpoints.merging.record import file_record
from unival.errors import UserError, counted

MARK = "statistics"  # key of the record in a container
SHOWN = 12  # digits of a hash in a message


def container_of(state: Mapping[str, Tensor], made_from: Mapping[str, Any]) -> dict[str, Any]:
    """The container of a file of statistics, see :func:`made_from`."""
    return {"model": dict(state), MARK: dict(made_from)}


def made_from(kind: str, checkpoint: str, weights: str, table: str, **options: Any) -> dict[str, Any]:
    """What statistics were computed from.

    Args:
        kind: of the statistics, as :attr:`unival.checkpoints.merging.methods.Method.statistics` names it.
        checkpoint, table: the files.
        weights: ``model`` or ``ema``.
        options: how they were computed; must be equal for all models that are merged, except for the number of ``rows``.
    """
    read = {**file_record(table), "path": str(pathlib.Path(table).resolve())}
    return {"kind": kind, "checkpoint": file_record(checkpoint), "weights": weights, "table": read, **options}


def read_statistics(paths: Sequence[str], kind: str, hashes: Sequence[str], weights: str, inputs: Inputs) -> list[dict[str, Tensor]]:
    """Read the files of statistics of the models that are merged, mapped.

    Args:
        paths: one per model, in their order.
        kind: what the method needs.
        hashes: of the models' files.
        weights: which of their weights are merged.
        inputs: the models, with this package's keys.

    Raises:
        UserError: a file is no file of statistics, is of another kind, model or weights, was computed with other options than the first
            one, its table has changed since, or its tensors do not fit the model.
    """
    models = inputs.models
    if len(paths) != len(models):
        raise UserError(f"--statistics {','.join(paths)}: must be {counted(len(models), 'file')}, one per model, got {len(paths)}")
    found, options = [], []
    for path, model, own in zip(paths, models, hashes, strict=True):
        container = files.read(path)
        record = container.get(MARK)
        if not isinstance(record, Mapping) or "kind" not in record:
            raise UserError(f"{path}: expected a file of `unival statistics`")
        if record["kind"] != kind:
            raise UserError(f"{path}: has statistics of kind {record['kind']}, expected {kind}")
        files.check_sums(path)
        theirs = record["checkpoint"]
        if own != theirs["sha256"]:
            differ = f"sha256 {theirs['sha256'][:SHOWN]}, expected {own[:SHOWN]}"
            raise UserError(f"{path}: was computed of another checkpoint than {model.name}, {theirs['file']} ({differ})")
        _check_table(path, record["table"])
        if record["weights"] != weights:
            raise UserError(f"{path}: was computed of the {record['weights']} weights, and the {weights} weights are merged")
        options.append({name: value for name, value in record.items() if name not in ("kind", "checkpoint", "weights", "table", "rows")})
        for name, value in options[-1].items():
            if name != "instruction" and value != options[0].get(name):
                raise UserError(f"{path}: was computed with {name} {value}, but {paths[0]} with {options[0].get(name)}")
        found.append(files.weights(container, path))
    for path, state in zip(paths, found, strict=True):
        _check_shapes(path, state, inputs, kind)
    return found


def _check_table(path: str, table: Mapping[str, str]) -> None:
    """Compare the table with what it was, where it still is; elsewhere, statistics are used without it."""
    place = table.get("path")
    if place is None or not pathlib.Path(place).is_file():
        return
    now = file_record(place)["sha256"]
    if now != table["sha256"]:
        differ = f"sha256 {table['sha256'][:SHOWN]} then, {now[:SHOWN]} now"
        raise UserError(f"{path}: was computed on {place}, which has changed since ({differ}); `unival statistics` computes it again")


def _check_shapes(path: str, state: Mapping[str, Tensor], inputs: Inputs, kind: str) -> None:
    for key, value in state.items():
        having = [model.state[key] for model in inputs.models if key in model.state]
        if not having:
            raise UserError(f"{path}: has {key}, which no model has")
        shape = tuple(having[0].shape)
        expected = (shape[-1], shape[-1]) if kind == "gram" else shape
        if tuple(value.shape) != expected:
            raise UserError(f"{path}: {key} is {tuple(value.shape)}, expected {expected}")
