"""Examples -> one batch: groups of examples with the same kinds of media, padding on the right."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unival.data.example import Example, Kind


def collate(examples: Sequence[Example], pad: int) -> dict[str, Any]:
    """Batch examples in groups with the same kinds of media; groups are in order of appearance, and examples stay in order within one.

    Returns:
        ``{id, stream, nsentences, ntokens, net_input, target, references, num_truncated, num_empty}``, with ``prefix_tokens``
        if targets have a given prefix.  ``id`` (b) and ``stream`` (b) are the numbers of rows and streams.  ``net_input`` is
        ``{"groups": [dict, …]}``, see :func:`collate_group`; all other values have one entry per example, group after group.  Targets
        that need them add ``geometry`` (a dict per row), ``loss_spans`` (per row the range of ids that the loss is over; None: all) and
        ``conf`` (b, float64: the weight of the row's loss); ``outside`` (b, True: the answer is no candidate) is there if any is.
        Without examples there is no ``net_input`` and no ``target``.
    """
    by_kind: dict[Kind, list[Example]] = {}
    for example in examples:
        by_kind.setdefault(example.kind, []).append(example)
    examples = [example for group in by_kind.values() for example in group]
    batch: dict[str, Any] = {
        "id": torch.tensor([example.row for example in examples], dtype=torch.long),
        "stream": torch.tensor([example.stream for example in examples], dtype=torch.long),
        "nsentences": len(examples),
        "ntokens": 0,
        "references": [example.references for example in examples],
        "num_truncated": sum(example.truncated for example in examples),
        "num_empty": sum(example.empty for example in examples),
    }
    if not examples:
        return batch
    target = padded([example.target for example in examples], pad)
    net_input = {"groups": [collate_group(group, pad) for group in by_kind.values()]}
    batch |= {"ntokens": int(target.ne(pad).sum()), "net_input": net_input, "target": target}
    if any(len(example.prefix) for example in examples):
        batch["prefix_tokens"] = padded([example.prefix for example in examples], pad)
    if any(example.geometry for example in examples):
        batch["geometry"] = [example.geometry for example in examples]
    if any(example.loss_span for example in examples):
        batch["loss_spans"] = [example.loss_span for example in examples]
    if any(example.is_outside for example in examples):
        batch["outside"] = torch.tensor([example.is_outside for example in examples])
    if any(example.conf is not None for example in examples):  # float64: fairseq would halve the precision of float32
        conf = [1.0 if example.conf is None else example.conf for example in examples]
        batch["conf"] = torch.tensor(conf, dtype=torch.float64)
    return batch


def collate_group(examples: Sequence[Example], pad: int) -> dict[str, Any]:
    """Batch examples with the same kinds of media.

    Returns:
        ``{src_tokens`` b x s, ``src_lengths`` b, ``prev_output_tokens`` b x t``}``, and, if there are any, ``media``:
        a list with one entry of :func:`collate_media` per media slot; ``code_masks`` (b, True: image codes) if targets are image codes.
    """
    group: dict[str, Any] = {
        "src_tokens": padded([example.source for example in examples], pad),
        "src_lengths": torch.tensor([len(example.source) for example in examples]),
        "prev_output_tokens": padded([example.prev_output for example in examples], pad),
    }
    media = [collate_media(items) for items in zip(*(example.media for example in examples), strict=True)]
    if media:
        group["media"] = media
    if examples[0].has_codes:
        group["code_masks"] = torch.ones(len(examples), dtype=torch.bool)
    return group


def collate_media(items: Sequence[tuple[str, Tensor]]) -> dict[str, Any]:
    """Collate one media slot of b examples: ``{"modality", "values"`` n x …, ``"rows"`` b``}``.

    Examples with the same medium share one of the n items; ``rows`` has the index of each row's item.
    """
    numbers: dict[int, int] = {}  # by identity
    rows = [numbers.setdefault(id(value), len(numbers)) for _, value in items]
    different = [items[rows.index(number)][1] for number in range(len(numbers))]
    return {"modality": items[0][0], "values": stacked(different), "rows": torch.tensor(rows)}


def stacked(values: Sequence[Tensor]) -> Tensor:
    """n tensors of one shape -> ``n x …``, in the first one's order in memory: torch would reorder pixels whose channels are last."""
    strides = values[0].stride()
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    result = torch.stack([value.permute(order) for value in values])
    return result.permute(0, *(1 + order.index(axis) for axis in range(len(order))))


def source_rows(groups: Sequence[Mapping[str, Any]], pad: int) -> Tensor:
    """The source token ids of all rows of a batch, ``b x s``."""
    return padded([row for group in groups for row in group["src_tokens"]], pad)


def padded(rows: Sequence[Tensor], pad: int) -> Tensor:
    """Rows of ids -> ``b x t``, padded on the right."""
    return pad_sequence(list(rows), batch_first=True, padding_value=pad)
