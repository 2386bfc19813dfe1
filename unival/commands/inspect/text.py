"""The output of ``unival inspect`` as text of at most 120 columns."""

import fnmatch
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unival.errors import counted

WIDTH = 120
LABEL = 14  # columns of "architecture  "
SHOWN = 8  # keys in a line
ROWS = 20  # most rows of a list


def summary_text(found: Mapping[str, Any]) -> str:
    """The summary of a checkpoint as text."""
    lines = [shorten(found["file"], WIDTH)]
    lines += _field("format", f"{found['format']}, {size(found['bytes'])}, {_precision(found['precision'])}")
    lines += _field("architecture", _architecture(found))
    if found["vocabulary"]["symbols"] is not None:
        lines += _field("vocabulary", _vocabulary(found["vocabulary"]))
    if found["task"]:
        lines += _field("task", _task(found["task"]))
        lines += _field("instruction", str(found["task"]["instruction"] or "not known: give --instruction"))
    lines += _field("training", _training(found["training"]))
    if found["made_from"].get("format") == "merge":
        lines += _field("merged", _merged(found["made_from"]))
    lines += _field("keys", _fit(found["total"]["keys"], found["fit"]))
    lines += _field("values", _values(found["non_finite"]))
    if found["tied"]:
        first = ", ".join(sorted(set(found["tied"].values())))
        lines += _field("tied", f"{first} = {', '.join(found['tied'])} (counted once)")
    return "\n".join([*lines, "", *_parts(found), ""])


def keys_text(keys: Sequence[Mapping[str, Any]]) -> str:
    """A table of keys with shapes and types."""
    rows = [
        [entry["key"], "x".join(map(str, entry["shape"])) or "number", entry["dtype"], f"= {entry['tied']}" if entry["tied"] else ""]
        for entry in keys
    ]
    return "\n".join([*table(["key", "shape", "type", ""], rows, right=(1,)), ""])


def difference_text(found: Mapping[str, Any], pattern: str | None = None) -> str:
    """The differences of two checkpoints as text; with ``pattern``, the keys that match it are listed, changed or not."""
    first, second = found["files"]
    lines = [f"a  {shorten(first, WIDTH - 3)}", f"b  {shorten(second, WIDTH - 3)}", ""]
    if found["translated"]:
        lines.append(f"the published keys of {found['translated']} were translated to ours")
    lines.append(_verdict(found))
    for name, keys in zip("ab", found["only"], strict=True):
        lines += _list(f"only in {name}", keys)
    lines += _list("other shape", [f"{key}: {_shape(x)} -> {_shape(y)}" for key, (x, y) in found["reshaped"].items()])
    lines += _list("other type", [f"{key}: {x} -> {y}" for key, (x, y) in found["retyped"].items()])
    lines += _list("options", [f"{path}: {x} -> {y}" for path, (x, y) in found["options"].items()])
    lines += _list("state", [f"{path}: {x} -> {y}" for path, (x, y) in found["state"].items()])
    changed = {key: entry for key, entry in found["keys"].items() if entry["changed"]}
    if changed:
        parts = {part: entry for part, entry in found["parts"].items() if entry["changed"]}
        lines += ["", *table(["part", "values", *MEASURES], _measures(parts), right=range(1, 6))]
        equal = len(found["parts"]) - len(parts)
        lines += [f"equal: {counted(equal, 'other part')}"] if equal else []
    if pattern is not None:
        chosen = {key: entry for key, entry in found["keys"].items() if fnmatch.fnmatchcase(key, pattern)}
        lines += ["", *table(["key", "values", *MEASURES], _measures(chosen), right=range(1, 6))]
    elif changed:
        most = sorted(changed.items(), key=lambda item: (item[1]["largest"] != math.inf, -item[1]["relative"]))[:ROWS]
        rest = len(changed) - len(most)
        title = "key" if not rest else f"key (those that differ most; {rest} more differ: --keys)"
        lines += ["", *table([title, "values", *MEASURES], _measures(dict(most)), right=range(1, 6))]
    return "\n".join([*lines, ""])


MEASURES = ("changed", "largest", "relative", "cosine")


def _measures(entries: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            name,
            f"{entry['values']:,}",
            f"{entry['changed']:,}",
            f"{entry['largest']:.3g}",
            f"{entry['relative']:.3g}",
            f"{entry['cosine']:.6f}",
        ]
        for name, entry in entries.items()
    ]


