"""A small model whose next-token scores are a fixed function of the source and of all tokens so far."""

from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder, FairseqEncoderDecoderModel, FairseqIncrementalDecoder
from torch import Tensor

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SYMBOLS = 20
PLACES = 12


def make_dictionary(symbols: int = SYMBOLS) -> Dictionary:
    dictionary = Dictionary()
    for i in range(symbols - len(dictionary)):
        dictionary.add_symbol(str(i))
    return dictionary


class ToyEncoder(FairseqEncoder):
    """Source b x t -> b x c: the mean of the real tokens' embeddings."""

    def __init__(self, dictionary: Dictionary, table: Tensor) -> None:
        super().__init__(dictionary)
        self.table = table

    def forward(self, src_tokens: Tensor, src_lengths: Tensor) -> Tensor:
        real = src_tokens.ne(PAD).unsqueeze(-1).to(self.table.dtype)
        return (self.table[src_tokens] * real).sum(1) / real.sum(1)

    def reorder_encoder_out(self, encoder_out: Tensor, new_order: Tensor) -> Tensor:
        return encoder_out.index_select(0, new_order)


class ToyDecoder(FairseqIncrementalDecoder):
    """Logits from the source and from a position-weighted sum of the tokens; needs no cached state."""

    def __init__(self, dictionary: Dictionary, table: Tensor, places: Tensor, out: Tensor) -> None:
        super().__init__(dictionary)
        self.table, self.places, self.out = table, places, out

    def forward(
        self, prev_output_tokens: Tensor, encoder_out: Tensor, incremental_state: Any = None, **unused: Any
    ) -> tuple[Tensor, dict]:
        told = self.table[prev_output_tokens] * self.places[: prev_output_tokens.size(1), None]
        hidden = torch.tanh(told.cumsum(1) + encoder_out.unsqueeze(1))
        logits = hidden @ self.out
        return (logits if incremental_state is None else logits[:, -1:]), {"attn": None}

    def max_positions(self) -> int:
        return PLACES


def make_model(seed: int = 0, symbols: int = SYMBOLS, dtype: torch.dtype = torch.float64) -> FairseqEncoderDecoderModel:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    dictionary, table = make_dictionary(symbols), random(symbols, 8)
    encoder = ToyEncoder(dictionary, table)
    return FairseqEncoderDecoderModel(
        encoder, ToyDecoder(dictionary, table, 1 + random(PLACES) / 2, random(8, symbols))
    )


def make_sample(
    sources: list[list[int]], width: int | None = None, prefixes: list[list[int]] | None = None
) -> dict[str, Any]:
    """A batch of sources, padded to `width`; `prefixes` are the prompts."""
    width = width or max(map(len, sources))
    sample: dict[str, Any] = {
        "id": torch.arange(len(sources)),
        "net_input": {"groups": [{"src_tokens": pad(sources, width), "src_lengths": torch.tensor([len(row) for row in sources])}]},
    }
    if prefixes is not None:
        sample["prefix_tokens"] = pad(prefixes, max(map(len, prefixes)))
    return sample


def pad(rows: list[list[int]], width: int) -> Tensor:
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
