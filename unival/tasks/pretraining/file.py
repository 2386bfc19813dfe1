"""The mixture file: the streams of multitask pretraining, how they are balanced, and its stages, in one YAML.

The README lists its keys; paths are relative to the file.  Everything in it is checked when it is read, but for what is in the
tables that it names, and the options of training, which the command line knows.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unival.errors import UserError, counted
from unival.tasks.pretraining import values
from unival.tasks.pretraining.shares import KINDS, Balancing
from unival.tasks.pretraining.values import Place, Reader, nearest, section

SUFFIXES = (".yaml", ".yml")
WAYS = ("preset", "instruction", "builder")  # to say what is made of a row
READS = ("plain", "grouped")  # builders that read rows through the instruction of the stream, beside which they stand
KEYS = ("streams", "balancing", "loss_normalization", "stages", "options")
UNSET = re.compile(r"Environment variable '([^']+)' not found")  # OmegaConf's words
ONLY_STAGE = "all"  # name of the stage of a file without ``stages``

Points = tuple[tuple[int, float], ...]  # (planned epoch, weight), by epoch; between two of them it is linear
ALWAYS_ONE: Points = ((0, 1.0),)


@dataclass(frozen=True)
class StreamSpec:
    """A stream of a mixture file; what each value means is in :data:`STREAM` and the README."""

    name: str
    number: int  # its place in the file
    place: Place
    table: tuple[pathlib.Path, ...]
    columns: tuple[str, ...] | None = None
    selected_cols: str | None = None
    media_root: pathlib.Path | None = None
    preset: str | None = None
    instruction: str | None = None
    builder: str | None = None
    medium: str | None = None  # with a builder; None: its first
    instructions: Mapping[str, str] = field(default_factory=dict)
    weight: Points = ALWAYS_ONE  # among the rows, with balancing: weights
    cap: int | None = None
    loss_weight: Points = ALWAYS_ONE
    valid: pathlib.Path | None = None
    metrics: tuple[str, ...] | None = None
    closed_set: pathlib.Path | None = None


@dataclass(frozen=True)
class StageSpec:
    """A stage of a mixture file, with its streams as it changes them."""

    name: str
    number: int  # from 0
    place: Place
    streams: tuple[StreamSpec, ...]
    balancing: Balancing
    epochs: int | None = None
    schedule_epochs: int | None = None
    updates_per_epoch: int | None = None
    rows_per_update: int | None = None
    transition: int = 0
    keep_optimizer: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MixtureFile:
    """A mixture file that has been read and checked."""

    path: pathlib.Path
    streams: Mapping[str, StreamSpec]
    stages: tuple[StageSpec, ...]

    def stage(self, name: str | None) -> StageSpec:
        """A stage by its name; None: the only one.

        Raises:
            UserError: there is no such stage, or there are several and none is named.
        """
        names = [stage.name for stage in self.stages]
        if name is None and len(names) > 1:
            raise UserError(f"{self.path}: give --stage, one of {', '.join(names)}")
        if name is not None and name not in names:
            raise UserError(f"--stage {name}: no such stage in {self.path}{nearest(name, names)}")
        return self.stages[0 if name is None else names.index(name)]

    def until(self, stage: StageSpec) -> list[StreamSpec]:
        """The streams of a stage and of all before it, in the file's order, as the last of these has them."""
        found = {stream.number: stream for each in self.stages[: stage.number + 1] for stream in each.streams}
        return [found[number] for number in sorted(found)]


def check_files(stages: Sequence[StageSpec]) -> None:
    """Check that the files of all streams of some stages exist.

    Raises:
        UserError: one does not; names file and key.
    """
    for spec in (stream for stage in stages for stream in stage.streams):
        named = {"table": spec.table, "valid": (spec.valid,), "closed_set": (spec.closed_set,)}
        for key, path in ((key, path) for key, paths in named.items() for path in paths):
            if path is not None and not path.is_file():
                raise (spec.place / key).error(f"{path}: no such file")


def is_mixture(data: str) -> bool:
    """Whether the data of a task are a mixture file, by its name."""
    return pathlib.Path(data).suffix.lower() in SUFFIXES


