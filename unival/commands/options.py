"""The options of the package, read from its dataclasses: for ``unival train --help`` and for the page ``docs/options.md``.

An option's help, type, choices, default and group (``metadata={"group": …}``) are in its dataclass field and nowhere else; what this
package or another plugin registers with fairseq later is included without changes here.

    python -m unival.commands.options > docs/options.md
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import unival.tasks  # noqa: F401  first, since it imports fairseq quietly; registers everything

# isort: split
from fairseq.dataclass.utils import interpret_dc_type

from unival.errors import flag

OPTION_GROUPS = ("task", "data", "text", "media", "evaluation")  # groups of the task's options, in this order; others follow
WITHOUT_GROUP = "other"
METAVARS = {int: "N", float: "X", str: "TEXT"}
HEAD = """# Options

Made from the dataclasses by `python -m unival.commands.options > docs/options.md`; a test keeps it current. `unival train --help` shows the
same for one task, architecture and criterion, and fairseq's most used options; `--help-all` shows all of fairseq's.
"""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option for documentation: ``--num-frames N``, help text, default (None: not shown)."""

    name: str
    argument: str
    help: str
    default: str | None
    group: str

    @property
    def usage(self) -> str:
        """Name and argument."""
        return f"{self.name} {self.argument}".strip()

    @property
    def text(self) -> str:
        """The help text with the default."""
        return self.help if self.default is None else f"{self.help} (default: {self.default})"


def options_of(config: type, changed: Mapping[str, Any] | None = None) -> list[Option]:
    """The options of a dataclass in the order of its fields; ``changed`` has other defaults, such as those of a named size."""
    changed = changed or {}
    return [
        _option(field, changed.get(field.name, _default(field)))
        for field in dataclasses.fields(config)
        if field.name != "_name" and not _is_link(field)
    ]


def _is_link(field: dataclasses.Field) -> bool:
    """Whether a field only repeats another option's value, so that fairseq makes no option of it."""
    return isinstance(field.default, str) and field.default.startswith("${") and "help" not in field.metadata


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _option(field: dataclasses.Field, default: Any) -> Option:
    kind = interpret_dc_type(field.type)
    if isinstance(kind, type) and issubclass(kind, Enum):
        argument = "{" + ",".join(str(item.value) for item in kind) + "}"
    elif kind is bool:
        argument = ""
    else:
        argument = METAVARS.get(kind, "LIST" if "List" in str(kind) else "TEXT")  # type: ignore[call-overload]
    text = (field.metadata.get("help") or "").strip()
    shown = None if "default: " in text or kind is bool else _shown(default)
    if kind is bool and default is True:
        text = f"turns off: {text}"  # fairseq's flag switches off an option that is on by default
    name = "DATA" if field.name == "data" else flag(field.name)
    return Option(name, "" if name == "DATA" else argument, text, shown, field.metadata.get("group", WITHOUT_GROUP))


def _shown(default: Any) -> str | None:
    """A default as it is typed on a command line; None for empty ones."""
    if isinstance(default, Enum):
        default = default.value
    if default is None or default is dataclasses.MISSING or str(default).startswith("${") or default == "???":
        return None
    if isinstance(default, list):
        return ",".join(map(str, default)) or None
    return str(default) if default != "" else "none"


def by_group(options: Iterable[Option]) -> dict[str, list[Option]]:
    """Group options: group -> options, known groups first, in their order."""
    groups: dict[str, list[Option]] = {name: [] for name in OPTION_GROUPS}
    for option in options:
        groups.setdefault(option.group, []).append(option)
    return {name: members for name, members in groups.items() if members}


def our_tasks() -> dict[str, type]:
    """Name -> dataclass of every task of this package."""
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    return _ours(TASK_DATACLASS_REGISTRY)


def our_models() -> dict[str, type]:
    """Name -> dataclass of every architecture of this package."""
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY

    configs = _ours(MODEL_DATACLASS_REGISTRY)
    return {arch: configs[name] for arch, name in ARCH_MODEL_NAME_REGISTRY.items() if name in configs and arch != name}


def our_parts() -> dict[str, dict[str, type]]:
    """Registry (``criterion``, ``lr_scheduler`` …) -> name -> dataclass of what this package registers there."""
    from fairseq.registry import REGISTRIES

    found = {name: _ours(registry["dataclass_registry"]) for name, registry in REGISTRIES.items()}
    return {name: members for name, members in found.items() if members}


def _ours(registry: Mapping[str, type | None]) -> dict[str, type]:
    return {name: config for name, config in sorted(registry.items()) if config and config.__module__.startswith("unival.")}


def named_sizes() -> dict[str, dict[str, Any]]:
    """Architecture -> changed defaults."""
    from unival.models.unival import SIZES

    return SIZES


def without(options: Sequence[Option], others: Iterable[Option]) -> list[Option]:
    """The options that are not among the others."""
    names = {option.name for option in others}
    return [option for option in options if option.name not in names]


# The page ---------------------------------------------------------------------------------------------------------------------


def page() -> str:
    """``docs/options.md``."""
    return "\n".join([HEAD, *_task_pages(), *_model_page(), *_part_pages()]) + "\n"


def _table(options: Iterable[Option]) -> Iterator[str]:
    yield from ("| option | what it does |", "|---|---|")
    for option in options:
        yield f"| `{option.usage}` | {_escaped(option.text)} |"
    yield ""


def _escaped(text: str) -> str:
    """Escape characters that Markdown takes for columns or tags."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _task_pages() -> Iterator[str]:
    tasks = our_tasks()
    shared = options_of(tasks["unival"])
    yield f"## Tasks: {', '.join(f'`--task {name}`' for name in tasks)}\n"
    for group, members in by_group(shared).items():
        yield f"### {group.capitalize()}\n"
        yield from _table(members)
    for name, config in tasks.items():
        own = without(options_of(config), shared)
        if own:
            yield f"### Only `--task {name}`\n"
            yield from _table(own)


def _model_page() -> Iterator[str]:
    sizes = named_sizes()
    shown: set[type] = set()
    for config in our_models().values():
        if config in shown:
            continue
        shown.add(config)
        names = [name for name, other in our_models().items() if other is config]
        yield f"## Model: {', '.join(f'`--arch {name}`' for name in names)}\n"
        yield from _table(options_of(config))
        changed = sorted({key for name in names for key in sizes.get(name, {})}, key=list(_fields(config)).index)
        yield "### What the named sizes change\n"
        yield f"| option | {' | '.join(names)} |"
        yield "|---|" + "---|" * len(names)
        for key in changed:
            values = [sizes.get(name, {}).get(key, _fields(config)[key].default) for name in names]
            yield f"| `{flag(key)}` | {' | '.join(map(str, values))} |"
        yield ""


def _fields(config: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(config)}


def _part_pages() -> Iterator[str]:
    for registry, members in our_parts().items():
        seen: list[Option] = []
        for name, config in members.items():
            yield f"## `{flag(registry)} {name}`\n"
            options = options_of(config)
            if not options:
                yield "No options.\n"
                continue
            yield from _table(options)
            seen += options


if __name__ == "__main__":
    sys.stdout.write(page())
