"""Media beyond the limit of memory are the same values, in files."""

import pytest
import torch

from unival.tasks.sweeping import store
from unival.tasks.sweeping.store import MediaStore


@pytest.mark.parametrize("most", [0, 200, 10**6])
def test_values_are_kept(most, monkeypatch):
    monkeypatch.setattr(store, "SEGMENT", 256)
    values = [torch.arange(0, count).to(dtype).view(1, -1) for count, dtype in ((100, torch.uint8), (70, torch.float32), (3, torch.int16))]
    batches = [{"net_input": {"groups": [{"media": [{"values": value.clone()}]}, {}]}} for value in (*values, *values)]
    kept = MediaStore(most)
    found = [kept.keep(batch)["net_input"]["groups"][0]["media"][0]["values"] for batch in batches]
    assert all(torch.equal(value, expected) and value.dtype == expected.dtype for value, expected in zip(found, values * 2, strict=True))
    total = sum(value.nbytes for value in found)
    assert kept.in_memory <= most and kept.in_memory + kept.in_files == total
    assert (kept.in_files == 0) == (most >= total)
