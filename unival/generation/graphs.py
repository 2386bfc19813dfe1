"""Decoding steps replayed as a CUDA graph: the kernels of a step, a few hundred, are launched as one.

A graph replays the same kernels on the same memory, so nothing may depend on the step: a step attends to the whole capacity of the
decoder's cache, where the position bias masks what is not decoded yet; the position is a tensor; sentences that are finished stay,
until the search ends, as rows that nobody reads; sizes are rounded up.  The first step of a search is the decoder's own, and
allocates the cache.

Letters beyond the legend in ``unival/models/__init__.py``: ``r`` rows of the search, ``n`` sentences, ``p`` capacity of the cache
in tokens.
"""

import weakref
from collections import OrderedDict
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
TOKENS, SOURCE = 32, 64  # capacities and source lengths are rounded up to multiples of these, so that fewer graphs are captured
KEPT = 4  # graphs of a model: batches whose groups have several kinds of media alternate between shapes


def capture(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Record the kernels of ``work`` on a GPU; the function returned replays them and returns the same tensor every time.

    Raises:
        UserError: the work cannot be captured, for example as it waits for a result of the GPU.
    """
    failure: Exception | None = None
    with torch.cuda.device(device):
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        try:
            # a stream of this device, which is left whatever happens; other threads, such as those that pin batches, may go on
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    work()
                with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                    try:
                        result = work()
                    except Exception as error:  # the end of the capture raises another one
                        failure = error
                        raise
        except RuntimeError as error:
            failure = failure or error
            if isinstance(failure, torch.OutOfMemoryError):
                raise failure from None
            reason = str(failure).splitlines()[0]
            raise UserError(f"--cuda-graphs: a step of this decoder cannot be captured: {reason}") from failure
        current.wait_stream(side)

    def replay() -> Tensor:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay


class StepGraphs:
    """The steps of a model's searches, all but the first of each; graphs are kept for searches of the latest shapes.

    Args:
        decoder: the decoder, in evaluation mode.
    """

    def __init__(self, decoder: UnivalDecoder) -> None:
        self.decoder = decoder
        self.kept: OrderedDict[tuple[Any, ...], StepGraph] = OrderedDict()  # the latest one last

    def __getstate__(self) -> dict[str, Any]:
        return {"decoder": self.decoder, "kept": OrderedDict()}  # graphs cannot be copied

    def features(self, tokens: Tensor, encoder_out: EncoderOut, incremental_state: dict[str, Any]) -> Tensor:
        """Features (``r x 1 x c``) of the newest of ``tokens`` (``r x t``, t > 1); they are valid until the next step.

        Raises:
            UserError: the model is not on a GPU, or its steps cannot be captured.
        """
        state = self.decoder.state(incremental_state)
        assert state.past is not None and state.filled == tokens.size(1) - 1 > 0, "the first step of a search is the decoder's own"
        graph = next(reversed(self.kept.values()), None)
        if graph is None or graph.past is not state.past:
            graph = self.begin(state, encoder_out)
        return graph.step(tokens, encoder_out, state)

    def begin(self, state: DecoderState, encoder_out: EncoderOut) -> "StepGraph":
        """The graph for a search, with its cache and its source."""
        past, decoder = state.past, self.decoder
        assert past is not None
        assert not decoder.training, "searches with CUDA graphs are for models in evaluation mode"
        check_device(past.device)
        kinds = decoder.position_kinds(encoder_out.code_masks)
        sizes = past.size(2), rounded(state.capacity, TOKENS), len(encoder_out.padding), rounded(encoder_out.padding.size(1), SOURCE)
        has_rows = encoder_out.cross["positions"].dim() == 4, encoder_out.code_masks is not None
        autocast = torch.is_autocast_enabled(past.device.type), torch.get_autocast_dtype(past.device.type)
        addresses = tuple(weight.data_ptr() for weight in decoder.parameters())
        shape = (kinds, sizes, has_rows, past.dtype, past.device, autocast, torch.is_inference_mode_enabled(), addresses)
        graph = self.kept.pop(shape, None) or StepGraph(decoder, kinds, sizes, past, encoder_out)
        graph.begin(state, encoder_out)
        self.kept[shape] = graph
        if len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return graph


class StepGraph:
    """The steps of searches of one shape, and the tensors that they read and write.

    Args:
        decoder: the decoder.
        kinds: kinds of targets, see :meth:`UnivalDecoder.position_kinds`.
        sizes: r, p, n and s, the length of the source with padding.
        past: a cache ``layers x 2 x r x h x … x d`` of the same type and device.
        encoder_out: an encoded source of the same kind.
    """

    def __init__(
        self, decoder: UnivalDecoder, kinds: tuple[str, ...], sizes: tuple[int, int, int, int], past: Tensor, encoder_out: EncoderOut
    ) -> None:
        self.decoder, self.kinds = decoder, kinds
        r, self.p, n, s = sizes
        self.past = past.new_zeros(*past.shape[:4], self.p, past.size(5))
        self.token = torch.full((r, 1), decoder.dictionary.eos(), device=past.device)
        self.position = torch.zeros(1, dtype=torch.long, device=past.device)
        self.kv = [(k.new_zeros(n, k.size(1), s, k.size(3)), v.new_zeros(n, v.size(1), s, v.size(3))) for k, v in encoder_out.cross["kv"]]
        keys = encoder_out.cross["positions"]  # [n x] h x s x d
        self.keys = keys.new_zeros(*keys.shape[:-2], s, keys.size(-1))
        self.mask = keys.new_zeros(n, 1, 1, s)
        has_codes = encoder_out.code_masks is not None
        self.code_masks = torch.zeros(n, dtype=torch.bool, device=past.device) if has_codes else None
        self.code_rows = torch.zeros(r, dtype=torch.bool, device=past.device) if has_codes else None
        self.raw: dict[str, Tensor] = {}  # kind -> position embeddings, p x c
        self.queries: dict[str, Tensor] = {}  # kind -> position queries of the cross-attention, h x p x d
        self.biases: dict[str, list[Tensor]] = {}  # kind -> a bias of the self-attention per layer, h x p x p
        self.source: weakref.ref[Tensor] | None = None  # the keys of the first layer that ``kv`` has
        self.replay: Callable[[], Tensor] | None = None  # -> features r x 1 x c

    def step(self, tokens: Tensor, encoder_out: EncoderOut, state: DecoderState) -> Tensor:
        """See :meth:`StepGraphs.features`."""
        rows, length = tokens.shape
        if self.source is None or self.source() is not encoder_out.cross["kv"][0][0]:  # sentences were finished: the others moved up
            self.take_source(encoder_out)
        self.token[:rows].copy_(tokens[:, -1:])
        self.position.fill_(length - 1)
        if self.replay is None:
            self.replay = capture(self.compute_uncached, tokens.device)
        state.filled = length
        return self.replay()[:rows]

    def begin(self, state: DecoderState, encoder_out: EncoderOut) -> None:
        """Take the cache, the positions and the source of a search."""
        assert state.past is not None
        self.past.zero_()[..., : state.filled, :] = state.past[..., : state.filled, :]  # what is masked must be finite all the same
        state.past = self.past
        for kind in self.kinds:
            self.take_positions(kind, state.positions[kind])
        self.take_source(encoder_out)

    def take_positions(self, kind: str, given: TargetPositions) -> None:
        """Copy all that depends on target positions and weights alone; there may be fewer positions than p."""
        known = given.absolute.size(-1)
        layers = range(len(self.decoder.layers))
        if kind not in self.raw:
            self.raw[kind] = given.raw.new_zeros(self.p, given.raw.size(1))
            self.queries[kind] = given.cross_queries.new_zeros(given.cross_queries.size(0), self.p, given.cross_queries.size(2))
            self.biases[kind] = [given.absolute.new_zeros(given.absolute.size(0), self.p, self.p) for _ in layers]
        self.raw[kind][:known] = given.raw
        self.queries[kind][:, :known] = given.cross_queries
        for i, bias in zip(layers, self.biases[kind], strict=True):
            bias.fill_(float("-inf"))[:, :known, :known] = self.decoder.layer_bias(i, kind, given, 0, known)

    def take_source(self, encoder_out: EncoderOut) -> None:
        """Copy what depends on the source; with fewer sentences than at first, to the first ones."""
        n, s = encoder_out.padding.shape
        for own, given in zip(self.kv, encoder_out.cross["kv"], strict=True):
            own[0][:n, :, :s] = given[0]
            own[1][:n, :, :s] = given[1]
        keys = encoder_out.cross["positions"]
        (self.keys[:n] if keys.dim() == 4 else self.keys)[..., :s, :] = keys
        self.mask[:n].fill_(float("-inf"))[..., :s] = padding_mask(encoder_out.padding, self.mask.dtype)
        if self.code_masks is not None:
            rows = self.decoder.decoder_rows(encoder_out.code_masks, encoder_out)
            assert self.code_rows is not None and encoder_out.code_masks is not None and rows is not None
            self.code_masks[:n] = encoder_out.code_masks
            self.code_rows[: len(rows)] = rows
        self.source = weakref.ref(encoder_out.cross["kv"][0][0])

    def compute_uncached(self) -> Tensor:
        """:meth:`compute`, under autocast without its cache of converted weights, which is freed while the graph is still in use."""
        device = self.past.device.type
        is_on = torch.is_autocast_enabled(device)
        with torch.autocast(device, torch.get_autocast_dtype(device), enabled=is_on, cache_enabled=False):
            return self.compute()

    def compute(self) -> Tensor:
        """The features (``r x 1 x c``) of ``token`` at ``position``; as :meth:`UnivalDecoder.forward` in incremental decoding."""
        decoder, at = self.decoder, self.position
        x = decoder.embed(self.token, self.code_rows, {kind: raw.index_select(0, at) for kind, raw in self.raw.items()})
        queries = {kind: q.index_select(1, at) for kind, q in self.queries.items()}
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
        raise UserError(f"--cuda-graphs needs a GPU, and the model is on {device} (also cuda_graphs of --eval-args and --scst-args)")


def rounded(size: int, step: int) -> int:
    """``size``, rounded up to a multiple of ``step``."""
    return -(-size // step) * step


def step_graphs(models: Iterable[nn.Module]) -> list[StepGraphs]:
    """The graphs of the decoder of every model of an ensemble.

    Raises:
        UserError: one has a decoder of another kind.
    """
    decoders = [model.decoder for model in models]
    strange = [type(decoder).__name__ for decoder in decoders if not isinstance(decoder, UnivalDecoder)]
    if strange:
        raise UserError(f"--cuda-graphs: only decoders of this package can be captured, not {strange[0]}")
    return [StepGraphs(decoder) for decoder in decoders if isinstance(decoder, UnivalDecoder)]