def read_mixture(path: str | pathlib.Path) -> MixtureFile:
    """Read a mixture file.

    Raises:
        UserError: the file, a key or a value is wrong; names file and key.
    """
    file = pathlib.Path(path)
    place = Place(file)
    given = section(_load(file), place, dict.fromkeys(KEYS, _as_given))
    listed = values.named(given.get("streams"), place / "streams")
    if not listed:
        raise (place / "streams").error("a mixture needs at least one stream")
    streams = {name: _stream(name, number, each, place / "streams" / name) for number, (name, each) in enumerate(listed.items())}
    default = balancing(given.get("balancing", "proportional"), place / "balancing")
    options = values.named(given.get("options"), place / "options")
    if "loss_normalization" in given:
        options = {"loss_normalization": values.text(given["loss_normalization"], place / "loss_normalization"), **options}
    stages = values.named(given.get("stages"), place / "stages") or {ONLY_STAGE: {}}
    found: list[StageSpec] = []
    for name, each in stages.items():
        found.append(_stage(name, each, place / "stages" / name, streams, default, options, found[-1] if found else None))
    mixture = MixtureFile(file, streams, tuple(found))
    _check_use(mixture)
    return mixture


def _load(file: pathlib.Path) -> Any:
    if not file.is_file():
        raise UserError(f"{file}: no such mixture file")
    try:
        loaded = OmegaConf.load(file)
        if not isinstance(loaded, DictConfig):
            raise UserError(f"{file}: expected keys with values (streams, balancing, stages, options)")
        return OmegaConf.to_container(loaded, resolve=True)
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        unset = UNSET.search(said)
        place = Place(file, (error.full_key,) if error.full_key else ())
        raise place.error(f"the environment variable {unset[1]} is not set" if unset else said) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from error


def _as_given(value: Any, place: Place) -> Any:
    return value


def balancing(value: Any, place: Place) -> Balancing:
    """``proportional``, ``equal``, ``weights`` or ``{temperature: t}``."""
    if isinstance(value, Mapping):
        found = section(value, place, {"temperature": values.weight})
        if not found.get("temperature"):
            raise place.wrong(value, "{temperature: a number above 0}")
        return Balancing("temperature", found["temperature"])
    if value not in KINDS:
        raise place.error(f"no {str(value)!r}{nearest(str(value), [*KINDS, '{temperature: 2}'])}")
    return Balancing(str(value))


def points(value: Any, place: Place) -> Points:
    """A number, or a mapping of planned epochs of the stage to numbers."""
    if not isinstance(value, Mapping):
        return ((0, values.weight(value, place)),)
    if not value:
        raise place.wrong(value, "a number, or epochs with numbers such as {0: 0.0, 5: 1.0}")
    for epoch in value:
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise (place / epoch).error("expected the number of a planned epoch, from 0")
    return tuple((epoch, values.weight(value[epoch], place / epoch)) for epoch in sorted(value))


def prompts(value: Any, place: Place) -> dict[str, str]:
    """Instructions by name."""
    return {name: values.text(each, place / name) for name, each in values.named(value, place).items()}


def metrics(value: Any, place: Place) -> tuple[str, ...]:
    """Names of metrics; an empty list: none."""
    return values.texts(value, place) if value != [] else ()


CHANGES: dict[str, Reader] = {"weight": points, "cap": values.count, "loss_weight": points}  # what a stage may change of a stream
STREAM: dict[str, Reader] = {
    "table": values.paths,
    "columns": values.columns,
    "selected_cols": values.numbers,
    "media_root": values.path,
    "preset": values.text,
    "instruction": values.text,
    "builder": values.text,
    "medium": values.text,
    "instructions": prompts,
    "valid": values.path,
    "metrics": metrics,
    "closed_set": values.path,
    **CHANGES,
}
STAGE: dict[str, Reader] = {
    "epochs": values.count,
    "schedule_epochs": values.count,
    "updates_per_epoch": values.count,
    "rows_per_update": values.count,
    "streams": _as_given,
    "add": _as_given,
    "balancing": balancing,
    "transition": values.count,
    "keep_optimizer": values.switch,
    "options": values.named,
}


def _stream(name: str, number: int, value: Any, place: Place) -> StreamSpec:
    values.check_name(name, Place(place.file, place.keys[:-1]))
    given = section(value, place, STREAM)
    if "table" not in given:
        raise place.error("give table, the file with its rows, or a list of files")
    ways = [way for way in WAYS if way in given]
    reads = given.get("builder") in READS
    if len(ways) != 1 and not (reads and len(ways) == 2):
        said = f"has {' and '.join(ways)}" if ways else "says nothing"
        raise place.error(f"{said} of what is made of a row: give one of {', '.join(WAYS)}")
    if reads and len(ways) == 1:
        raise (place / "builder").error(f"{given['builder']} brings no instruction: give preset or instruction, too")
    for key in ("medium", "instructions"):
        if key in given and ("builder" not in given or reads):
            raise (place / key).error("is for a stream with a builder that brings instructions")
    return StreamSpec(name, number, place, **given)


