"""Document frequencies for CIDEr-D: in how many rows an n-gram of words occurs, from references or from a file.

A file is one of three:

- JSON: ``{"documents": 113287, "document_frequency": {"a": 104000, "a cat": 2100}}``, words of an n-gram separated by spaces;
- npz: arrays ``ngrams`` (texts), ``counts`` and ``documents``;
- the pickle that code for self-critical training keeps beside COCO (``coco-train-words.p``): a dictionary with ``document_frequency``,
  whose keys are tuples of words, and ``ref_len``, the number of documents. It is read without running what a pickle may hold.

Words are compared as the tokenizer makes them, so a file must be of lower-case tokens without punctuation.
"""

import functools
import itertools
import json
import math
import pathlib
import pickle
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from unival.errors import UserError
from unival.metrics.base import Ngram, ngram_counts
from unival.text import read_text

ORDERS = 4  # n-grams of 1 to 4 words
SHOWN = 60  # characters that messages quote
COUNTS = "document_frequency"
DOCUMENTS = ("documents", "ref_len")  # our name and the pickles' own
TRIED = 1000  # n-grams that are looked at
# What the bytes of a damaged pickle may lead to, and UserError for what is refused.
DAMAGED = (
    UserError, OSError, EOFError, pickle.UnpicklingError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError,
)  # fmt: skip
ADVICE = "expected .json, .npz, or a pickle .p or .pkl"


class DocumentFrequency(NamedTuple):
    """How many documents hold an n-gram, and how many documents there are; an n-gram that is not in ``counts`` is in none."""

    counts: Mapping[Ngram, float]
    documents: float


def count(rows: Iterable[Sequence[tuple[str, ...]]]) -> DocumentFrequency:
    """Count over rows of tokenised references; a row is a document."""
    found: Counter[Ngram] = Counter()
    documents = 0
    for references in rows:
        found.update(set().union(*(counts for words in references for counts in ngram_counts(words, ORDERS))))
        documents += 1
    return DocumentFrequency(found, documents)


@functools.lru_cache(maxsize=2)
def read(path: str) -> DocumentFrequency:
    """Read a file.

    Raises:
        UserError: no such file, another format, or not frequencies of words.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"{file}: no such file of document frequencies; {ADVICE}")
    readers = {".json": _read_json, ".npz": _read_npz, ".p": _read_pickle, ".pkl": _read_pickle, ".pickle": _read_pickle}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise UserError(f"{file}: {ADVICE}, got {file.suffix!r}")
    counts, documents = reader(file)
    if not isinstance(documents, int | float) or not 1 <= documents < math.inf:
        raise UserError(f"{file}: the number of documents is {str(documents)[:SHOWN]}; expected 1 or more")
    if not counts:
        raise UserError(f"{file}: holds no n-grams")
    _check(file, counts, float(documents))
    return DocumentFrequency(counts, float(documents))


def _check(file: pathlib.Path, counts: Mapping[Ngram, float], documents: float) -> None:
    for ngram, value in counts.items():
        if not isinstance(value, int | float) or not 0 <= value <= documents:
            shown = f"{' '.join(ngram)[:SHOWN]!r} is in {str(value)[:SHOWN]} of {documents:g} documents"
            raise UserError(f"{file}: {shown}; expected numbers of documents, not their logarithms")
    if all(word.isdigit() for ngram in itertools.islice(counts, TRIED) for word in ngram):
        raise UserError(f"{file}: its n-grams are numbers, indices in a vocabulary; expected those of words, as in coco-train-words.p")


def _read_json(file: pathlib.Path) -> tuple[dict[Ngram, float], Any]:
    try:
        content = json.loads(read_text(file))
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON: {error}") from None
    counts, documents = _parts(file, content)
    return {tuple(ngram.split()): value for ngram, value in counts.items()}, documents


def _read_npz(file: pathlib.Path) -> tuple[dict[Ngram, float], Any]:
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as content:
            ngrams, counts, documents = (content[name].tolist() for name in ("ngrams", "counts", DOCUMENTS[0]))
    except KeyError as error:
        raise UserError(f"{file}: {error.args[0]}; expected the arrays ngrams, counts and documents") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: cannot be read as npz: {error}") from None
    are_lists = isinstance(ngrams, list) and isinstance(counts, list) and len(ngrams) == len(counts)
    if not are_lists or not all(isinstance(ngram, str) for ngram in ngrams):
        raise UserError(f"{file}: expected a count for every text in ngrams")
    return {tuple(ngram.split()): value for ngram, value in zip(ngrams, counts, strict=True)}, documents


class _Plain(dict[Any, Any]):
    """Replaces the dictionaries of ``collections``: takes their content and forgets what else they were made with."""

    def __init__(self, *content: Any) -> None:
        super().__init__(*(part for part in content if isinstance(part, dict)))


class _Inert(pickle.Unpickler):
    """Reads numbers, texts, tuples, lists and dictionaries; every other class or function is refused, and none is run."""

    KNOWN = {
        "collections": ("defaultdict", "Counter", "OrderedDict"),
        **dict.fromkeys(("builtins", "__builtin__"), ("int", "float", "long", "dict")),  # what a defaultdict was made with
    }

    def find_class(self, module: str, name: str) -> Any:
        """A harmless class for each of the few that such files name."""
        if name not in self.KNOWN.get(module, ()):
            raise UserError(f"it holds {module}.{name}")
        return _Plain


def _read_pickle(file: pathlib.Path) -> tuple[dict[Ngram, float], Any]:
    try:
        with file.open("rb") as stream:
            content = _Inert(stream, encoding="latin1").load()
    except DAMAGED as error:
        raise UserError(
            f"{file}: {str(error)[:SHOWN] or type(error).__name__}; only numbers, texts, tuples and dictionaries are read from a pickle."
            " Convert it where it was made: json.dump({'documents': d['ref_len'], 'document_frequency':"
            " {' '.join(ngram): n for ngram, n in d['document_frequency'].items()}}, open('FILE.json', 'w'))"
        ) from None
    counts, documents = _parts(file, content)
    if not all(isinstance(ngram, tuple) and ngram and all(isinstance(word, str) for word in ngram) for ngram in counts):
        raise UserError(f"{file}: expected tuples of words as keys of {COUNTS}")
    return dict(counts), documents


def _parts(file: pathlib.Path, content: Any) -> tuple[Mapping[Any, Any], Any]:
    """The frequencies and the number of documents in a dictionary that holds both."""
    name = next((name for name in DOCUMENTS if isinstance(content, dict) and name in content), None)
    if name is None or not isinstance(content.get(COUNTS), dict):
        raise UserError(f"{file}: expected an object with {COUNTS} (n-gram: number of documents) and {' or '.join(DOCUMENTS)}")
    return content[COUNTS], content[name]
