"""Methods of merging, each against its equation worked out by hand or by another way of computing it."""

import math

import pytest
import torch

from tests.allocations import most_allocated
from unival.checkpoints.merging import averages, masks, sparse, spectral, tensors, weighed
from unival.checkpoints.merging.inputs import Checkpoint, fitting_inputs
from unival.checkpoints.merging.magnitudes import Magnitudes
from unival.checkpoints.merging.merge import merged
from unival.checkpoints.merging.methods import HELP, METHODS, make_rule
from unival.errors import UserError

KEY = "layers.0.fc.weight"


def merge(method, models, base=None, coefficients=None, statistics=None, **options):
    """Merge the values of one key, given as lists."""
    states = [Checkpoint(f"{i}", {}, {KEY: torch.as_tensor(value, dtype=torch.float32)}) for i, value in enumerate(models)]
    pretrained = None if base is None else Checkpoint("base", {}, {KEY: torch.as_tensor(base, dtype=torch.float32)})
    rule, _ = make_rule(method, options)
    entry = METHODS[method]
    given = coefficients or [1 / len(models) if entry.shares else 1.0] * len(models)
    inputs = fitting_inputs(states, pretrained, "error", unrelated=True)
    found = statistics and [{KEY: value} for value in statistics]
    return merged(inputs, rule, given, entry.whole, entry.shares, statistics=found)[KEY]


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float32), rtol=1e-6, atol=1e-6)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_averages():
    close(merge("linear", [[1.0, 2.0], [3.0, -2.0]], coefficients=[0.75, 0.25]), [1.5, 1.0])
    close(merge("linear", [[1.0], [2.0], [6.0]]), [3.0])
    first, later = 1.0, (2.0, 4.0)  # m = 0.9 m + 0.1 x
    for value in later:
        first = 0.9 * first + 0.1 * value
    close(merge("ema", [[1.0], [2.0], [4.0]], decay=0.9), [first])
    assert math.isclose(sum(averages.trajectory_coefficients(7, 0.8)), 1)


def test_slerp_stays_on_the_circle():
    """A quarter of a right angle is 22.5 degrees; parallel and zero vectors are interpolated linearly."""
    angle = math.radians(22.5)
    close(merge("slerp", [[1.0, 0.0], [0.0, 1.0]], coefficients=[0.75, 0.25]), [math.cos(angle), math.sin(angle)])
    close(merge("slerp", [[1.0, 0.0], [3.0, 0.0]], coefficients=[0.5, 0.5]), [2.0, 0.0])
    close(merge("slerp", [[0.0, 0.0], [3.0, 1.0]], coefficients=[0.5, 0.5]), [1.5, 0.5])


def test_stock_goes_to_the_base_by_the_angle():
    """Equal task vectors: the average; orthogonal ones: the base; 60 degrees: t = 2 cos / (1 + cos) = 2 / 3."""
    close(merge("stock", [[2.0, 0.0], [2.0, 0.0]], [1.0, 0.0]), [2.0, 0.0])
    close(merge("stock", [[2.0, 0.0], [1.0, 1.0]], [1.0, 0.0]), [1.0, 0.0])
    close(merge("stock", [[1.0, 0.0], [0.5, math.sqrt(0.75)]], [0.0, 0.0]), [0.75 * 2 / 3, math.sqrt(0.75) / 3])


def test_task_vectors_are_added_and_negated():
    close(merge("task_arithmetic", [[2.0, 1.0], [1.0, 4.0]], [1.0, 1.0], scale=0.5), [1.5, 2.5])
    close(merge("task_arithmetic", [[2.0, 1.0]], [1.0, 1.0], coefficients=[-1.0], scale=1.0), [0.0, 1.0])


def test_adaptive_task_vectors_have_coefficients_of_their_keys():
    close(merge("adamerging", [[2.0, 1.0], [1.0, 4.0]], [1.0, 1.0], coefficients=[0.5, 0.25]), [1.5, 1.75])
    base, model = ({f"layers.{i}.a": torch.full((2,), value) for i in (0, 1)} for value in (1.0, 3.0))
    inputs = fitting_inputs([Checkpoint("x", {}, model)], Checkpoint("base", {}, base), "error", unrelated=True)
    rule, options = make_rule("adamerging", {"per": "layer"})
    found = merged(inputs, rule, lambda key: [0.25 if "layers.0" in key else 1.0])
    close(torch.stack(list(found.values())), [[1.5, 1.5], [3.0, 3.0]])
    assert options == {"per": "layer", "start": 0.3, "steps": 500, "rate": 1e-3, "tokens": 8, "seed": 1}