def _verdict(found: Mapping[str, Any]) -> str:
    total = len(found["keys"])
    changed = sum(1 for entry in found["keys"].values() if entry["changed"])
    if found["identical"]:
        return "the files are identical"
    if found["equal"]:
        rest = "" if found["weights_only"] else ", options and training state"
        return f"the weights{rest} are equal ({counted(total, 'key')}); the files are packed differently"
    keys = counted(total, "common key")
    weights = f"other values in {changed:,} of {keys}" if changed else f"all values are equal ({keys})"
    options, state = len(found["options"]), len(found["state"])
    others = f"; other {counted(options, 'option')} and {counted(state, 'value')} of the training state"
    return weights + ("" if found["weights_only"] else others)


# --- parts of the summary ---------------------------------------------------------------------------------------------------------


def _precision(counts: Mapping[str, int]) -> str:
    total = max(sum(counts.values()), 1)
    return ", ".join(f"{name} {100 * count / total:.3g} %" if len(counts) > 1 else name for name, count in counts.items())


def _architecture(found: Mapping[str, Any]) -> str:
    about, sizes = found["architecture"], found["sizes"]
    text = about["is"] + (f" ({about['name']})" if about["name"] else "")
    if about["kind"] == "other":
        return f"{text}; parts: {', '.join(list(found['parts'])[:SHOWN])}{' …' if len(found['parts']) > SHOWN else ''}"
    if "width" in sizes:
        text += f": width {sizes['width']}"
    for side in ("encoder", "decoder"):
        if sizes.get(f"{side}_layers"):
            more = [f"feed-forward {sizes[f'{side}_ffn']}"] if f"{side}_ffn" in sizes else []
            more += [counted(sizes[f"{side}_heads"], "head")] if f"{side}_heads" in sizes else []
            text += f"; {side} {counted(sizes[f'{side}_layers'], 'layer')}" + (f" ({', '.join(more)})" if more else "")
    return text + "".join(f"; {modality}: {network}" for modality, network in found["media"].items())


def _vocabulary(about: Mapping[str, Any]) -> str:
    ranges = [f"{about[name]} {name}" for name in ("codes", "bins") if about[name] is not None]
    text = f"{about['symbols']:,} symbols" + (f" ({', '.join(ranges)} among them)" if ranges else "")
    text += ", kept in the checkpoint" if about["kept"] else ", not kept in the checkpoint"
    text += f", fingerprint {str(about['fingerprint'])[:12]}" if about["fingerprint"] else ""
    return text + (f"; closed set of {counted(about['closed_set'], 'answer')}" if about["closed_set"] else "")


def _task(about: Mapping[str, Any]) -> str:
    text = str(about["name"])
    text += f"; validated by {', '.join(about['metrics'])}" if about["metrics"] else ""
    options = ", ".join(f"{name} {value}" for name, value in about["generation"].items())
    return text + (f"; generates with {options}" if options else "")


def _training(about: Mapping[str, Any]) -> str:
    if not about:
        return "nothing is kept of it"
    parts = [_updates(about["updates"])]
    if about["epoch"] is not None:
        inside = f" after {counted(about['batch'], 'batch', 'batches')}" if about["batch"] else " at its start"
        parts.append(f"epoch {about['epoch']}{inside}")
    for name, key in (("score", "score"), ("best", "best")):
        if isinstance(about[key], int | float):
            parts.append(f"{name} {about[key]:.6g}" + (f" ({about['metric']})" if about["metric"] and key == "best" else ""))
    parts += [str(about[key]) for key in ("criterion", "optimizer") if about[key]]
    parts.append("optimizer state kept" if about["optimizer_state"] else "no optimizer state")
    parts.append("EMA weights kept" if about["ema"] else "no EMA weights")
    runs = about["optimizer_history"]
    return ", ".join(parts) + (f"; {len(runs)} optimizers one after the other" if len(runs) > 1 else "")


def _merged(about: Mapping[str, Any]) -> str:
    """The record of ``unival merge``."""
    files, given = about.get("files") or [], about.get("coefficients")
    coefficients = [f"{c:g} " for c in given] if given and len(given) == len(files) else [""] * len(files)
    named = [f"{c}{_hashed(file)}" for c, file in zip(coefficients, files, strict=True)]
    options = "".join(f", {name} {value}" for name, value in (about.get("options") or {}).items())
    base = f"; base {_hashed(about['base'])}" if about.get("base") else ""
    return f"{about.get('method')}{options} of the {about.get('weights')} weights of {', '.join(named)}{base}{_used_data(about)}"


