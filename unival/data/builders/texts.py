"""Text alone, so that pretraining on media keeps it: text infilling, and plain text.

Text infilling as BART was trained (Lewis et al., 2020, arXiv:1910.13461, sections 2.2 and 4; fairseq's ``--mask 0.3 --mask-length
span-poisson --poisson-lambda 3 --replace-length 1``): 30% of the words are in spans whose lengths are drawn from a Poisson distribution of
mean 3; each span is replaced by one ``<mask>``, a span of length 0 inserts one, and the whole text is said. Words are whole, and spans do
not overlap, so that the share is exact; the last span is cut to it. The prompt is OFA's (Wang et al., 2022, arXiv:2202.03052).

Plain text is prefix language modelling (T5, Raffel et al., 2020, section 3.2.1; SimVLM, Wang et al., 2021, arXiv:2108.10904): a text is
cut at a random word, the encoder reads what is before, and the decoder says the rest.

Column: ``text``. A text longer than :data:`MOST_WORDS` gives a random segment of so many words.
"""

import math
from collections.abc import Sequence

import numpy as np

from unival.data.builders.base import Builder, Made, Record, cell_of
from unival.data.builders.negatives import one_of
from unival.data.cells import is_joined
from unival.data.table import Table
from unival.text import references_of
from unival.vocab_files import MASK_TOKEN

MASKED = 0.3  # share of the words that are masked
MEAN_LENGTH = 3.0  # of a span, in words
MOST_WORDS = 256  # of a segment: about 350 tokens of BART's vocabulary


def infilling_instructions(medium: str) -> dict[str, str]:
    """OFA's prompt of text infilling; there is no medium."""
    limit = f"max_length={MOST_WORDS}"
    return {"infilling": f'what is the complete text of " [TEXT:masked,masks,{limit}] "? -> [TEXT:text,{limit}]'}


def text_instructions(medium: str) -> dict[str, str]:
    """The prompt of plain text, in the manner of the others, since none is published; there is no medium."""
    limit = f"max_length={MOST_WORDS}"
    return {"text": f'how does the text " [TEXT:start,{limit}] " go on? -> [TEXT:rest,{limit}]'}


def words_of(record: Record, table: Table, rng: np.random.Generator) -> list[str]:
    """The words of a text of the row, of a long one a random segment."""
    texts = cell_of(record, "text", lambda cell: references_of(cell, is_joined(table))[0])
    words = one_of(texts, rng).split()
    first = int(rng.integers(max(len(words) - MOST_WORDS, 0) + 1))
    return words[first : first + MOST_WORDS]


def infilling(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The text with spans masked, and the whole text."""
    words = words_of(record, table, rng)
    return [("infilling", {**record, "masked": " ".join(masked(words, rng)), "text": " ".join(words)})]


def text(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The start of the text, and the rest of it; of a single word the start is empty."""
    words = words_of(record, table, rng)
    cut = int(rng.integers(1, len(words))) if len(words) > 1 else 0
    return [("text", {**record, "start": " ".join(words[:cut]), "rest": " ".join(words[cut:])})]


def masked(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Replace spans of words by ``<mask>``."""
    lengths = span_lengths(math.ceil(MASKED * len(words)), rng)
    places = len(words) - sum(lengths) + len(lengths)  # of words that stay and of spans
    is_span = np.zeros(places, dtype=bool)
    is_span[rng.choice(places, len(lengths), replace=False)] = True
    found, word, spans = [], 0, iter(lengths)
    for masks in is_span:
        found.append(MASK_TOKEN if masks else words[word])
        word += next(spans) if masks else 1
    return found


def span_lengths(total: int, rng: np.random.Generator) -> list[int]:
    """Lengths of spans that have ``total`` words together, those of length 0 among them."""
    lengths: list[int] = []
    left = total
    while left:
        lengths.append(min(int(rng.poisson(MEAN_LENGTH)), left))
        left -= lengths[-1]
    return lengths


INFILLING = Builder(infilling, ("masked",), infilling_instructions)
PLAIN_TEXT = Builder(text, ("start", "rest"), text_instructions)