def _stage(
    name: str,
    value: Any,
    place: Place,
    streams: Mapping[str, StreamSpec],
    default: Balancing,
    options: Mapping[str, Any],
    last: StageSpec | None,
) -> StageSpec:
    values.check_name(name, Place(place.file, place.keys[:-1]))
    given = section(value, place, STAGE)
    if "streams" in given and "add" in given:
        raise (place / "add").error("give streams or add, not both")
    if last is None:
        for key in ("add", "transition", "keep_optimizer"):
            if given.get(key):
                raise (place / key).error("the first stage follows none")
    if "streams" in given:
        own = _chosen(given.pop("streams"), place / "streams", streams)
    elif "add" in given:
        assert last is not None
        added = _chosen(given.pop("add"), place / "add", streams)
        own = {**{stream.name: stream for stream in last.streams}, **added}
    else:
        own = dict(streams)
    if given.get("schedule_epochs") and not given.get("epochs"):
        raise (place / "schedule_epochs").error("give epochs, too")
    ordered = tuple(sorted(own.values(), key=lambda stream: stream.number))
    merged = {**options, **given.pop("options", {})}
    number = 0 if last is None else last.number + 1
    return StageSpec(name, number, place, ordered, given.pop("balancing", default), options=merged, **given)


def _chosen(value: Any, place: Place, streams: Mapping[str, StreamSpec]) -> dict[str, StreamSpec]:
    """The streams that a stage names in a list, or in a mapping with what it changes of them."""
    changes = {str(name): None for name in value} if isinstance(value, list) else values.named(value, place)
    if not changes:
        raise place.error("name at least one stream")
    chosen = {}
    for name, change in changes.items():
        if name not in streams:
            raise place.error(f"no stream {name!r}{nearest(name, streams)}")
        chosen[name] = replace(streams[name], **section(change, place / name, CHANGES))
    return chosen


def _check_use(mixture: MixtureFile) -> None:
    """Check that weights are above 0 and used, that transitions end in their stage, and that every stream is in a stage."""
    for stage in mixture.stages:
        if stage.balancing.kind == "weights":
            _check_weights(stage)
        if stage.epochs and stage.updates_per_epoch and stage.transition > stage.epochs * stage.updates_per_epoch:
            updates = stage.epochs * stage.updates_per_epoch
            raise (stage.place / "transition").error(f"the stage has {counted(updates, 'update')}, got {stage.transition:,}")
    used = {stream.name for stage in mixture.stages for stream in stage.streams}
    unused = next((stream for name, stream in mixture.streams.items() if name not in used), None)
    if unused is not None:
        raise unused.place.error("no stage has this stream")
    if not any(stage.balancing.kind == "weights" for stage in mixture.stages):
        weighted = [stream for stage in mixture.stages for stream in stage.streams if stream.weight != ALWAYS_ONE]
        if weighted:
            raise (weighted[0].place / "weight").error("has no effect without balancing: weights")


def _check_weights(stage: StageSpec) -> None:
    """Check that in each epoch the weight of a stream is above 0; it is enough to look at the epochs that the file names."""
    named = {0}.union(epoch for stream in stage.streams for epoch, _ in stream.weight)
    for epoch in sorted(epoch for epoch in named if stage.epochs is None or epoch < stage.epochs):
        if not any(at(stream.weight, epoch) for stream in stage.streams):
            names = ", ".join(stream.name for stream in stage.streams)
            when = f" in epoch {epoch}" if any(len(stream.weight) > 1 for stream in stage.streams) else ""
            raise stage.place.error(f"the weights of its streams ({names}) are all 0{when}")


def at(points: Points, epoch: float) -> float:
    """The value of a schedule at an epoch: linear between its points, constant before the first and after the last."""
    before = [point for point in points if point[0] <= epoch] or [points[0]]
    after = [point for point in points if point[0] > epoch] or [before[-1]]
    (start, first), (end, last) = before[-1], after[0]
    return first if end == start or epoch <= start else first + (last - first) * (epoch - start) / (end - start)
