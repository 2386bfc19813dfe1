"""Options of modalities: declared once, in a dataclass per modality, and composed into the options of task, loaders and model."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, get_args, get_type_hints

from unival.errors import UserError, flag, unknown

if TYPE_CHECKING:
    from unival.modalities.base import Modality

NEVER = object()  # before: a value that no option has


class Rule(NamedTuple):
    """Which values an option may have, and the message about others, of the option's name and the value."""

    holds: Callable[[Any], bool]
    message: Callable[[str, Any], str]


def at_least(minimum: int, words: str = "") -> Rule:
    """Rule: numbers of at least ``minimum``."""
    return Rule(lambda value: value >= minimum, lambda option, value: f"{option} is {value}; {words or f'it must be {minimum} or more'}")


def one_of(*choices: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: value in choices, lambda option, value: unknown(option, value, choices))


def positive(words: str) -> Rule:
    """Rule: finite numbers above 0."""
    message = "{} is {}; it must be a positive " + words
    return Rule(lambda value: math.isfinite(value) and value > 0, message.format)


def option(
    default: Any,
    help: str,
    rule: Rule | None = None,
    *,
    group: str = "media",
    training_only: bool = False,
    before: Any = NEVER,
    silent: bool = False,
) -> Any:
    """Declare an option as a field of a modality's dataclass: ``size: int = option(64, "pixels per side", at_least(1))``.

    Checkpoints keep it, and what uses them takes it over.

    Args:
        default: the default.
        help: help text, without the default, which is added.
        rule: which values are allowed.
        group: heading of the option in the task's help.
        training_only: whether evaluation does not use the option.
        before: value for checkpoints from before there was this option, if it is not the default.
        silent: whether an option of the model changes what weights mean, but neither their keys nor their shapes.
    """
    metadata = {"help": help, "group": group, "rule": rule, "training_only": training_only, "silent": silent}
    return dataclasses.field(default=default, metadata={**metadata, **({} if before is NEVER else {"before": before})})


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Options of a modality without options."""


class Checked:
    """Base of dataclasses of options that checks values by their rules."""

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            UserError: an option has a value that its rule does not allow; the first one is named.
        """
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            rule: Rule | None = field.metadata.get("rule")
            value = getattr(self, field.name)
            if rule is not None and value is not None and not rule.holds(value):
                raise UserError(rule.message(flag(field.name), value))


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
        if isinstance(kind, UnionType):  # fairseq's parser does not support int | None
            kind = Optional[get_args(kind)[0]]
        yield Declared(field.name, kind, field)


def owners(modalities: Mapping[str, "Modality"], others: Mapping[str, str] | None = None) -> dict[str, str]:
    """Map every option to the modality that declares it.

    Args:
        modalities: name -> modality.
        others: options that belong to no modality -> their owner.

    Raises:
        UserError: two owners have an option of one name.  Within a modality, ``options`` and ``model_options`` may share names.
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
    """The field of an option for the options of loaders, with its real default."""
    return option.name, option.type, dataclasses.field(default=option.field.default, metadata=option.field.metadata)


def task_field(option: Declared) -> tuple[str, Any, Any]:
    """The field of an option for the task's configuration: None by default, so that a checkpoint's value can precede the default."""
    default, metadata = option.field.default, dict(option.field.metadata)
    if option.type is bool or default is None:
        return option.name, option.type, dataclasses.field(default=default, metadata=metadata)
    shown = f"{default:g}" if isinstance(default, float) else default
    metadata["help"] += f" (default: the checkpoint's, else {shown})"
    return option.name, Optional[option.type], dataclasses.field(default=None, metadata=metadata)


def compose(
    name: str, module: str, base: type, fields: list[tuple[str, Any, Any]], doc: str, frozen: bool = False, kw_only: bool = False
) -> type:
    """Make a dataclass of a base's fields and more; ``module`` must bind it to ``name``, where pickle looks it up."""
    made = dataclasses.make_dataclass(name, fields, bases=(base,), frozen=frozen, kw_only=kw_only)
    made.__module__, made.__doc__ = module, doc
    return made
