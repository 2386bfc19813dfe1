"""Vocabulary: text to token ids and back, with byte-level BPE, a fairseq dictionary, and tokens for image codes and coordinate bins.

A vocabulary is a folder with three files: ``encoder.json`` (BPE token -> number) and ``vocab.bpe`` (merges), as GPT-2
publishes them, and ``dict.txt``, a fairseq dictionary that lists these numbers in decimal. Loading appends the special
tokens ``<mask>``, ``<code_i>`` and ``<bin_i>``. GPT-2's files, BART's ``dict.txt``, 8192 codes and 1000 bins give the
59,457 tokens of the published UnIVAL and OFA checkpoints, in their order. ``train_vocabulary`` writes the same three
files for small runs, and a ``sizes.json``, which tells that the vocabulary has no codes and no bins.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pathlib
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from unival.errors import UserError, counted
from unival.quiet_import import quiet_import
from unival.vocab_files import (
    DICT_FILE,
    ENCODER_FILE,
    MASK_TOKEN,
    MERGES_FILE,
    SIZES_FILE,
    VERSION_LINE,
    check_files,
    check_same_numbers,
    read_dict,
    read_encoder,
    read_merges,
    read_sizes,
    without_appended,
)

if TYPE_CHECKING:
    from fairseq.data import Dictionary
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

NUM_CODES = 8192  # entries of the published VQGAN's codebook
NUM_BINS = 1000  # bins of a box coordinate
FIRST_TOKEN = 4  # id; <s>, <pad>, </s> and <unk> come before it


class Vocabulary:
    """The tokens of one model. Make it with ``Vocabulary.load``.

    Attributes:
        dictionary: fairseq's dictionary of the tokens: 0 ``<s>``, 1 ``<pad>``, 2 ``</s>``, 3 ``<unk>``, the BPE numbers in the order
            of ``dict.txt``, ``<mask>``, ``<code_0>``..., ``<bin_0>``...
        code_range, bin_range: (start, end) ids of image codes and of coordinate bins, ``end`` exclusive.
        bos, pad, eos, unk, mask: ids of the special tokens.
    """

    def __init__(
        self,
        encoder: dict[str, int],
        merges: Sequence[tuple[str, str]],
        entries: Sequence[tuple[str, int]],
        num_codes: int,
        num_bins: int,
    ) -> None:
        with quiet_import():  # imported here because it takes seconds
            from fairseq.data import Dictionary

        dictionary = Dictionary()
        for token, count in entries:
            dictionary.add_symbol(token, n=count)
        self.dictionary: Dictionary = dictionary
        self.bos, self.pad, self.eos, self.unk = dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk()
        self.mask = dictionary.add_symbol(MASK_TOKEN)
        self.code_range = self._append(f"<code_{i}>" for i in range(num_codes))
        self.bin_range = self._append(f"<bin_{i}>" for i in range(num_bins))
        self._encoder, self._merges = encoder, tuple(merges)
        self._tokenizer = _build_tokenizer(encoder, merges)
        self._id_of_bpe = {number: dictionary.indices[str(number)] for number in encoder.values()}
        self._bpe_of_id = {index: number for number, index in self._id_of_bpe.items()}

    def _append(self, tokens: Iterable[str]) -> tuple[int, int]:
        start = len(self.dictionary)
        for token in tokens:
            self.dictionary.add_symbol(token)
        return start, len(self.dictionary)

    @classmethod
    def load(
        cls, directory: str | pathlib.Path, num_codes: int | None = None, num_bins: int | None = None
    ) -> Vocabulary:
        """Read the three files of a vocabulary.

        A ``dict.txt`` that already ends with ``<mask>``, codes and bins (a dictionary saved from a model) is accepted if
        it holds exactly ``num_codes`` codes and ``num_bins`` bins.

        Args:
            directory: folder with ``encoder.json``, ``vocab.bpe`` and ``dict.txt``.
            num_codes: number of image codes to append; default: from ``sizes.json`` in the folder, else 8192.
            num_bins: number of coordinate bins to append; default: from ``sizes.json`` in the folder, else 1000.

        Raises:
            UserError: a file is missing or malformed, the files are of different vocabularies, or ``num_codes`` and
                ``num_bins`` differ from those in ``dict.txt``.
        """
        folder = pathlib.Path(directory)
        check_files(folder)
        noted = read_sizes(folder / SIZES_FILE)
        is_guess = noted is None and num_codes is None and num_bins is None
        known = noted or {"num_codes": NUM_CODES, "num_bins": NUM_BINS}
        num_codes = known["num_codes"] if num_codes is None else num_codes
        num_bins = known["num_bins"] if num_bins is None else num_bins
        if num_codes < 0 or num_bins < 0:
            raise UserError(f"num_codes and num_bins must be 0 or more, got {num_codes} and {num_bins}")
        encoder = read_encoder(folder / ENCODER_FILE)
        merges = read_merges(folder / MERGES_FILE, encoder)
        entries = read_dict(folder / DICT_FILE)
        entries = without_appended(entries, folder / DICT_FILE, num_codes, num_bins)
        check_same_numbers(entries, encoder, folder / DICT_FILE)
        if is_guess and len(entries) < num_codes + num_bins:
            logger.warning(
                "%s: %s; adding %s and %s as in the published vocabulary, which a small model does not need: --num-codes 0 --num-bins 0"
                " leaves them out",
                *(folder, counted(len(entries), "text token"), counted(num_codes, "image code"), counted(num_bins, "location bin")),
            )
        return cls(encoder, merges, entries, num_codes, num_bins)

    def __len__(self) -> int:
        return len(self.dictionary)

    @property
    def num_codes(self) -> int:
        """Number of image codes."""
        return self.code_range[1] - self.code_range[0]

    @property
    def num_bins(self) -> int:
        """Number of location bins."""
        return self.bin_range[1] - self.bin_range[0]

    def files(self) -> dict[str, str]:
        """The files from which ``load`` restores this vocabulary: file name -> content; checkpoints store them."""
        first, last = FIRST_TOKEN, self.mask
        entries = zip(self.dictionary.symbols[first:last], self.dictionary.count[first:last], strict=True)
        return {
            ENCODER_FILE: json.dumps(self._encoder, ensure_ascii=False),
            MERGES_FILE: "\n".join(["#version: 0.2", *(" ".join(pair) for pair in self._merges), ""]),
            DICT_FILE: "".join(f"{token} {count}\n" for token, count in entries),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the dictionary, the merges and the BPE tokens: equal for vocabularies that encode every text alike."""
        token_of = {number: token for token, number in self._encoder.items()}
        lines = [
            f"{entry}\t{token_of.get(self._bpe_of_id.get(i, -1), '')}"
            for i, entry in enumerate(self.dictionary.symbols)
        ]
        lines += [" ".join(pair) for pair in self._merges]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Encode text to token ids. Spaces and case are kept, ``<s>`` and ``</s>`` are not added, ``<bin_3>`` is plain text."""
        return [self._id_of_bpe[number] for number in self._tokenizer.encode(text, add_special_tokens=False).ids]

    def encode_entries(self, text: str) -> list[int]:
        """Token ids of dictionary entries separated by spaces: "<bin_0> <bin_999>" or "464 3290".

        Raises:
            UserError: an entry is not in the dictionary.
        """
        return [self._index(entry) for entry in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode token ids (a list or a 1-D tensor) to text.

        ``<s>``, ``<pad>`` and ``</s>`` are dropped. Other special tokens (codes, bins, ``<mask>``, ``<unk>``) are written by
        name, with a space before each. Bytes that are not UTF-8 become U+FFFD.
        """
        text = ""
        run: list[int] = []  # BPE numbers, decoded together because a character may be split over several tokens
        for i in map(int, ids):
            assert 0 <= i < len(self), f"id {i} is outside this vocabulary of {len(self)} tokens"
            if i in self._bpe_of_id:
                run.append(self._bpe_of_id[i])
            elif i not in (self.bos, self.pad, self.eos):
                text += self._decode_run(run)
                run = []
                text += (" " if text and not text[-1].isspace() else "") + self.dictionary.symbols[i]
        return text + self._decode_run(run)

    def _decode_run(self, numbers: list[int]) -> str:
        return self._tokenizer.decode(numbers, skip_special_tokens=False) if numbers else ""

    def decode_entries(self, text: str) -> str:
        """Decode dictionary entries as fairseq-generate prints them: "464 3290" -> "The dog".

        Raises:
            UserError: an entry is not in the dictionary.
        """
        return self.decode(self.encode_entries(text))

    def _index(self, entry: str) -> int:
        index = self.dictionary.indices.get(entry)
        if index is None:
            raise UserError(
                f"{entry!r} is not in this vocabulary of {counted(len(self), 'token')} (BPE numbers, {MASK_TOKEN}, "
                f"{self._range_text('code', self.code_range)}, {self._range_text('bin', self.bin_range)})"
            )
        return index

    def code(self, i: int) -> int:
        """Token id of image code ``i``.

        Raises:
            UserError: the code is not in the codebook.
        """
        return self._in_range("code", i, self.code_range)

    def bin(self, i: int) -> int:
        """Token id of coordinate bin ``i``.

        Raises:
            UserError: the bin does not exist.
        """
        return self._in_range("bin", i, self.bin_range)

    def _in_range(self, kind: str, i: int, span: tuple[int, int]) -> int:
        if not 0 <= i < span[1] - span[0]:
            raise UserError(f"{kind} {i} does not exist: this vocabulary has {self._range_text(kind, span)}")
        return span[0] + i

    @staticmethod
    def _range_text(kind: str, span: tuple[int, int]) -> str:
        count = span[1] - span[0]
        return f"<{kind}_0>..<{kind}_{count - 1}>" if count else f"no <{kind}_i>"