def test_ties_trims_elects_and_averages():
    """Two of four values stay. The second's sign is elected by the sum; a mean counts only those that agree."""
    models = [[4.0, -1.0, 3.0, 0.5], [2.0, 5.0, -0.5, 1.0], [-3.0, -2.0, 0.5, 1.0]]
    close(merge("ties", models, [0.0] * 4, density=0.5), [3.0, 5.0, 3.0, 0.0])
    # untrimmed differences to a base of ones: (3, 1, -4), (-2, 4, -3), (2, -1.5, -0.5), (-0.5, 0, 0); sums of 0 elect plus
    close(merge("ties", models, [1.0] * 4, density=1.0, scale=0.5), [1 + 0.5 * 2.0, 1 - 0.5 * 2.5, 1 + 0.5 * 2.0, 1 - 0.5 * 0.5])
    weighed_ = merge("ties", [[4.0], [1.0]], [0.0], coefficients=[1.0, 3.0], density=1.0)
    close(weighed_, [(4.0 + 3.0) / 4])


def test_thresholds_of_the_model_and_of_each_tensor():
    """The largest half of the model lies in one tensor; of each tensor it is a half of each."""
    small, large = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    base = Checkpoint("base", {}, {"a": torch.zeros(2), "b": torch.zeros(2)})
    models = [Checkpoint(name, {}, {"a": small, "b": large}) for name in "xy"]
    inputs = fitting_inputs(models, base, "error", unrelated=True)
    found = {}
    for scope in sparse.SCOPES:
        rule, _ = make_rule("ties", {"density": 0.5, "scope": scope})
        found[scope] = merged(inputs, rule, [1.0, 1.0])
    close(found["model"]["a"], [0.0, 0.0])
    close(found["model"]["b"], [10.0, 20.0])
    close(found["tensor"]["a"], [0.0, 2.0])
    close(found["tensor"]["b"], [0.0, 20.0])


def test_ranks_of_magnitudes_are_exact(monkeypatch):
    values = torch.cat([noise(5000), noise(500, seed=1) * 1e-30, torch.zeros(50), noise(500, seed=2) * 1e20])
    counted = Magnitudes(lambda count: [1, 77, 600, 3000, count])
    for number in range(counted.passes):
        for part in values.split(999):
            counted.observe("all", part, number)
    ordered = values.abs().sort(descending=True).values.tolist()
    assert counted.thresholds("all") == [ordered[rank - 1] for rank in (1, 77, 600, 3000, len(ordered))]


def test_slices_change_nothing(monkeypatch):
    """Every method that reads slices of rows gives what it gives of whole tensors, with random numbers, too."""
    monkeypatch.setattr(sparse, "BLOCK", 70)  # generators of 11 rows, slices of 8
    base, models = noise(40, 6), [noise(40, 6, seed=i) for i in (1, 2, 3)]
    for method, entry in METHODS.items():
        given = models[:2] if entry.most == 2 else models
        whole = merge(method, given, base if entry.base else None)
        with monkeypatch.context() as patch:
            patch.setattr(tensors, "SLICE", 50)
            patch.setattr(sparse, "SLICE", 7)
            close(merge(method, given, base if entry.base else None), whole)


def test_dare_keeps_expectations():
    """Kept values are rescaled, their number is the density's, and another seed keeps others; elected ones as in TIES."""
    base, delta = torch.zeros(400, 50), torch.full((400, 50), 2.0)
    found = merge("dare", [delta], base, density=0.25, scale=1.0)
    assert set(found.unique().tolist()) == {0.0, 8.0}
    assert abs(float(found.mean()) - 2) < 0.1
    assert torch.equal(found, merge("dare", [delta], base, density=0.25, scale=1.0))
    assert not torch.equal(found, merge("dare", [delta], base, density=0.25, scale=1.0, seed=2))
    both = merge("dare", [delta, delta], base, density=0.25, scale=1.0)
    assert set(both.unique().tolist()) == {0.0, 8.0, 16.0}  # models are dropped from independently
    close(merge("dare", [[4.0], [-1.0]], [0.0], density=1.0, scale=1.0, elect=True), [4.0])


