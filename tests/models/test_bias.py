"""Buckets of relative positions against the reference and by hand."""

import hashlib

import torch

from tests import golden
from unival.modalities.base import grid_positions
from unival.models.bias import code_positions, image_bucket_rows, token_buckets


def test_token_buckets_by_hand():
    """b = 4: exact up to 2; beyond, 2 + ceil(ln(r/2) / ln(15/2) * 1) = 3 for every distance up to 15; plus 3."""
    buckets = token_buckets(6, bucket_size=4, max_positions=16)
    assert buckets[:, 0].tolist() == [3, 4, 5, 6, 6, 6]
    assert buckets[0].tolist() == [3, 2, 1, 0, 0, 0]


def test_grid_and_code_positions_by_hand():
    assert grid_positions(2, 3, 42).tolist() == [1, 2, 3, 43, 44, 45]
    assert code_positions(7, 16, 42).tolist() == [0, 1, 2, 43, 44, 1024, 1024]


def test_image_buckets_by_hand():
    """b = 2: 3 x 3 differences, then three special buckets; ids 1 and 4 are opposite corners of the 2 x 2 grid."""
    ids = torch.tensor([0, 1, 4])
    assert image_bucket_rows(ids, ids, bucket_size=2).tolist() == [[11, 9, 9], [10, 4, 0], [10, 8, 4]]


def test_buckets_match_the_reference():
    reference = golden.numbers("buckets")
    for name, expected in reference["token"].items():
        size, limit = map(int, name.split(","))
        assert torch.equal(token_buckets(len(expected), size, limit), torch.tensor(expected)), name
    for name, expected in reference["image"].items():
        ids = torch.arange(len(expected))
        assert torch.equal(image_bucket_rows(ids, ids, int(name)), torch.tensor(expected)), name
    expected = reference["decoder_image_position_idx_code32"]
    assert torch.equal(code_positions(len(expected), 32), torch.tensor(expected))
    full = token_buckets(1024)
    assert full[0].tolist() == reference["token_256_row0"]
    digest = hashlib.sha256(full.contiguous().numpy().tobytes()).hexdigest()
    assert digest == reference["full_sha256"]["encoder.token_rp_bucket"][2]
    ids = torch.arange(42 * 42 + 1)
    digest = hashlib.sha256(image_bucket_rows(ids, ids).contiguous().numpy().tobytes()).hexdigest()
    assert digest == reference["full_sha256"]["encoder.image_rp_bucket"][2]
