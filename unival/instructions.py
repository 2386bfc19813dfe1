r"""The instruction language: one line of text that tells which columns of a row are the source and which are predicted.

    [IMAGE:image] what does the image describe? -> [TEXT:caption]

Grammar (spaces inside brackets and around ``->`` and ``|||`` are ignored):

    instruction = alternative ("|||" alternative)*      one alternative is drawn for each example
    alternative = sentence "->" sentence                encoder side, decoder side
    sentence    = (slot | plain text)+
    slot        = "[" MODALITY (":" column)? ("," attribute ("=" value)?)* "]"
    value       = bare word, number with or without sign, "quoted" or 'quoted' with backslash escapes

In plain text a backslash makes the next character literal: \[ \] \\ \| \-> and "\ " for a space that must survive at
an end.
Errors are InstructionErrors that point at the character.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn, Protocol

from unival.errors import MISSING_PLUGIN, InstructionError
from unival.text import why_not_text

Value = bool | int | float | str

ARROW, OR = "->", "|||"
PLAIN = "TEXT"  # the modality of plain text
ESCAPABLE = "[]\\|- "
QUOTED_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


@dataclasses.dataclass(frozen=True)
class AttributeSpec:
    """The allowed values of an attribute: type (bool: a flag), smallest number, all texts (empty: any), and whether only decoder slots
    have it."""

    type: type
    minimum: int | None = None
    target_only: bool = False
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """The type of the value, in words."""
        if self.choices:
            return " or ".join(self.choices)
        kind = {bool: "no value, true or false", int: "a whole number", float: "a number", str: "text"}[self.type]
        return kind if self.minimum is None else f"{kind} of at least {self.minimum}"


class SlotKind(Protocol):
    """What the parser needs of a modality (:class:`unival.modalities.base.Modality`): attributes and sides of its slots."""

    @property
    def attributes(self) -> Mapping[str, AttributeSpec]: ...

    @property
    def is_source(self) -> bool: ...

    @property
    def is_target(self) -> bool: ...


# Names that OFASys documents and that are not supported here: the message differs from that of misspellings.
OFASYS_NAMES = {
    *("MOTION", "PHONE", "STRUCT", "CATEGORY", "preprocess", "adaptor", "mask_ratio", "noise_ratio"),
    *("disable_auto_boseos", "length", "n_frames_per_step", "use_mask"),
}


@dataclasses.dataclass(frozen=True)
class Slot:
    """One part of a sentence: a column of the row, or plain text.

    Attributes:
        modality: the name of a modality, such as IMAGE; plain text has TEXT.
        column: name of the column; None for plain text and for slots before ``Instruction.resolve``.
        text: plain text without its outer spaces; None for a column.
        attributes: attributes in the brackets, e.g. {"max_length": 20, "uncased": True}.
        position: index of the first character in ``Instruction.text``.
        glued: whether there is no space before it: in ``[TEXT:question]?`` the question mark is glued. Text that is not
            glued is tokenised with one space in front.
    """

    modality: str
    column: str | None = None
    text: str | None = None
    attributes: Mapping[str, Value] = dataclasses.field(default_factory=dict, hash=False)
    position: int = dataclasses.field(default=0, compare=False)
    glued: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether this is plain text of the instruction."""
        return self.text is not None

    def __str__(self) -> str:
        if self.text is not None:
            return _escaped(self.text)
        column = "" if self.column is None else f":{self.column}"
        return f"[{self.modality}{column}{''.join(_attribute_text(*item) for item in self.attributes.items())}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One alternative of an instruction: slots of encoder and decoder. ``str`` converts it back to text."""

    text: str = dataclasses.field(compare=False)
    source: tuple[Slot, ...]
    target: tuple[Slot, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Source and target slots in order."""
        return self.source + self.target

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of all slots, each once, in order."""
        return tuple(dict.fromkeys(slot.column for slot in self.slots if slot.column is not None))

    def __str__(self) -> str:
        return f"{_sentence_text(self.source)} {ARROW} {_sentence_text(self.target)}"

    def error(self, slot: Slot, problem: str) -> InstructionError:
        """Make an error that points at ``slot``."""
        return InstructionError(problem, self.text, slot.position)

    def resolve(self, columns: Sequence[str]) -> Instruction:
        """Give every slot a column: the k-th slot that is not plain text gets the k-th of ``columns`` unless it has one.

        Raises:
            InstructionError: a slot's column is not among ``columns``, or there are fewer columns than slots.
        """
        resolved: list[Slot] = []
        k = 0  # slots so far that are not plain text
        for slot in self.slots:
            if not slot.is_plain:
                if slot.column is None and k >= len(columns):
                    raise self.error(slot, f"slot {k + 1} has no column: the only ones are {', '.join(columns)}")
                name = columns[k] if slot.column is None else slot.column
                if name not in columns:
                    raise self.error(slot, _unknown("column", name, columns))
                slot = dataclasses.replace(slot, column=name)
                k += 1
            resolved.append(slot)
        border = len(self.source)
        return dataclasses.replace(self, source=tuple(resolved[:border]), target=tuple(resolved[border:]))


def parse(text: str, modalities: Mapping[str, SlotKind]) -> tuple[Instruction, ...]:
    """Parse an instruction.

    Args:
        text: the instruction.
        modalities: name -> modality (``unival.modalities.MODALITIES``).

    Returns:
        One Instruction per alternative.

    Raises:
        InstructionError: the text is not valid (half a character, NUL), does not follow the grammar, has an unknown modality
            or attribute, or its alternatives have different decoder slots.
    """
    odd = next((i for i, character in enumerate(text) if why_not_text(character)), None)
    if odd is not None:
        raise InstructionError(str(why_not_text(text[odd])), text, odd)
    parser = _Parser(text, modalities)
    instructions = [parser.alternative()]
    while parser.took(OR):
        instructions.append(parser.alternative())
    wanted = [slot.modality for slot in instructions[0].target if not slot.is_plain]
    for other in instructions[1:]:
        found = [slot.modality for slot in other.target if not slot.is_plain]
        if found != wanted:
            problem = f"alternatives must have the same decoder slots: the first has {wanted}, this one has {found}"
            raise other.error(other.target[0], problem)
    return tuple(instructions)


class _Parser:
    """A recursive-descent parser. Positions in errors count from the start of the whole text."""

    def __init__(self, text: str, modalities: Mapping[str, SlotKind]) -> None:
        self.text, self.modalities, self.position = text, modalities, 0

    def fail(self, problem: str, position: int | None = None) -> NoReturn:
        raise InstructionError(problem, self.text, self.position if position is None else position)

    def at(self, token: str) -> bool:
        return self.text.startswith(token, self.position)

    @property
    def ended(self) -> bool:
        return self.position >= len(self.text)

    @property
    def at_end_of_sentence(self) -> bool:
        return self.ended or self.at(ARROW) or self.at(OR)

    def skip_spaces(self) -> None:
        while not self.ended and self.text[self.position].isspace():
            self.position += 1

    def took(self, token: str) -> bool:
        """Go past spaces and ``token``, if that comes next."""
        self.skip_spaces()
        found = self.at(token)
        self.position += len(token) * found
        return found

    def alternative(self) -> Instruction:
        self.skip_spaces()
        start = self.position
        source = self.sentence("encoder", start)
        if not self.took(ARROW):
            self.fail(f"no {ARROW!r} between what the encoder reads and what the decoder says")
        target = self.sentence("decoder", start)
        if self.at(ARROW):
            self.fail(rf"a second {ARROW!r}: write '\->' where plain text needs one")
        if all(slot.is_plain or slot.attributes.get("no_loss", False) for slot in target):
            self.fail("the decoder side predicts nothing: it needs a slot without no_loss", start + target[0].position)
        return Instruction(self.text[start : self.position].rstrip(), source, target)

    def sentence(self, side: str, start: int) -> tuple[Slot, ...]:
        """Parse slots up to the next arrow, ``|||`` or the end; their positions count from ``start``."""
        begin = self.position
        slots: list[Slot] = []
        while True:
            before = self.position
            self.skip_spaces()
            if self.at_end_of_sentence:
                break
            spaced, position = self.position > before, self.position
            slot = self.slot(side) if self.at("[") else self.plain_text()
            glued = not spaced and bool(slots) and slots[-1].modality == slot.modality == PLAIN
            slots.append(dataclasses.replace(slot, position=position - start, glued=glued))
        if not slots:
            self.fail(f"the {side} side is empty", begin if self.ended else self.position)
        return tuple(slots)

    def plain_text(self) -> Slot:
        characters: list[str] = []
        kept = 0  # characters up to the last that is not an unprotected space; spaces after it only separate
        while not self.at_end_of_sentence and not self.at("["):
            character = self.text[self.position]
            if character == "]":
                self.fail(r"']' without '[': write '\]' where plain text needs one")
            if character == "\\":
                self.position += 1
                if self.ended or self.text[self.position] not in ESCAPABLE:
                    names = " ".join(f"\\{c}" for c in ESCAPABLE.strip())
                    self.fail(rf"a backslash must stand before one of {names} or a space", self.position - 1)
                character = self.text[self.position]
                kept = len(characters) + 1
            elif not character.isspace():
                kept = len(characters) + 1
            characters.append(character)
            self.position += 1
        self.position -= len(characters) - kept
        return Slot(PLAIN, text="".join(characters[:kept]))

    def slot(self, side: str) -> Slot:
        opening = self.position
        self.position += 1
        modality = self.modality(side)
        column = self.name("a column name") if self.took(":") else None
        attributes: dict[str, Value] = {}
        while self.took(","):
            self.attribute(modality, side, attributes)
        if self.ended:
            self.fail("'[' is never closed", opening)
        if not self.at("]"):
            self.fail(f"expected ',' or ']' here, got {self.text[self.position]!r}")
        self.position += 1
        return Slot(modality, column, attributes=attributes)

    def name(self, what: str) -> str:
        self.skip_spaces()
        match = re.compile(r"[_A-Za-z0-9]+").match(self.text, self.position)
        if match is None:
            found = "the end" if self.ended else repr(self.text[self.position])
            self.fail(f"expected {what} (letters, digits, '_') here, got {found}")
        self.position = match.end()
        return match.group()

    def modality(self, side: str) -> str:
        name = self.name("a modality")
        start = self.position - len(name)
        if name not in self.modalities:
            self.fail(f"{_unknown('modality', name, self.modalities)}; {MISSING_PLUGIN}", start)
        able = [other for other, kind in self.modalities.items() if (kind.is_target if side == "decoder" else kind.is_source)]
        if name not in able:
            problem = "cannot be predicted" if side == "decoder" else "can only be predicted"
            self.fail(f"{name} {problem}; the {side} side takes {', '.join(able)}", start)
        return name

    def attribute(self, modality: str, side: str, attributes: dict[str, Value]) -> None:
        """Parse one attribute into ``attributes``."""
        name = self.name("an attribute")
        start = self.position - len(name)
        specs = self.modalities[modality].attributes
        spec = specs.get(name)
        if spec is None:
            self.fail(_unknown("attribute", name, specs), start)
        if name in attributes:
            self.fail(f"attribute {name!r} is given twice", start)
        if spec.target_only and side == "encoder":
            self.fail(f"attribute {name!r} is for decoder slots only", start)
        value: Value = True
        if self.took("="):
            self.skip_spaces()
            start = self.position
            value = self.value()
        elif spec.type is not bool:
            self.fail(f"attribute {name!r} needs a value: {spec.wanted}", start)
        if spec.type is float and type(value) is int:
            value = float(value)
        small = spec.minimum is not None and isinstance(value, int | float) and value < spec.minimum
        if small or type(value) is not spec.type or (spec.choices and value not in spec.choices):
            self.fail(f"attribute {name!r} takes {spec.wanted}, not {value!r}", start)
        attributes[name] = value

    def value(self) -> Value:
        if not self.ended and self.text[self.position] in "\"'":
            return self.quoted()
        match = re.compile(r"[^\s,\]\[\"'=]+").match(self.text, self.position)
        if match is None:
            found = "the end" if self.ended else repr(self.text[self.position])
            self.fail(f"expected a value here, got {found}")
        self.position = match.end()
        word = match.group()
        if word in ("true", "false"):
            return word == "true"
        if re.fullmatch(r"[+-]?[0-9]+", word):
            return int(word)
        if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", word):
            return float(word)
        return word

    def quoted(self) -> str:
        opening = self.position
        mark = self.text[opening]
        characters: list[str] = []
        self.position += 1
        while not self.ended and self.text[self.position] != mark:
            character = self.text[self.position]
            if character == "\\":
                self.position += 1
                character = QUOTED_ESCAPES.get(self.text[self.position : self.position + 1], "")
                if not character:
                    names = " ".join(f"\\{c}" for c in QUOTED_ESCAPES)
                    self.fail(f"unknown escape in a quoted value; there are {names}", self.position - 1)
            characters.append(character)
            self.position += 1
        if self.ended:
            self.fail(f"the quote {mark} is never closed", opening)
        self.position += 1
        return "".join(characters)


def _unknown(kind: str, name: str, known: Collection[str]) -> str:
    folded = {other.lower(): other for other in known}
    there_are = f"there are {', '.join(known)}" if folded else "none can be used here"
    if kind != "column" and name in OFASYS_NAMES:
        return f"unsupported {kind} {name!r}; {there_are}"
    close = difflib.get_close_matches(name.lower(), list(folded), n=1)
    if kind == "column":  # either may be the misspelled one
        return f"no column {name!r}" + (f", is {folded[close[0]]!r} meant? " if close else "; ") + there_are
    return f"unknown {kind} {name!r}" + (f", did you mean {folded[close[0]]!r}? " if close else "; ") + there_are


def _escaped(text: str) -> str:
    text = re.sub(r"[\[\]\\|]|->", lambda match: "\\" + match.group(), text)
    return re.sub(r"^ +| +$", lambda match: "\\ " * len(match.group()), text)


def _attribute_text(name: str, value: Value) -> str:
    if value is True:
        return f",{name}"
    if isinstance(value, str):
        back = {character: f"\\{letter}" for letter, character in QUOTED_ESCAPES.items() if character != "'"}
        value = '"' + "".join(back.get(character, character) for character in value) + '"'
    return f",{name}={str(value).lower() if isinstance(value, bool) else value}"


def _sentence_text(slots: Sequence[Slot]) -> str:
    return "".join((" " if i and not slot.glued else "") + str(slot) for i, slot in enumerate(slots))
