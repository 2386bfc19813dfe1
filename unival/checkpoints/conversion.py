"""The report of a conversion: what became of every key, also of those that were dropped, reshaped or added."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

OUTCOMES = ("kept", "renamed", "reshaped", "dropped", "missing", "unexpected")
WORDS = {
    "kept": "kept under their names",
    "renamed": "renamed",
    "reshaped": "changed in shape",
    "dropped": "dropped",
    "missing": "not in the source, made here",
    "unexpected": "unknown here, left out",
}


@dataclass
class KeyReport:
    """Report on a conversion: ``entries`` holds (kind, key in the source or else in the result, what became of it)."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, key: str, detail: str = "") -> None:
        """Record a key; ``kind`` is one of :data:`OUTCOMES`."""
        assert kind in OUTCOMES, f"{kind!r} is not a kind of entry"
        self.entries.append((kind, key, detail))

    def keys(self, kind: str) -> list[str]:
        """The keys of one kind, in order."""
        return [key for entry, key, _ in self.entries if entry == kind]

    def note(self, text: str) -> None:
        """Record a sentence about the conversion as a whole."""
        self.notes.append(text)

    def then(self, second: "KeyReport") -> None:
        """Append the report of a second step, whose source is the result of this one."""
        final = {key: detail or key for kind, key, detail in second.entries if kind in ("kept", "renamed")}
        for i, (kind, key, detail) in enumerate(self.entries):
            if kind in ("kept", "renamed"):
                name = final[detail or key]
                self.entries[i] = ("kept", key, "") if name == key else ("renamed", key, name)
        self.entries += [entry for entry in second.entries if entry[0] not in ("kept", "renamed")]
        self.notes += second.notes

    def text(self, verbose: bool = False) -> str:
        """Counts by kind and reason, then the notes; with ``verbose`` every key."""
        lines = []
        for kind in OUTCOMES:
            entries = [(key, detail) for entry, key, detail in self.entries if entry == kind]
            if not entries:
                continue
            lines.append(f"{len(entries):6d} {'key' if len(entries) == 1 else 'keys'} {WORDS[kind]}")
            if kind not in ("kept", "renamed"):
                reasons = Counter(detail for _, detail in entries)
                lines += [f"       {count:6d} {reason}" for reason, count in reasons.items() if reason]
            if verbose:
                lines += [f"         {key}{f': {detail}' if detail else ''}" for key, detail in entries]
        return "\n".join([*lines, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """The report as a dict for ``--report``: every key by kind, and the notes."""
        found: dict[str, Any] = {kind: {key: detail for e, key, detail in self.entries if e == kind} for kind in OUTCOMES}
        return {**found, "notes": self.notes}


@dataclass
class Conversion:
    """A state dict in another layout, and the report on its conversion."""

    state: dict[str, Tensor]
    report: KeyReport
