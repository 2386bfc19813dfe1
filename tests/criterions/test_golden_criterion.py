"""The criterions alone, on the logits that the original's were measured on."""

from typing import Any

import pytest
import torch

from tests import golden
from tests.criterions.helpers import make, run


def criterion_cases() -> list[tuple[str, str, dict[str, Any]]]:
    """(name in the file, kind, options) of the cases with given logits; log_end is .75 where not named."""
    smooth = {"label_smoothing": 0.1}
    cases = [(f"ls eps={eps}", "ls", {"label_smoothing": eps}) for eps in (0.0, 0.1)]
    cases += [
        (f"el eps={eps} log_end={end}", "el", {"label_smoothing": eps, "log_end": end})
        for eps in (0.0, 0.1)
        for end in (0.5, 0.75, 1.0)
    ]
    drop = {**smooth, "drop_worst_ratio": 0.3, "drop_worst_after": 10}
    cases += [("ls conf", "ls", smooth), ("el conf", "el", smooth)]
    cases += [(f"{kind} drop_worst 0.3", kind, {**drop, "updates": 11}) for kind in ("ls", "el")]
    cases += [("ls drop_worst 0.3 before", "ls", {**drop, "updates": 10})]
    # the original ignores drop_best, so its value is the one without it
    cases += [("el drop_best 0.5 (ignored)", "el", smooth)]
    cases += [("ls rdrop a=1", "ls", {**smooth, "use_rdrop": True})]
    cases += [("ls rdrop a=2 drop_worst 0.3", "ls", {**drop, "updates": 11, "use_rdrop": True, "reg_alpha": 2.0})]
    cases += [("ls range 105,137", "ls", {**smooth, "constraint_range": "105,137"})]
    cases += [("ls ignore_prefix 2", "ls", {**smooth, "ignore_prefix_size": 2})]
    return cases


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "kind", "options"), criterion_cases(), ids=[case[0] for case in criterion_cases()])
def test_original_on_given_logits(
    name: str, kind: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    measured = golden.tensors("losses")
    logits, target = measured["on_logits/logits_rdrop" if "rdrop" in name else "on_logits/logits"], measured["on_logits/target"]
    if "range" in name:  # the run mapped its targets into the range
        target = torch.where(target > 3, 105 + target % 32, target)
    sample = {"conf": measured["on_logits/conf"]} if "conf" in name else {}
    loss, nll, size = run(make(kind, **options), logits.to(dtype), target, **sample)
    expected = golden.numbers("losses")["on_logits"][name]
    tolerance = 3e-6 if dtype == torch.float32 else 1e-6  # the values were measured in float32
    if "log_end=1.0" in name:
        tolerance = 2e-4  # ln(1 - p) of p close to 1 shows the rounding of float32, which is not the same on all processors
    assert size == expected["ntokens"]
    assert (loss, nll) == (
        pytest.approx(expected["loss"], rel=tolerance),
        pytest.approx(expected["nll_loss"], rel=tolerance),
    )


def test_every_case_with_given_logits_is_compared() -> None:
    assert set(golden.numbers("losses")["on_logits"]) == {case[0] for case in criterion_cases()}