def test_della_drops_small_values_more_often():
    """Rank r of n stays with density + window / 2 - window r / n, and is divided by it."""
    rows = torch.arange(1.0, 5.0).expand(20000, 4).contiguous()
    found = merge("della", [rows, rows], torch.zeros_like(rows), density=0.5, window=0.4)
    stays = torch.tensor([0.4, 0.5, 0.6, 0.7])  # the largest magnitude, 4, has rank 0
    for column, chance in enumerate(stays.tolist()):
        value = (column + 1) / chance
        assert (found[:, column] - value).abs().min() < 1e-5
        kept = float((found[:, column] != 0).float().mean())
        assert abs(kept - (1 - (1 - chance) ** 2)) < 0.02
    with pytest.raises(UserError, match="--density 0.1 and --window 0.4"):
        merge("della", [rows, rows], torch.zeros_like(rows), density=0.1, window=0.4)


def test_breadcrumbs_leave_out_both_ends():
    values = [[1.0, -8.0, 3.0, 5.0, -4.0, 2.0, 7.0, 6.0, 0.1, 0.2]]
    close(merge("breadcrumbs", values, [0.0] * 10, scale=1.0, density=0.3, outliers=0.2), [0, 0, 0, 5, -4, 0, 0, 6, 0, 0])


def test_pruning_counts_within_a_layer():
    keys = {"layers.0.a": torch.tensor([1.0, 2.0]), "layers.0.b": torch.tensor([3.0, 4.0]), "layers.1.a": torch.tensor([0.1, 0.2])}
    base = Checkpoint("base", {}, {key: torch.zeros(2) for key in keys})
    rule, _ = make_rule("lwptv", {"density": 0.5, "scale": 1.0})
    found = merged(fitting_inputs([Checkpoint("x", {}, keys)], base, "error", unrelated=True), rule, [1.0])
    close(torch.stack(list(found.values())), [[0.0, 0.0], [3.0, 4.0], [0.0, 0.2]])
    assert sparse.layer_of("encoder.layers.11.fc1.weight") == "encoder.layers.11"
    assert sparse.layer_of("encoder.layernorm_embedding.weight") == "encoder.layernorm_embedding"


def test_masks_keep_what_tasks_need():
    """Sum (5, 3, 0); at strictness 1 the first task needs value 0, the second value 1 and both value 2, where they cancel."""
    models, base = [[4.0, 1.0, 2.0], [1.0, 2.0, -2.0]], [0.0, 0.0, 0.0]
    close(merge("tall", models, base, task=1, strictness=1.0), [5.0, 0.0, 0.0])
    close(merge("tall", models, base, task=2, strictness=1.0), [0.0, 3.0, 0.0])
    close(merge("consensus", models, base, scale=1.0, strictness=0.5, least=2), [0.0, 3.0, 0.0])
    close(merge("consensus", models, base, scale=1.0, strictness=0.1, least=2), [5.0, 3.0, 0.0])
    with pytest.raises(UserError, match="--task 3: must be the number of a model"):
        merge("tall", models, base, task=3)


def test_emr_elects_masks_and_rescales():
    """Unified (4, 2, -3); the first task shares signs with all but the last: 5.5 / 6 of it."""
    models, base = [[4.0, 1.0, 0.5], [1.0, 2.0, -3.0]], [0.0, 0.0, 0.0]
    close(merge("emr", models, base, task=1), [5.5 / 6 * 4.0, 5.5 / 6 * 2.0, 0.0])
    close(merge("emr", models, base, task=2), [6 / 9 * 4.0, 6 / 9 * 2.0, -6 / 9 * 3.0])


def test_singular_vectors_of_tasks_that_share_none_stay():
    """Tasks in orthogonal directions are added without a loss; what is no matrix is averaged."""
    u, v = torch.linalg.qr(noise(6, 6))[0], torch.linalg.qr(noise(8, 8, seed=1))[0]
    sizes = torch.tensor([3.0, 2.0, 1.0])
    one, two = (u[:3].T * sizes) @ v[:3], (u[3:].T * sizes) @ v[3:6]
    base = noise(6, 8, seed=2)
    close(merge("tsv", [base + one, base + two], base), base + one + two)
    vectors = merge("tsv", [[1.0, 3.0], [3.0, 5.0]], [0.0, 0.0])
    close(vectors, [2.0, 4.0])


