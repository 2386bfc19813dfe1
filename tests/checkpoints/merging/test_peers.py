"""Methods of merging against mergekit and fusion-bench: what these made of the same small state dicts (``golden/merging_peers.py``)."""

import json
import pathlib

import pytest
import torch

from tests.golden import merging_peers
from unival.checkpoints.merging.inputs import Checkpoint, fitting_inputs
from unival.checkpoints.merging.merge import merged
from unival.checkpoints.merging.methods import METHODS, make_rule

GOLDEN = json.loads((pathlib.Path(merging_peers.__file__).with_name("merging.json")).read_text(encoding="utf-8"))
WEIGHT = "layers.0.fc.weight"
# (peer, method of theirs) -> method of ours, options
CASES = {
    # theirs keeps one value more than the share says: of 56 values 29
    ("fusion-bench", "ties"): ("ties", {"density": 29.5 / 56}),
    ("mergekit", "ties"): ("ties", {"density": 0.5, "scope": "tensor"}),
    ("mergekit", "task_arithmetic"): ("task_arithmetic", {"scale": 0.4}),
    ("mergekit", "breadcrumbs"): ("breadcrumbs", {"scale": 0.3, "density": 0.5, "outliers": 0.1}),
    ("mergekit", "stock"): ("stock", {}),
    ("mergekit", "slerp"): ("slerp", {}),
    ("fusion-bench", "isotropic"): ("iso_c", {}),
    ("fusion-bench", "isotropic_tasks"): ("iso_cts", {"common": 0.5}),
    ("fusion-bench", "singular_vectors"): ("tsv", {}),
    ("fusion-bench", "tall"): ("tall", {"task": 2, "strictness": 0.4}),
    ("fusion-bench", "consensus"): ("consensus", {"scale": 0.4, "strictness": 0.4, "least": 2}),
    ("fusion-bench", "emr"): ("emr", {"task": 2}),  # of one tensor: theirs averages over tensors of different size
    ("fusion-bench", "fisher"): ("fisher", {}),
    ("fusion-bench", "regmean"): ("regmean", {"diagonal": 0.1}),
}


def test_every_golden_result_is_compared():
    assert {(peer, method) for peer in ("mergekit", "fusion-bench") for method in GOLDEN[peer]} == set(CASES)


@pytest.mark.parametrize(("peer", "theirs"), CASES)
def test_peers_agree(peer, theirs):
    ours, options = CASES[peer, theirs]
    expected = GOLDEN[peer][theirs]
    method = METHODS[ours]
    states = [{key: value for key, value in merging_peers.values(number).items() if key in expected} for number in range(4)]
    base, *models = [Checkpoint(str(number), {}, state) for number, state in enumerate(states)]
    models = [base, models[0]] if ours == "slerp" else models
    coefficients = [0.7, 0.3] if ours == "slerp" else [1 / 3 if method.shares else 1.0] * 3
    statistics = {
        "fisher": [merging_peers.fisher(number) for number in (1, 2, 3)],
        "regmean": [{WEIGHT: merging_peers.gram(number)} for number in (1, 2, 3)],
    }.get(ours)
    inputs = fitting_inputs(models, base if method.base else None, "error", unrelated=True)
    rule, _ = make_rule(ours, options)
    found = merged(inputs, rule, coefficients, method.whole, method.shares, statistics=statistics)
    for key, numbers in expected.items():
        torch.testing.assert_close(found[key].flatten().double(), torch.tensor(numbers, dtype=torch.float64), rtol=1e-6, atol=1e-6)