def _build_tokenizer(encoder: dict[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """GPT-2's tokenizer: its pre-tokenization pattern, no prefix space, no special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=encoder, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class FairseqBpe:
    """fairseq's BPE interface: converts between dictionary entries as fairseq prints them ("464 3290") and text."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._expected: deque[str | None] = deque()

    def expect(self, rows: Iterable[Sequence[str]]) -> None:
        """Set the texts of the next hypotheses; fairseq-generate decodes those of a row after its source and its target.

        Args:
            rows: the texts of each row's hypotheses, if they do not follow from the tokens alone.
        """
        for texts in rows:
            self._expected.extend([None, None, *texts])

    def decode(self, entries: str) -> str:
        """Convert dictionary entries separated by spaces to text."""
        text = self._expected.popleft() if self._expected else None
        return self.vocabulary.decode_entries(entries).strip() if text is None else text

    def encode(self, text: str) -> str:
        """Convert text to dictionary entries separated by spaces."""
        return " ".join(self.vocabulary.dictionary[i] for i in self.vocabulary.encode(text))


def train_vocabulary(texts: Iterable[str], size: int, directory: str | pathlib.Path) -> None:
    """Train byte-level BPE on texts and write the vocabulary to a folder.

    Every text in any language can be encoded, because all 256 bytes are tokens. The vocabulary has no image codes and no
    location bins, which ``sizes.json`` records. Encode with the same spaces as in the training texts: prompts and captions start
    with one.

    Args:
        texts: what to train on; blank texts are ignored.
        size: number of BPE tokens, the 256 bytes included; the result has fewer if fewer pairs of tokens occur at least twice.
        directory: where to write ``encoder.json``, ``vocab.bpe``, ``dict.txt`` (by descending frequency) and ``sizes.json``.

    Raises:
        UserError: ``size`` is below 256, or there is no text.
    """
    from tokenizers import ByteLevelBPETokenizer

    if size < 256:
        raise UserError(f"the size of a byte-level vocabulary must be at least 256, got {size}")
    counted = Counter(text for text in texts if text.strip())
    if not counted:
        raise UserError("there is no text to train a vocabulary on")
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        counted.elements(), vocab_size=size, min_frequency=2, show_progress=False, special_tokens=[]
    )
    model = json.loads(trainer.to_str())["model"]
    encoder: dict[str, int] = model["vocab"]
    merges = [(left, right) for left, right in model["merges"]]
    tokenizer = _build_tokenizer(encoder, merges)
    frequency = dict.fromkeys(encoder.values(), 0)
    for text, times in counted.items():
        for number in tokenizer.encode(text).ids:
            frequency[number] += times
    ranked = sorted(frequency.items(), key=lambda item: (-item[1], item[0]))
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ENCODER_FILE).write_text(json.dumps(encoder, ensure_ascii=False), encoding="utf-8")
    merge_lines = "".join(f"{left} {right}\n" for left, right in merges)
    (folder / MERGES_FILE).write_text(f"{VERSION_LINE}\n{merge_lines}", encoding="utf-8")
    (folder / DICT_FILE).write_text("".join(f"{number} {count}\n" for number, count in ranked), encoding="utf-8")
    (folder / SIZES_FILE).write_text(json.dumps({"num_codes": 0, "num_bins": 0}) + "\n", encoding="utf-8")
