"""Examples -> one batch: padding on the right, media grouped by slot."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unival.data.example import Example


def collate(examples: Sequence[Example], pad: int) -> dict[str, Any]:
    """Batch examples.

    Returns:
        ``{id, nsentences, ntokens, net_input, target, references, num_truncated, num_empty}``, with ``prefix_tokens`` where
        targets have a given beginning.  ``net_input["media"]`` has one entry per media slot: the values of the rows that have
        it, and those rows.  Of targets that need them: ``geometry`` (a dict per row), ``loss_spans`` (ids that the loss of a row is over,
        None: all) and ``net_input["code_masks"]``.  Without examples there is no ``net_input`` and no ``target``.
    """
    batch: dict[str, Any] = {
        "id": torch.tensor([example.row for example in examples], dtype=torch.long),
        "nsentences": len(examples),
        "ntokens": 0,
        "references": [example.references for example in examples],
        "num_truncated": sum(example.truncated for example in examples),
        "num_empty": sum(example.empty for example in examples),
    }
    if not examples:
        return batch
    target = padded([example.target for example in examples], pad)
    net_input: dict[str, Any] = {
        "src_tokens": padded([example.source for example in examples], pad),
        "src_lengths": torch.tensor([len(example.source) for example in examples]),
        "prev_output_tokens": padded([example.prev_output for example in examples], pad),
    }
    media = group_media(examples)
    if media:
        net_input["media"] = media
    if any(example.has_codes for example in examples):
        net_input["code_masks"] = torch.tensor([example.has_codes for example in examples])
    batch |= {"ntokens": int(target.ne(pad).sum()), "net_input": net_input, "target": target}
    if any(len(example.prefix) for example in examples):
        batch["prefix_tokens"] = padded([example.prefix for example in examples], pad)
    if any(example.geometry for example in examples):
        batch["geometry"] = [example.geometry for example in examples]
    if any(example.loss_span for example in examples):
        batch["loss_spans"] = [example.loss_span for example in examples]
    return batch


def padded(rows: Sequence[Tensor], pad: int) -> Tensor:
    """Rows of ids -> ``b x t``, padded on the right."""
    return pad_sequence(list(rows), batch_first=True, padding_value=pad)


def group_media(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Group the k-th image (video, …) of all rows: ``{"modality", "values" n x …, "rows" n}`` per group, in order of appearance."""
    groups: dict[tuple[str, int], list[tuple[int, Tensor]]] = {}
    for row, example in enumerate(examples):
        seen: dict[str, int] = {}
        for name, value in example.media:
            seen[name] = seen.get(name, -1) + 1
            groups.setdefault((name, seen[name]), []).append((row, value))
    return [
        {
            "modality": name,
            "values": torch.stack([value for _, value in items]),
            "rows": torch.tensor([row for row, _ in items]),
        }
        for (name, _), items in groups.items()
    ]
