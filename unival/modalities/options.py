"""Options of modalities: declared once, in a modality's own dataclass, and composed into those of the task, of readers and of the model."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, get_args, get_type_hints

from unival.errors import UserError

if TYPE_CHECKING:
    from unival.modalities.base import Modality

NEVER = object()  # no value


class Rule(NamedTuple):
    """Which values an option may have, and what to say of others (``option`` and ``value`` are filled in)."""

    holds: Callable[[Any], bool]
    message: str


def at_least(minimum: int, words: str = "") -> Rule:
    """Numbers from ``minimum`` on."""
    return Rule(lambda value: value >= minimum, f"{{option}} is {{value}}; {words or f'it must be {minimum} or more'}")


def one_of(*choices: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: value in choices, f"unknown {{option}} {{value!r}}; choose from {', '.join(choices)}")


def positive(words: str) -> Rule:
    """Finite numbers above 0."""
    return Rule(lambda value: math.isfinite(value) and value > 0, f"{{option}} is {{value}}; it must be a positive {words}")


def option(
    default: Any,
    help: str,
    rule: Rule | None = None,
    *,
    group: str = "media",
    kept: bool = True,
    training_only: bool = False,
    before: Any = NEVER,
    silent: bool = False,
) -> Any:
    """A field of a modality's ``options`` or ``model_options``: ``size: int = option(64, "pixels per side", at_least(1))``.

    Args:
        default: its one default.
        help: what it does; the default is added.
        rule: which values it may have.
        group: of the task's options in the help.
        kept: checkpoints keep it, and what uses them takes it over; else it is whatever the command line says.
        training_only: evaluation does not use it.
        before: what checkpoints from before this option stand for, if that is not its default.
        silent: of the model: changes what weights mean, but neither their names nor their shapes.
    """
    metadata = {"help": help, "group": group, "rule": rule, "kept": kept, "training_only": training_only, "silent": silent}
    return dataclasses.field(default=default, metadata={**metadata, **({} if before is NEVER else {"before": before})})


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Of modalities without options."""


class Checked:
    """A dataclass of options that refuses values against their rules."""

    def __post_init__(self) -> None:
        """Raises UserError: the first option with a value that it cannot have."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            rule: Rule | None = field.metadata.get("rule")
            value = getattr(self, field.name)
            if rule is not None and value is not None and not rule.holds(value):
                raise UserError(rule.message.format(option=flag(field.name), value=value))


def flag(name: str) -> str:
    """An option as it stands on the command line."""
    return "--" + name.replace("_", "-")


class Declared(NamedTuple):
    """An option of a modality, with its type."""

    name: str
    type: Any
    field: "dataclasses.Field[Any]"


def declared(options: type) -> Iterator[Declared]:
    """The options of a dataclass, in order."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = hints[field.name]
        if isinstance(kind, UnionType):  # int | None, which fairseq's parser does not know
            kind = Optional[get_args(kind)[0]]
        yield Declared(field.name, kind, field)


def owners(modalities: Mapping[str, "Modality"], others: Mapping[str, str] | None = None) -> dict[str, str]:
    """Option -> the modality that has it.

    Args:
        others: options that are not of a modality -> whose they are.

    Raises:
        UserError: two have an option of one name; a modality may give its model's options names of its other options.
    """
    found = dict(others or {})
    for modality in modalities.values():
        names = {option.name for part in (modality.options, modality.model_options) for option in declared(part)}
        for name in names:
            if name in found:
                raise UserError(f"{found[name]} and modality {modality.name} both have an option {flag(name)}")
        found.update(dict.fromkeys(names, f"modality {modality.name}"))
    return found


def kept_field(option: Declared) -> tuple[str, Any, Any]:
    """An option as readers have it, with its real default."""
    return option.name, option.type, dataclasses.field(default=option.field.default, metadata=option.field.metadata)


def task_field(option: Declared) -> tuple[str, Any, Any]:
    """An option as the task has it: left open, a checkpoint's own counts before the default."""
    default, metadata = option.field.default, dict(option.field.metadata)
    if not metadata["kept"] or option.type is bool or default is None:
        return option.name, option.type, dataclasses.field(default=default, metadata=metadata)
    shown = f"{default:g}" if isinstance(default, float) else default
    metadata["help"] += f" (default: the checkpoint's, else {shown})"
    return option.name, Optional[option.type], dataclasses.field(default=None, metadata=metadata)


def compose(
    name: str, module: str, base: type, fields: list[tuple[str, Any, Any]], doc: str, frozen: bool = False
) -> type:
    """A dataclass of a base's fields and more; ``module`` must bind it to ``name``, as pickles look it up there."""
    made = dataclasses.make_dataclass(name, fields, bases=(base,), frozen=frozen)
    made.__module__, made.__doc__ = module, doc
    return made