def test_isotropic_merging_has_equal_singular_values():
    base, models = noise(6, 8), [noise(6, 8) + noise(6, 8, seed=i) for i in (1, 2)]
    total = models[0] + models[1] - 2 * base
    values = torch.linalg.svdvals(merge("iso_c", models, base) - base)
    close(values, torch.linalg.svdvals(total).mean().expand(6))
    values = torch.linalg.svdvals(merge("iso_cts", models, base, common=0.6) - base)
    close(values, values.mean().expand(6))
    close(merge("iso_cts", models, base, common=1.0), merge("iso_c", models, base))


def test_fisher_and_regmean_are_weighed_by_statistics():
    """Fisher: by hand. RegMean: the least-squares solution over both models' inputs, without shrinking."""
    models, information = [[1.0, 5.0], [3.0, 1.0]], [torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])]
    rule = weighed.fisher
    given = tensors.Tensors(KEY, [torch.tensor(m) for m in models], [0.5, 0.5], statistics=information)
    close(rule(given, floor=0.0), [1.5, 3.0])
    close(rule(tensors.Tensors(KEY, [torch.tensor(m) for m in models], [0.5, 0.5])), [2.0, 3.0])
    inputs, layers = [noise(30, 4, seed=i) for i in (1, 2)], [noise(3, 4, seed=i) for i in (3, 4)]
    grams = [x.T @ x for x in inputs]
    found = weighed.regmean(tensors.Tensors(KEY, layers, [0.5, 0.5], statistics=grams), diagonal=0.0)
    answers = torch.cat([x @ w.T for x, w in zip(inputs, layers, strict=True)])
    expected = torch.linalg.lstsq(torch.cat(inputs), answers).solution.T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    shrunk = [0.9 * gram.double() + 0.1 * torch.diag(torch.diag(gram.double())) for gram in grams]
    for keep in (1.0, 0.0):  # an input that is always 0 has a row and column of zeros
        own = [gram.clone() for gram in shrunk]
        for gram in own:
            gram[3], gram[:, 3] = gram[3] * keep, gram[:, 3] * keep
        expected = sum(w.double() @ gram for w, gram in zip(layers, own, strict=True)) @ torch.linalg.pinv(sum(own), hermitian=True)
        given = [gram.float() / 0.9 for gram in own]
        for gram, whole in zip(given, own, strict=True):
            gram.diagonal().copy_(whole.diagonal())
        found = weighed.regmean(tensors.Tensors(KEY, layers, [0.5, 0.5], statistics=given))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_regmean_takes_the_memory_of_one_gram_matrix():
    """In float64, of a layer with many inputs, however many models: factors and solutions are made in place."""
    size = 512
    inputs, layer = noise(size, size), noise(4, size)
    gram = inputs.T @ inputs
    given = tensors.Tensors(KEY, [layer] * 3, [1 / 3] * 3, statistics=[gram] * 3)
    assert most_allocated(lambda: weighed.regmean(given)) < 1.5 * 8 * size**2


def test_every_method_leaves_an_untrained_model_alone():
    """Task vectors of zero merge to the base; equal models to themselves."""
    base = noise(6, 8)
    for method, entry in METHODS.items():
        if entry.base:
            assert torch.equal(merge(method, [base, base], base), base), method
        elif method not in ("fisher", "regmean"):
            close(merge(method, [base, base]), base)


def test_every_option_has_a_help_text():
    assert {option for method in METHODS.values() for option in method.options()} == set(HELP)
    with pytest.raises(UserError, match="--decay is no option of --method ties, which has --scale, --density, --scope"):
        make_rule("ties", {"decay": 0.5})
    for options in ({"density": 0.0}, {"density": 1.5}):
        with pytest.raises(UserError, match="--density"):
            make_rule("ties", options)
    assert masks.place_of(2, tensors.Tensors(KEY, [], [], numbers=(0, 1))) == 1
    assert spectral.isotropic is METHODS["iso_c"].make
