"""Casting keeps ties and loses no value in silence."""

import pytest
import torch

from unival.checkpoints.precision import cast
from unival.errors import UserError


def test_ties_and_whole_numbers_stay():
    table = torch.randn(3, 2)
    found = cast({"a": table, "b": table, "row": table[:1], "count": torch.tensor(3)}, torch.float16)
    assert found["a"].data_ptr() == found["b"].data_ptr() and found["row"].shape == (1, 2)
    assert found["a"].dtype == torch.float16 and found["count"].dtype == torch.int64
    assert cast({"a": table}, None)["a"] is table


def test_values_beyond_the_type_are_refused():
    state = {"fine": torch.tensor([65504.0, -65504.0]), "inf": torch.tensor([float("inf"), float("nan"), 1.0])}
    assert cast(state, torch.float16)["inf"][0].isinf()  # was infinite before
    with pytest.raises(UserError, match=r"2 keys with values beyond float16's largest, 65504: a \(up to 1e\+06\), b \(up to 70000\)"):
        cast({**state, "a": torch.tensor([1e5, -1e6, float("inf")]), "b": torch.tensor(7e4)}, torch.float16)
    with pytest.raises(UserError, match="beyond float32's largest"):
        cast({"a": torch.tensor(1e300, dtype=torch.float64)}, torch.float32)
