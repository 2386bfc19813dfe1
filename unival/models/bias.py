"""Relative-position buckets and the position bias of attention, computed once per length and grid.

Positions enter attention only as a bias on the scores: an absolute term, shared by all layers, from two projections of the
normalised position embeddings, and a relative term per layer from a table that a bucket indexes.  Neither depends on the
sample, so both are computed without a batch axis (unless patches are sampled, when every row has positions of its own), and
padding is a mask of its own.  Buckets are whole numbers that nothing learns: they are kept for the grids and lengths seen last.
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unival.modalities.base import grid_positions


def token_buckets(
    length: int, bucket_size: int = 256, max_positions: int = 1024, device: torch.device | None = None
) -> Tensor:
    """Buckets of text positions: exact up to half the bucket size, logarithmic beyond.

    Returns:
        LongTensor ``t x t``; entry ``i, j`` is the row of the relative table (``2 * bucket_size - 1`` rows) for query i, key j.
    """
    positions = torch.arange(length, device=device)
    return token_bucket_rows(positions, positions, bucket_size, max_positions)


def token_bucket_rows(queries: Tensor, keys: Tensor, bucket_size: int = 256, max_positions: int = 1024) -> Tensor:
    """Buckets for some query positions against some key positions: LongTensor ``q x k``."""
    relative = queries[:, None] - keys[None, :]
    middle = bucket_size // 2
    distance = relative.abs().clamp(min=middle).double()
    scale = math.log((max_positions - 1) / middle)
    far = torch.ceil(torch.log(distance / middle) / scale * (middle - 1)).long() + middle
    bucket = torch.where(relative.abs() <= middle, relative, far * relative.sign())
    return bucket + bucket_size - 1


def image_bucket_rows(queries: Tensor, keys: Tensor, bucket_size: int = 42) -> Tensor:
    """Buckets of 2-D positions by row and column difference; the last three buckets are for the special position 0.

    Args:
        queries, keys: position ids ``... x q`` and ``... x k``.

    Returns:
        LongTensor ``... x q x k`` of rows of the relative table (``(2 * bucket_size - 1)^2 + 3`` rows).
    """
    span = 2 * bucket_size - 1
    total = image_bucket_count(bucket_size)
    q, k = queries[..., :, None], keys[..., None, :]
    row = (q - 1).div(bucket_size, rounding_mode="floor") - (k - 1).div(bucket_size, rounding_mode="floor")
    column = (q - 1).remainder(bucket_size) - (k - 1).remainder(bucket_size)
    bucket = (row + bucket_size - 1) * span + column + bucket_size - 1
    bucket = torch.where((q == 0) & (k != 0), torch.full_like(bucket, total - 3), bucket)
    bucket = torch.where((q != 0) & (k == 0), torch.full_like(bucket, total - 2), bucket)
    return torch.where((q == 0) & (k == 0), torch.full_like(bucket, total - 1), bucket)


def code_positions(
    length: int, code_image_size: int, bucket_size: int = 42, device: torch.device | None = None
) -> Tensor:
    """Position ids of a decoder row that holds image codes: bos at 0, then the grid of codes row by row.

    Beyond the grid (eos and padding) every position is 1024, as in the published models.
    """
    side = code_image_size // 8  # one code covers 8 x 8 pixels
    ids = torch.full((max(length, side * side + 1),), 1024, dtype=torch.long, device=device)
    ids[0] = 0
    ids[1 : side * side + 1] = grid_positions(side, side, bucket_size, device)
    return ids[:length]


# The same tensor for the same lengths, by which its buckets are found again
kept_code_positions = functools.lru_cache(maxsize=8)(torch.inference_mode(False)(code_positions))


def relative_tables(num_buckets: int, num_heads: int, layers: int) -> nn.ModuleList:
    """One learned scalar per bucket and head, in a table per layer."""
    return nn.ModuleList(nn.Embedding(num_buckets, num_heads) for _ in range(layers))


def token_bucket_count(bucket_size: int) -> int:
    """Rows of the relative table that :func:`token_bucket_rows` indexes."""
    return 2 * bucket_size - 1


def image_bucket_count(bucket_size: int) -> int:
    """Rows of the relative table that :func:`image_bucket_rows` indexes."""
    return (2 * bucket_size - 1) ** 2 + 3


def padding_mask(padding: Tensor, dtype: torch.dtype) -> Tensor:
    """-inf on the scores of padded keys: ``b x s`` (True: padded) -> ``b x 1 x 1 x s``."""
    return torch.zeros(padding.shape, dtype=dtype, device=padding.device).masked_fill(padding, float("-inf"))[
        :, None, None, :
    ]


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def kept_token_buckets(length: int, bucket_size: int, device: torch.device) -> Tensor:
    """Buckets of text positions, kept: LongTensor ``t x t``; see :func:`token_buckets`."""
    return token_buckets(length, bucket_size, device=device)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def kept_image_buckets(ids: Tensor, bucket_size: int) -> Tensor:
    """Buckets of a grid's position ids ``l`` against each other: LongTensor ``l x l``, kept for the very tensor that is given."""
    return image_bucket_rows(ids, ids, bucket_size)


def join_buckets(token_rows: int, image_rows: int, blocks: tuple[Tensor, ...], are_text: tuple[bool, ...]) -> Tensor:
    """The buckets of segments in one: rows of both tables and, between segments, of the row of zeros that :func:`joined_tables` adds.

    Args:
        token_rows, image_rows: sizes of the tables.
        blocks: buckets of every segment, ``l x l``, or ``b x l x l`` where rows have positions of their own.
        are_text: which of them are rows of the table of text.

    Returns:
        LongTensor ``[b x] s x s``.
    """
    batch = max((block.shape[:-2] for block in blocks), key=len)
    total = sum(block.size(-1) for block in blocks)
    joined = torch.full((*batch, total, total), token_rows + image_rows, device=blocks[0].device)
    start = 0
    for block, is_text in zip(blocks, are_text, strict=True):
        end = start + block.size(-1)
        joined[..., start:end, start:end] = block if is_text else block + token_rows
        start = end
    return joined


# Kept for the very blocks that are given: those of :func:`kept_token_buckets` and :func:`kept_image_buckets`
kept_joined_buckets = functools.lru_cache(maxsize=8)(torch.inference_mode(False)(join_buckets))


def joined_tables(token_table: nn.Module, image_table: nn.Module, with_media: bool) -> Tensor:
    """A layer's relative tables and a row of zeros in one: what :func:`join_buckets` indexes.

    ``with_media``: whether the image table is looked into.  If not it gets no gradient, rather than one of zeros, with which weight
    decay would move it.
    """
    tokens, weight = token_table.get_parameter("weight"), image_table.get_parameter("weight")
    images = weight if with_media else weight.detach()
    return torch.cat([tokens, images, images.new_zeros(1, images.size(1))])


def relative_bias(table: Tensor, buckets: Tensor) -> Tensor:
    """Look the buckets up in a table ``rows x heads``: ``... x q x k`` -> ``... x heads x q x k``."""
    return F.embedding(buckets, table).movedim(-1, -3)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``... x t x d`` -> ``... x heads x t x d / heads``."""
    return x.unflatten(-1, (num_heads, -1)).transpose(-2, -3)
