"""Relative-position buckets and the position bias of attention, computed once per length and grid.

Positions enter attention only as a bias on the scores: an absolute term, shared by all layers, from two projections of the
normalised position embeddings, and a relative term per layer from a table that is indexed by buckets of position differences.  Neither
depends on the sample: both are computed without a batch axis (unless patches are sampled, then every row has its own positions), and
padding is a separate mask.  Buckets are not learned: they are cached for the latest grids and lengths.
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
        int64, ``t x t``; entry ``i, j`` is the row of the relative table (``2 * bucket_size - 1`` rows) for query i and key j.
    """
    positions = torch.arange(length, device=device)
    return token_bucket_rows(positions, positions, bucket_size, max_positions)


def token_bucket_rows(queries: Tensor, keys: Tensor, bucket_size: int = 256, max_positions: int = 1024) -> Tensor:
    """Buckets of query positions ``q`` and key positions ``k``: int64, ``q x k``."""
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
        queries, keys: position ids, ``... x q`` and ``... x k``.

    Returns:
        int64, ``... x q x k``: rows of the relative table (``(2 * bucket_size - 1)^2 + 3`` rows).
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
    """Position ids of image codes in the decoder: 0 for bos, then the grid of codes row by row.

    After the grid (eos and padding) all are 1024, as in the published models.
    """
    side = code_image_size // 8  # one code covers 8 x 8 pixels
    ids = torch.full((max(length, side * side + 1),), 1024, dtype=torch.long, device=device)
    ids[0] = 0
    ids[1 : side * side + 1] = grid_positions(side, side, bucket_size, device)
    return ids[:length]


# Returns the same tensor for the same arguments: ``kept_image_buckets`` finds the cached buckets by it
kept_code_positions = functools.lru_cache(maxsize=8)(torch.inference_mode(False)(code_positions))


def relative_tables(num_buckets: int, num_heads: int, layers: int) -> nn.ModuleList:
    """A table per layer with one learned scalar per bucket and head."""
    return nn.ModuleList(nn.Embedding(num_buckets, num_heads) for _ in range(layers))


def token_bucket_count(bucket_size: int) -> int:
    """Rows of the relative table that :func:`token_bucket_rows` indexes."""
    return 2 * bucket_size - 1


def image_bucket_count(bucket_size: int) -> int:
    """Rows of the relative table that :func:`image_bucket_rows` indexes."""
    return (2 * bucket_size - 1) ** 2 + 3


def padding_mask(padding: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask to add to scores: ``b x s`` (True: padding) -> ``b x 1 x 1 x s``, -inf at padding, else 0."""
    return torch.zeros(padding.shape, dtype=dtype, device=padding.device).masked_fill(padding, float("-inf"))[
        :, None, None, :
    ]


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def kept_token_buckets(length: int, bucket_size: int, device: torch.device) -> Tensor:
    """Cached buckets of text positions: int64, ``t x t``; see :func:`token_buckets`."""
    return token_buckets(length, bucket_size, device=device)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def kept_image_buckets(ids: Tensor, bucket_size: int) -> Tensor:
    """Cached buckets of a grid's position ids ``l``: int64, ``l x l``; found again by the tensor object, not by its values."""
    return image_bucket_rows(ids, ids, bucket_size)


def join_buckets(token_rows: int, image_rows: int, blocks: tuple[Tensor, ...], are_text: tuple[bool, ...]) -> Tensor:
    """Join the buckets of segments: they index the table of :func:`joined_tables`; between segments, its row of zeros.

    Args:
        token_rows, image_rows: number of rows of the two tables.
        blocks: buckets of each segment, ``l x l``, or ``b x l x l`` if rows have their own positions.
        are_text: for each segment, True: its buckets index the token table; False: the image table.

    Returns:
        int64, ``[b x] s x s``.
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


# Found again by the tensor objects ``blocks``, which ``kept_token_buckets`` and ``kept_image_buckets`` return
kept_joined_buckets = functools.lru_cache(maxsize=8)(torch.inference_mode(False)(join_buckets))


def joined_tables(token_table: nn.Module, image_table: nn.Module, with_media: bool) -> Tensor:
    """A layer's token table, image table and a row of zeros, concatenated: :func:`join_buckets` indexes it.

    ``with_media``: whether the image table is used.  If not, its gradient is None rather than zero, so that weight decay leaves it alone.
    """
    tokens, weight = token_table.get_parameter("weight"), image_table.get_parameter("weight")
    images = weight if with_media else weight.detach()
    return torch.cat([tokens, images, images.new_zeros(1, images.size(1))])


def relative_bias(table: Tensor, buckets: Tensor) -> Tensor:
    """Look up buckets in a table ``rows x h``: ``... x q x k`` -> ``... x h x q x k``."""
    return F.embedding(buckets, table).movedim(-1, -3)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``... x t x c`` -> ``... x h x t x d``."""
    return x.unflatten(-1, (num_heads, -1)).transpose(-2, -3)
