"""Text: cells become token ids, in the source and in the target; the other modalities are placed between them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from unival.answers import answers_of
from unival.errors import UserError, counted, kind_of
from unival.instructions import PLAIN, AttributeSpec, Instruction, Slot
from unival.modalities.base import Modality
from unival.modalities.geometry import Geometry
from unival.modalities.options import option
from unival.modalities.target import Context, References, Target, predicted_slots
from unival.text import (
    CLEANING,
    is_weighted_answer,
    not_empty,
    references_of,
    refuse_weighted,
    strip_punctuation,
    texts_of,
    why_not_text,
)
from unival.vocab import Vocabulary
from unival.vocab_files import MASK_TOKEN

logger = logging.getLogger(__name__)

SHOWN = 60  # characters of a text in a message


class TextTarget(Target):
    """Convert text to token ids by byte-level BPE, and back."""

    output = "text"
    has_own_text = False

    def __init__(self, vocabulary: Vocabulary, options: Any):
        super().__init__(vocabulary, options)
        self._plain: dict[str, list[int]] = {}  # ids of the instructions' plain texts, which are the same in every row

    def check(self, instruction: Instruction, slot: Slot, media: Sequence[str]) -> None:
        """Check that weights are those of the one answer to predict (a row has one confidence), and what attributes belong together."""
        attributes = slot.attributes
        for name in ("weighted", "after_eos", "loss_from"):
            if attributes.get(name) and predicted_slots(instruction) != [slot]:
                raise instruction.error(slot, f"a slot with {name} must be the only one to predict")
        if "map" in attributes:
            if attributes.get("weighted"):
                raise instruction.error(slot, "map is for plain texts, and weighted for answers with weights")
            try:
                read_map(str(attributes["map"]))
            except UserError as error:
                raise instruction.error(slot, str(error)) from None
        if attributes.get("masks") and attributes.get("no_punctuation"):
            raise instruction.error(slot, "masks needs the marks of <mask>, which no_punctuation removes")
        if "join" in attributes and slot in predicted_slots(instruction):
            raise instruction.error(slot, "join is for texts that are given, and this slot is predicted")

    def values(self, cell: Any, is_joined: bool) -> list[str]:
        """The texts of a cell: a string, a list of strings (JSONL), or strings joined by ``&&`` (TSV)."""
        texts = texts_of(cell, is_joined)
        refuse_weighted(texts)
        return texts

    def references(self, cell: Any, slot: Slot, is_joined: bool) -> References:
        """The texts of a cell that are not blank; those that have words after normalisation can be learned.

        Of weighted answers the one of the highest weight is learned, the first of those that share it.
        """
        if slot.attributes.get("weighted"):
            answers = answers_of(cell, is_joined)
            weights = {answer: weight for answer, weight in answers.weights.items() if words_of(slot, answer)}
            if not weights:
                raise UserError(f"{answers.texts[0][:SHOWN]!r} is empty after normalisation")
            best = max(weights, key=weights.__getitem__)
            return References(answers.texts, [best], answers.blank, len(answers.weights) - len(weights), weights[best])
        references, blank = references_of(cell, is_joined)
        references = [mapped(slot, reference) for reference in references]
        usable = not_empty(references, partial(words_of, slot))
        if not usable:
            raise UserError(f"{references[0][:SHOWN]!r} is empty after normalisation")
        return References(references, usable, blank, len(references) - len(usable))

    def alternatives(self, values: list[str], slot: Slot) -> list[str]:
        """The texts of a cell; with ``join`` so many of them as one text, which may be empty."""
        count = slot.attributes.get("join")
        return values if count is None else [" ".join(values[: int(count)])]

    def encode(self, value: str, slot: Slot, context: Context) -> tuple[list[int], bool]:
        """Normalise a text by the slot's attributes and truncate it to the limit in words; an instruction's plain text is kept as it is."""
        space = "" if slot.glued else " "
        if slot.is_plain:
            if (text := space + value) not in self._plain:
                self._plain[text] = self.vocabulary.encode(text)
            return list(self._plain[text]), False
        words = words_of(slot, value)
        limit = int(slot.attributes.get("max_length", context.words))
        text, ending = " ".join(words[:limit]), str(slot.attributes.get("ending", ""))
        text += "" if text.endswith(ending) else ending
        encode = self.encode_masks if slot.attributes.get("masks") else self.vocabulary.encode
        return encode(space + text) if text or "join" in slot.attributes else [], len(words) > limit

    def encode_masks(self, text: str) -> list[int]:
        """Ids of a text whose ``<mask>`` is the mask token, which stands for the space before it, too."""
        first, *others = text.split(MASK_TOKEN)
        ids = self.vocabulary.encode(first.removesuffix(" ") if others else first)
        for i, part in enumerate(others, start=1):
            ids += [self.vocabulary.mask, *self.vocabulary.encode(part.removesuffix(" ") if i < len(others) else part)]
        return ids

    def closed_set(self, slot: Slot, answers: Sequence[str], words: int) -> list[tuple[int, ...]] | None:
        """Encode the candidate answers as the slot encodes its values; None if the slot has no closed set.

        Raises:
            UserError: there are no answers; one is not a text; two become equal when they are truncated.
        """
        if not slot.attributes.get("closed_set"):
            return None
        empty: list[str] = []
        whole: dict[tuple[int, ...], tuple[str, bool]] = {}  # ids -> answer, and whether it was truncated
        for number, answer in enumerate(answers):
            if not isinstance(answer, str):
                raise UserError(f"answer {number} of the closed set is {answer!r} ({kind_of(answer)}): answers are texts")
            check_answer(answer, f"answer {number} of the closed set, {answer[:SHOWN]!r}")
            if not words_of(slot, answer):
                empty.append(answer)
                continue
            ids, is_cut = self.encode(answer, slot, Context(words))
            other, was_cut = whole.setdefault(tuple(ids), (answer, is_cut))
            if other != answer and (is_cut or was_cut):
                most = slot.attributes.get("max_length", words)
                raise UserError(
                    f"the answers {other!r} and {answer!r} of the closed set become equal when they are cut to {most} words:"
                    " raise --max-tgt-length, or the slot's max_length"
                )
        if empty:
            left_out = counted(len(empty), "answer")
            logger.warning("left out of the closed set, since empty once normalised: %s, for example %r", left_out, empty[0])
        if not whole:
            raise UserError(f"the closed set has no answer that is not empty: {counted(len(empty), 'answer')}, for example {empty[0]!r}")
        return list(whole)

    def decode(self, ids: Sequence[int], slot: Slot, geometry: Mapping[str, Geometry]) -> str:
        """The text of ids, without outer spaces."""
        return self.vocabulary.decode(ids).strip()


def words_of(slot: Slot, text: str) -> list[str]:
    """The words of a slot's text, normalised as its attributes say; empty where nothing is left."""
    text = mapped(slot, text)
    clean = slot.attributes.get("clean")
    if clean is not None:
        text = CLEANING[str(clean)](text)
    if slot.attributes.get("no_punctuation"):
        text = strip_punctuation(text)
    if slot.attributes.get("uncased"):
        text = text.lower()
    return text.split()


