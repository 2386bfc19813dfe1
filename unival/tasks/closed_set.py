"""Candidate answers: ``[TEXT:answer,closed_set]`` restricts both the loss and generation to a list of answers."""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import torch

from unival.errors import UserError, counted
from unival.generation.trie import Trie
from unival.instructions import Instruction, Slot
from unival.modalities.target import Target, predicted_slots
from unival.modalities.text import check_answer
from unival.text import read_text
from unival.vocab import FIRST_TOKEN

logger = logging.getLogger(__name__)

SHOWN = 60  # characters of an answer in a message


def closed_slot(instruction: Instruction) -> Slot | None:
    """The slot with candidate answers; None if the instruction has none.

    Raises:
        InstructionError: the slot is not the last part of the target, or not the only one that is predicted.
    """
    predicted = predicted_slots(instruction)
    closed = [slot for slot in predicted if slot.attributes.get("closed_set")]
    if not closed:
        return None
    if len(predicted) > 1 or instruction.target[-1] is not closed[0]:
        raise instruction.error(
            closed[0], "a slot with closed_set must be the only one to predict, at the end of the target"
        )
    return closed[0]


def read_answers(path: str | pathlib.Path) -> list[str]:
    """Read the candidate answers from a file, one per line; empty lines are ignored.

    Raises:
        UserError: the file does not exist or has no answers, or a line cannot be an answer.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"--closed-set {file}: no such file; expected a text file with one answer per line")
    answers: dict[str, int] = {}  # answer -> its line
    repeated = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        answer = line.strip()
        if answer in answers:
            repeated.append(f"{answer!r} in lines {answers[answer]} and {number}")
        elif answer:
            check_answer(answer, f"--closed-set {file}, line {number}, {answer[:SHOWN]!r}")
            answers[answer] = number
    if not answers:
        raise UserError(f"--closed-set {file}: has no answers; expected one per line")
    if repeated:
        logger.warning("--closed-set %s: ignoring repeated answers (%s), for example %s", file, counted(len(repeated), "line"), repeated[0])
    return list(answers)


def build_trie(instruction: Instruction, answers: Sequence[str], target: Target, limit: int) -> Trie | None:
    """Build the trie of tokenised candidate answers; None if the instruction has no slot with ``closed_set``.

    Args:
        instruction: the instruction.
        answers: the candidate answers.
        target: target of the predicted slot.
        limit: longest answer in words, as for targets.

    Raises:
        UserError: the instruction has such a slot but there are no answers; one is not a text; two become equal when truncated.
    """
    slot = closed_slot(instruction)
    if slot is None:
        return None
    if not answers:
        needed = "closed_set needs candidate answers: give --closed-set FILE, one answer per line, or an --instruction without closed_set"
        raise instruction.error(slot, needed)
    ids = target.closed_set(slot, answers, limit)
    return None if ids is None else Trie(ids, target.vocabulary.bos, target.vocabulary.eos)


def limit_loss(sample: dict[str, Any], size: int) -> dict[str, Any]:
    """Restrict the loss of a batch to the range of token ids of each row's target (``loss_spans``) and the special tokens.

    Args:
        sample: the batch.
        size: number of tokens in the vocabulary.

    Returns:
        The batch with ``constraint_range`` where all rows have the same, else with ``constraint_masks`` (b x t x v, True: allowed).
    """
    spans = sample.get("loss_spans")
    if spans is None:
        return sample
    if len(set(spans)) == 1:
        return {**sample, "constraint_range": spans[0]}
    allowed = torch.ones(len(spans), size, dtype=torch.bool, device=sample["target"].device)
    for row, span in enumerate(spans):
        if span is not None:
            allowed[row, FIRST_TOKEN : span[0]] = False
            allowed[row, span[1] :] = False
    return {**sample, "constraint_masks": allowed.unsqueeze(1).expand(-1, sample["target"].size(1), -1)}
