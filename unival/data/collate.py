"""Examples -> one batch: groups of examples with the same kinds of media, padding on the right."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unival.data.example import Example, Kind


def collate(examples: Sequence[Example], pad: int) -> dict[str, Any]:
    """Batch examples, those with the same kinds of media side by side: groups in order of appearance, examples in their order within.

    Returns:
        ``{id, stream, nsentences, ntokens, net_input, target, references, num_truncated, num_empty}``, with ``prefix_tokens``
        where targets have a given prefix; ``id`` and ``stream`` are the rows' numbers and those of their streams.  ``net_input`` is
        ``{"groups": [dict, …]}``, see :func:`collate_group`; everything else has a row per example of the first group, then of the
        second, ….  Of targets that need them: ``geometry`` (a dict per row) and ``loss_spans`` (ids that the loss of a row is over,
        None: all).  Without examples there is no ``net_input`` and no ``target``.
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
    return batch


def collate_group(examples: Sequence[Example], pad: int) -> dict[str, Any]:
    """Batch examples with the same kinds of media.

    Returns:
        ``{src_tokens`` b x s, ``src_lengths`` b, ``prev_output_tokens`` b x t``}``, and ``media`` where they have any: for the
        first medium of every example, the second, … an entry as :func:`collate_media` makes it; ``code_masks`` b where targets are codes.
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
    """One medium of each of b examples: ``{"modality", "values"`` n x …, ``"rows"`` b``}``.

    Examples that share their medium share one of the n items; ``rows`` says for every row of the group which item it has.
    """
    numbers: dict[int, int] = {}  # by identity
    rows = [numbers.setdefault(id(value), len(numbers)) for _, value in items]
    different = [items[rows.index(number)][1] for number in range(len(numbers))]
    return {"modality": items[0][0], "values": torch.stack(different), "rows": torch.tensor(rows)}


def source_rows(groups: Sequence[Mapping[str, Any]], pad: int) -> Tensor:
    """The source token ids of all rows of a batch, ``b x s``."""
    return padded([row for group in groups for row in group["src_tokens"]], pad)


def padded(rows: Sequence[Tensor], pad: int) -> Tensor:
    """Rows of ids -> ``b x t``, padded on the right."""
    return pad_sequence(list(rows), batch_first=True, padding_value=pad)
