"""Decoding steps replayed as a CUDA graph: the kernels of a step, a few hundred, are launched as one.

A graph replays the same kernels on the same memory, so nothing may depend on the step: a step attends to the whole capacity of the
decoder's cache, where the position bias masks what is not decoded yet; the position is a tensor; sentences that are finished stay,
until the search ends, as rows that nobody reads.  The first step of a search is the decoder's own, and allocates the cache.

Letters beyond the legend in ``unival/models/__init__.py``: ``r`` rows of the search, ``n`` sentences, ``p`` capacity of the cache
in tokens.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unival.errors import UserError
from unival.models.bias import padding_mask
from unival.models.cache import DecoderState, TargetPositions
from unival.models.decoder import UnivalDecoder
from unival.models.encoder import EncoderOut

WARM_UP = 2  # runs before a capture, in which libraries allocate what they keep


def capture(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Record the kernels of ``work`` on a GPU; the function returned replays them and returns the same tensor every time.

    Raises:
        UserError: the work cannot be captured, for example as it waits for a result of the GPU.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                result = work()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--cuda-graphs: a step of this decoder cannot be captured: {reason}") from error

    def replay() -> Tensor:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay


class StepGraph:
    """The decoding steps of a model's searches, all but the first of each; the graph is kept for searches of the same shape.

    Args:
        decoder: the decoder, in evaluation mode.
    """

    def __init__(self, decoder: UnivalDecoder) -> None:
        self.decoder = decoder
        self.shape: tuple[Any, ...] = ()  # of the searches that the tensors below are for
        self.replay: Callable[[], Tensor] | None = None  # -> features r x 1 x c
        self.cross: dict[str, Any] | None = None  # the source's cache that ``kv``, ``keys`` and ``mask`` are copies of

    def features(self, tokens: Tensor, encoder_out: EncoderOut, incremental_state: dict[str, Any]) -> Tensor:
        """Features (``r x 1 x c``) of the newest of ``tokens`` (``r x t``, t > 1); they are valid until the next step.

        Raises:
            UserError: the model is not on a GPU, or its steps cannot be captured.
        """
        state = self.decoder.state(incremental_state)
        rows, length = tokens.shape
        assert state.past is not None and state.filled == length - 1 > 0, "the first step of a search is the decoder's own"
        if not self.replay or state.past is not self.past:
            self.begin(state, encoder_out)
        elif self.cross is not encoder_out.cross:  # sentences were finished: the others moved up
            self.take_source(encoder_out)
        self.token[:rows].copy_(tokens[:, -1:])
        self.position.fill_(length - 1)
        if self.replay is None:
            self.replay = capture(self.compute, tokens.device)
        state.filled = length
        return self.replay()[:rows]

    def begin(self, state: DecoderState, encoder_out: EncoderOut) -> None:
        """Take the cache and the source of a search."""
        decoder, past = self.decoder, state.past
        assert past is not None and not decoder.training
        check_device(past.device)
        kinds = decoder.position_kinds(encoder_out.code_masks)
        sizes = [past.shape, encoder_out.cross["kv"][0][0].shape, encoder_out.cross["positions"].shape]
        autocast = torch.is_autocast_enabled(past.device.type)
        addresses = tuple(weight.data_ptr() for weight in decoder.parameters())
        shape = (kinds, *sizes, state.capacity, past.dtype, past.device, autocast, addresses)
        if shape != self.shape:
            self.shape, self.replay = shape, None
            self.allocate(kinds, past, encoder_out)
        self.past.zero_()[..., : state.filled, :] = past[..., : state.filled, :]  # what is masked must be finite all the same
        state.past = self.past
        for kind in kinds:
            self.take_positions(kind, state.positions[kind])
        self.take_source(encoder_out)

    def allocate(self, kinds: tuple[str, ...], past: Tensor, encoder_out: EncoderOut) -> None:
        """Make the tensors that the graph reads and writes."""
        rows, device = past.size(2), past.device
        self.kinds = kinds
        self.past = torch.empty_like(past)
        self.token = torch.full((rows, 1), self.decoder.dictionary.eos(), device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.kv = [(torch.zeros_like(k), torch.zeros_like(v)) for k, v in encoder_out.cross["kv"]]
        self.keys = torch.zeros_like(encoder_out.cross["positions"])  # [n x] h x s x d
        self.mask = torch.zeros_like(padding_mask(encoder_out.padding, self.keys.dtype))  # n x 1 x 1 x s
        has_codes = encoder_out.code_masks is not None
        self.code_masks = torch.zeros_like(encoder_out.padding[:, 0]) if has_codes else None  # n
        self.code_rows = torch.zeros(rows, dtype=torch.bool, device=device) if has_codes else None
        self.positions: dict[str, TargetPositions] = {}
        self.biases: dict[str, list[Tensor]] = {}  # kind -> a bias h x p x p per layer

    def take_positions(self, kind: str, given: TargetPositions) -> None:
        """Copy all that depends on target positions and weights alone."""
        p = given.absolute.size(-1)
        biases = [self.decoder.layer_bias(i, kind, given, 0, p) for i in range(len(self.decoder.layers))]
        if kind not in self.positions:
            self.positions[kind] = TargetPositions(given.raw.clone(), given.absolute, given.cross_queries.clone(), given.buckets)
            self.biases[kind] = [bias.clone() for bias in biases]
            return
        self.positions[kind].raw.copy_(given.raw)
        self.positions[kind].cross_queries.copy_(given.cross_queries)
        for own, bias in zip(self.biases[kind], biases, strict=True):
            own.copy_(bias)

    def take_source(self, encoder_out: EncoderOut) -> None:
        """Copy what depends on the source; with fewer sentences than at first, to the first ones."""
        n = len(encoder_out.padding)
        for own, given in zip(self.kv, encoder_out.cross["kv"], strict=True):
            own[0][:n].copy_(given[0])
            own[1][:n].copy_(given[1])
        keys = encoder_out.cross["positions"]
        (self.keys[:n] if keys.dim() == 4 else self.keys).copy_(keys)
        self.mask[:n].copy_(padding_mask(encoder_out.padding, self.mask.dtype))
        if self.code_masks is not None:
            rows = self.decoder.decoder_rows(encoder_out.code_masks, encoder_out)
            assert self.code_rows is not None and encoder_out.code_masks is not None and rows is not None
            self.code_masks[:n].copy_(encoder_out.code_masks)
            self.code_rows[: len(rows)].copy_(rows)
        self.cross = encoder_out.cross

    def compute(self) -> Tensor:
        """The features (``r x 1 x c``) of ``token`` at ``position``; as :meth:`UnivalDecoder.forward` in incremental decoding."""
        decoder, at = self.decoder, self.position
        x = decoder.embed(self.token, self.code_rows, {kind: p.raw.index_select(0, at) for kind, p in self.positions.items()})
        queries = {kind: p.cross_queries.index_select(1, at) for kind, p in self.positions.items()}
        keys = self.keys.transpose(-1, -2)
        cross_bias = decoder.choose({kind: q @ keys * decoder.bias_scale for kind, q in queries.items()}, self.code_masks) + self.mask
        attributes = decoder.attributes(self.code_rows, x.device)
        for i, layer in enumerate(decoder.layers):
            bias = decoder.choose({kind: biases[i].index_select(1, at) for kind, biases in self.biases.items()}, self.code_rows)
            x, _ = layer(x, attributes, bias, self.kv[i], cross_bias, None, partial(self.extend, i))
        return decoder.layer_norm(x)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's newest key and value (``r x h x 1 x d``) to the cache; those of its whole capacity, ``r x h x p x d``."""
        keys, values = self.past[layer]
        return keys.index_copy_(2, self.position, k), values.index_copy_(2, self.position, v)


def check_device(device: torch.device) -> None:
    """Refuse a device without CUDA graphs.

    Raises:
        UserError: it has none.
    """
    if device.type != "cuda":
        raise UserError(f"--cuda-graphs needs a GPU, and the model is on {device}")


def step_graphs(models: Iterable[nn.Module]) -> list[StepGraph]:
    """A graph for the decoder of every model of an ensemble.

    Raises:
        UserError: one has a decoder of another kind.
    """
    decoders = [model.decoder for model in models]
    strange = [type(decoder).__name__ for decoder in decoders if not isinstance(decoder, UnivalDecoder)]
    if strange:
        raise UserError(f"--cuda-graphs: only decoders of this package can be captured, not {strange[0]}")
    return [StepGraph(decoder) for decoder in decoders if isinstance(decoder, UnivalDecoder)]
