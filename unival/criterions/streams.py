"""Values of each stream of a mixture in a batch: loss, accuracy, counts, and the time that its rows take.

A batch of several streams has ``stream_names``, the names of all streams, and ``stream`` (b), the number of each row's.  All streams are
always logged, in one order, so that all ranks log the same.  The logged losses of streams have no weights: they are sums over tokens.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from fairseq.logging import metrics
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unival.criterions.weighting import group_sizes

LAST = 2000  # priority of the streams' values in lines of the log: after all others


class GroupRuns:
    """How a model runs the groups of a batch of several streams in training: it is timed, and learns nothing from rows of loss weight 0.

    The time of a group's forward pass stands for the whole.  It is shared equally by the group's rows, which are padded to one length: each
    costs the same.  On a GPU it is taken from events, which are read after the loss has waited for the same operations.
    """

    def __init__(self, model: nn.Module, sample: Mapping[str, Any]) -> None:
        self.sizes = group_sizes(sample)
        self.watches = [Stopwatch(sample["target"].device) for _ in self.sizes]
        off = self.switched_off(sample)
        self.is_silent = all(off)  # nothing learns from this batch
        self.contexts = [in_context(watch, model if is_off else None) for watch, is_off in zip(self.watches, off, strict=True)]

    @staticmethod
    def are_needed(sample: Mapping[str, Any]) -> bool:
        """Whether a batch has several streams, or loss weights."""
        return "stream_names" in sample or sample.get("stream_loss_weights") is not None

    def switched_off(self, sample: Mapping[str, Any]) -> list[bool]:
        """For each group, whether the loss weights of all its rows are 0."""
        weights = sample.get("stream_loss_weights")
        if weights is None or bool(weights.all()):
            return [False] * len(self.sizes)
        counts = weights.to(sample["stream"].device)[sample["stream"]] != 0
        return [not any(rows) for rows in map(Tensor.tolist, counts.split(self.sizes))]

    def seconds(self) -> Tensor:
        """The time of each row (b)."""
        device = self.watches[0].device
        parts = [torch.full((size,), watch.seconds() / size, device=device) for size, watch in zip(self.sizes, self.watches, strict=True)]
        return torch.cat(parts)


class Stopwatch:
    """Context manager that measures what a device does inside it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        self._times: list[float] = []

    def __enter__(self) -> None:
        self._mark(0)

    def __exit__(self, *error: object) -> None:
        self._mark(1)

    def _mark(self, number: int) -> None:
        if self._events:
            self._events[number].record(torch.cuda.current_stream(self.device))
        else:
            self._times.append(time.perf_counter())

    def seconds(self) -> float:
        """The measured time; on a GPU waits until it is over."""
        if self._events:
            self._events[1].synchronize()
            return self._events[0].elapsed_time(self._events[1]) / 1000
        return self._times[1] - self._times[0]


@contextlib.contextmanager
def in_context(watch: Stopwatch, unchanged: nn.Module | None) -> Iterator[None]:
    """Run a group, timed; ``unchanged``: the model, if it is to have neither gradients nor other statistics of it."""
    with watch, contextlib.nullcontext() if unchanged is None else without_traces(unchanged):
        yield


@contextlib.contextmanager
def without_traces(model: nn.Module) -> Iterator[None]:
    """Inside the context no gradients are computed; afterwards the running statistics of batch norms are as before."""
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.training]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    with torch.no_grad():
        yield
        for buffer, value in before:
            buffer.data.copy_(value)  # unseen by autograd: another group's backward pass has saved the buffer, and does not use its value


def by_stream(
    sample: Mapping[str, Any], tokens: Mapping[str, tuple[Tensor, Tensor]], copies: int, seconds: Tensor | None = None
) -> dict[str, Tensor]:
    """Sums per stream as ``<key>/<name of the stream>``: all streams, always in one order; 0 for a stream without rows in the batch.

    Args:
        sample: a batch; without ``stream_names`` there is only one stream, and the result is empty.
        tokens: by key, values of tokens and the row of each.
        copies: how often each row is in the batch's loss.
        seconds: b, the time of each row.
    """
    if "stream_names" not in sample:
        return {}
    streams: Tensor = sample["stream"]  # b
    sums = {key: (streams[rows], values) for key, (values, rows) in tokens.items()}
    sums["nsentences"] = streams, torch.full_like(streams, copies)
    if seconds is not None:
        sums["seconds"] = streams, seconds
    names = sample["stream_names"]
    totals = {key: values.new_zeros(len(names)).index_add_(0, owners, values) for key, (owners, values) in sums.items()}
    return {f"{key}/{name}": total[number] for number, name in enumerate(names) for key, total in totals.items()}


def log_streams(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
    """Log the values of all streams; the first output has their names.

    In training ``loss/<stream>`` and ``nll_loss/<stream>`` (base 2, per token), ``accuracy/<stream>`` (in percent, if reported), the sums
    ``ntokens/<stream>`` and ``nsentences/<stream>``, and ``time_share/<stream>``; in validation ``<stream>/loss`` and so on.
    """
    first = logging_outputs[0] if logging_outputs else {}
    names = [key.removeprefix("loss/") for key in first if key.startswith("loss/")]
    if not names:
        return
    keys = [key for key in SUMS if f"{key}/{names[0]}" in first]
    flat = [sum(log.get(f"{key}/{name}", 0) for log in logging_outputs) for name in names for key in keys]
    values = torch.stack(flat).tolist() if isinstance(flat[0], Tensor) else flat  # waits for the device once
    sums = [dict(zip(keys, values[i : i + len(keys)], strict=True)) for i in range(0, len(values), len(keys))]
    is_training = "seconds" in keys
    all_seconds = sum(of_stream["seconds"] for of_stream in sums) if is_training else 0.0
    for name, of_stream in zip(names, sums, strict=True):

        def called(key: str, name: str = name) -> str:
            return f"{key}/{name}" if is_training else f"{name}/{key}"

        for key in ("loss", "nll_loss"):
            mean = of_stream[key] / max(of_stream["ntokens"], 1) / math.log(2)
            metrics.log_scalar(called(key), mean, of_stream["ntokens"], priority=LAST, round=3)
        if "total" in keys:
            correct = 100 * of_stream["n_correct"] / max(of_stream["total"], 1)
            metrics.log_scalar(called("accuracy"), correct, of_stream["total"], priority=LAST, round=3)
        for key in ("ntokens", "nsentences"):
            metrics.log_scalar_sum(called(key), of_stream[key], priority=LAST)
        if is_training:
            share = of_stream["seconds"] / all_seconds if all_seconds else 0.0
            metrics.log_scalar(called("time_share"), share, all_seconds, priority=LAST, round=4)


SUMS = ("loss", "nll_loss", "ntokens", "n_correct", "total", "nsentences", "seconds")