def _used_data(about: Mapping[str, Any]) -> str:
    """The data that ``unival merge`` used, if any."""
    parts, selected = [], about.get("selected") or {}
    if selected:
        among = counted(sum(" + " not in name for name in selected.get("scores", ())), "model")
        parts.append(f"selected by {selected.get('metric')} on {selected.get('table')} among {among}")
    if about.get("statistics"):
        parts.append(f"statistics {', '.join(map(_hashed, about['statistics']))}")
    for name, what in (("learnt", "coefficients learnt"), ("recalibrated", "batch norms recalibrated")):
        if used := about.get(name):
            tables = ", ".join(map(_hashed, used.get("tables") or []))
            parts.append(f"{what} on {counted(sum(used.get('rows') or []), 'row')} of {tables}")
    return "".join(f"; {part}" for part in parts)


def _hashed(file: Mapping[str, Any]) -> str:
    return f"{file.get('file')} (sha256 {str(file.get('sha256'))[:12]})"


def _updates(value: Any) -> str:
    return counted(value, "update") if isinstance(value, int) else "unknown number of updates"


def _fit(keys: int, fit: Mapping[str, Any] | None) -> str:
    if fit is None:
        return f"{keys}; without options of a model of ours there is nothing to compare them with"
    if "error" in fit:
        return f"{keys}; its options build no model: {fit['error']}"
    groups = {
        "missing": fit["missing"],
        "unexpected": fit["unexpected"],
        "of another shape": [f"{key} {_shape(here)}, not {_shape(there)}" for key, (here, there) in fit["reshaped"].items()],
    }
    if not any(groups.values()):
        return f"{keys}; exactly those of the model that its options build"
    return f"{keys}; " + "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in groups.items() if names)


def _values(non_finite: Mapping[str, int]) -> str:
    if not non_finite:
        return "all finite"
    return f"{sum(non_finite.values())} are NaN or infinite: " + _some([f"{key} ({count})" for key, count in non_finite.items()])


def _parts(found: Mapping[str, Any]) -> list[str]:
    total = found["total"]
    rows = [
        [name, f"{n['parameters']:,}", f"{100 * n['parameters'] / max(total['parameters'], 1):.1f} %", f"{n['buffers']:,}", str(n["keys"])]
        for name, n in found["groups"].items()
    ]
    rows.append(["total", f"{total['parameters']:,}", "", f"{total['buffers']:,}", str(total["keys"])])
    return table(["part", "parameters", "share", "in buffers", "keys"], rows, right=range(1, 5))


# --- layout -----------------------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Format aligned columns; the first one is shortened where a line would be too long."""
    right = set(right)
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    room = WIDTH - sum(widths[1:]) - 2 * (len(head) - 1)
    widths[0] = max(min(widths[0], room), 20)
    lines = []
    for row in [head, *rows]:
        cells = [shorten(without_control_characters(row[0]), widths[0]), *row[1:]]
        pairs = enumerate(zip(cells, widths, strict=True))
        aligned = [cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in pairs]
        lines.append("  ".join(aligned).rstrip())
    return lines


def without_control_characters(text: str) -> str:
    """Remove control characters, with which a file's text could control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def shorten(text: str, width: int) -> str:
    """Shorten a text in its middle if it is longer than ``width``."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def size(count: int) -> str:
    """Bytes for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return counted(count, "byte")


def _field(name: str, text: str) -> list[str]:
    """A name and its text, wrapped and indented."""
    return textwrap.wrap(
        without_control_characters(text), WIDTH, initial_indent=f"{name:{LABEL}}", subsequent_indent=" " * LABEL, break_on_hyphens=False
    ) or [name]


def _list(name: str, entries: Sequence[str]) -> list[str]:
    """A name and its entries, one per line; of many entries the first."""
    shown = [*entries[:ROWS], *([f"… and {len(entries) - ROWS} more (--json has all)"] if len(entries) > ROWS else [])]
    return [line for i, entry in enumerate(shown) for line in _field("" if i else name, entry)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "number"