def mapped(slot: Slot, text: str) -> str:
    """The text that stands for another one by the slot's ``map``; texts that it lacks stay as they are."""
    return read_map(str(slot.attributes["map"])).get(text.strip(), text) if "map" in slot.attributes else text


@functools.lru_cache(maxsize=64)
def read_map(text: str) -> dict[str, str]:
    """The value of ``map``, such as ``entailment=yes,neutral=maybe``: text in the table -> text that is learned.  Cached: read-only.

    Raises:
        UserError: a part is not ``text=text``, or a text has two meanings.
    """
    pairs = [part.split("=") for part in text.split(",")]
    if not all(len(pair) == 2 and all(map(str.strip, pair)) for pair in pairs):
        raise UserError(f"map {text!r}: expected a text of the table and what stands for it, such as entailment=yes,neutral=maybe")
    found = {before.strip(): after.strip() for before, after in pairs}
    if len(found) < len(pairs):
        raise UserError(f"map {text!r}: a text is named twice")
    return found


def check_answer(answer: str, where: str) -> None:
    """Check that a text can be a candidate answer.

    Raises:
        UserError: it cannot; the message begins with ``where``.
    """
    reason = why_not_text(answer)
    if reason is None and is_weighted_answer(answer):
        reason = "is a weighted answer in the published VQA format: give answers without weights"
    if reason is not None:
        raise UserError(f"{where}: {reason}")


@dataclass(frozen=True)
class TextOptions:
    """Limits of the length of texts; a slot's own ``max_length`` has precedence."""

    max_src_length: int = option(
        80, "longest source text of a slot in words; longer ones are cut and counted", group="text"
    )
    max_tgt_length: int = option(
        30, "longest target text in words; longer ones are cut and counted", group="text"
    )


TEXT = Modality(
    PLAIN,
    attributes={
        "no_loss": AttributeSpec(bool, target_only=True),
        "closed_set": AttributeSpec(bool, target_only=True),
        "max_length": AttributeSpec(int, minimum=1),  # in words
        "uncased": AttributeSpec(bool),
        "no_punctuation": AttributeSpec(bool),
        "masks": AttributeSpec(bool),  # <mask> in the text is the mask token
        "loss_from": AttributeSpec(int, minimum=1, target_only=True),  # so many first tokens carry no loss
        "weighted": AttributeSpec(bool, target_only=True),  # cells hold answers with weights
        "clean": AttributeSpec(str, choices=tuple(CLEANING)),  # as published recipes do
        "ending": AttributeSpec(str),  # is appended to texts that do not end with it, after they are cut
        "map": AttributeSpec(str),  # a=b,…: the text a of the table stands for b
        "join": AttributeSpec(int, minimum=1),  # up to so many texts of the cell, not one of them
        "after_eos": AttributeSpec(bool, target_only=True),  # what is given before it ends with </s>, as sources do
    },
    options=TextOptions,
    target=TextTarget,
)
