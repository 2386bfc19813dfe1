"""What is checked before a merge, and what becomes of keys that are no weights."""

import pytest
import torch

from unival.checkpoints.merging.averages import linear
from unival.checkpoints.merging.inputs import Checkpoint, fitting_inputs, relation
from unival.checkpoints.merging.merge import merged
from unival.errors import UserError

TOKENS, TIED = "encoder.embed_tokens.weight", "decoder.output_projection.weight"


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state(seed=0, **changes):
    """Weights, tied embeddings, and buffers of every kind."""
    tokens = noise(12, 4) + 0.1 * noise(12, 4, seed=seed + 10)
    found = {
        TOKENS: tokens,
        TIED: tokens,
        "encoder.layers.0.fc1.weight": noise(8, 4) + 0.1 * noise(8, 4, seed=seed + 20),
        "bn.running_mean": torch.full((3,), float(seed)),
        "bn.running_var": torch.full((3,), 1.0 + seed),
        "bn.num_batches_tracked": torch.tensor(seed),
        "encoder.token_rp_bucket": torch.arange(6),
    }
    return {key: value for key, value in {**found, **changes}.items() if value is not None}


def checkpoints(*states, **containers):
    return [Checkpoint("abc"[i], containers.get("abc"[i], {}), value) for i, value in enumerate(states)]


def average(models, base=None, missing="error", coefficients=None, shares=True):
    inputs = fitting_inputs(models, base, missing)
    return merged(inputs, linear, coefficients or [1 / len(models)] * len(models), shares=shares)


def refused(message, *states, base=None, missing="error", **containers):
    with pytest.raises(UserError, match=message):
        fitting_inputs(checkpoints(*states, **containers), base, missing)


def test_buffers_have_rules_of_their_own():
    """Statistics are averaged even where coefficients are no shares, counters are the largest, tables stay, ties stay tied."""
    found = average(checkpoints(state(1), state(3)))
    assert found["bn.running_mean"].tolist() == [2.0] * 3 and found["bn.running_var"].tolist() == [3.0] * 3
    assert found["bn.num_batches_tracked"] == 3 and torch.equal(found["encoder.token_rp_bucket"], torch.arange(6))
    assert found[TIED] is found[TOKENS] and found["encoder.token_rp_bucket"].dtype == torch.int64
    found = average(checkpoints(state(1), state(3)), coefficients=[2.0, -1.0])
    assert found["bn.running_var"].tolist() == [3.0] * 3
    torch.testing.assert_close(found[TOKENS], 2 * state(1)[TOKENS] - state(3)[TOKENS])
    found = average(checkpoints(state(1), state(3)), coefficients=[1.0, 3.0])
    assert found["bn.running_var"].tolist() == [3.5] * 3


def test_half_precision_is_added_up_in_float32():
    """In float16 the average of 2,049 ones and their like would lose what is below its precision."""
    key = "encoder.layers.0.fc1.weight"
    values = [torch.tensor([[2048.0]]).half(), *(torch.tensor([[1.0]]).half() for _ in range(3))]
    found = merged(fitting_inputs(checkpoints(*({key: v} for v in values[:3])), None, "error"), linear, [1.0, 1.0, 1.0])[key]
    assert found.dtype == torch.float16 and found.item() == 2050.0  # 2048 + 1 is 2048 in float16
    doubles = [{key: torch.full((1, 1), 1 + 2.0**-40, dtype=torch.float64)} for _ in range(2)]
    assert average(checkpoints(*doubles))[key].item() == 1 + 2.0**-40


def test_keys_that_a_model_lacks():
    """An error unless it is said what to do: the base's value, or the average of those that have the key, with whole shares."""
    key = "encoder.layers.0.fc1.weight"
    full, less = state(1), state(2, **{key: None})
    refused(f"b: lacks 1 key \\({key}\\) that a has; give --missing base", full, less)
    base = Checkpoint("base", {}, state(0))
    found = average(checkpoints(full, less), base, "base")
    torch.testing.assert_close(found[key], (full[key] + base.state[key]) / 2)
    found = average(checkpoints(full, less, full), None, "skip", [0.5, 0.25, 0.25])
    torch.testing.assert_close(found[key], full[key])
    assert list(found) == list(full)
    refused("--missing base: --base is not given, which lacks 1 key", full, less, missing="base")
    refused("base: lacks 1 key .* that a has; give --missing skip", full, full, base=Checkpoint("base", {}, less))


def test_models_that_do_not_fit_are_named():
    key = "encoder.layers.0.fc1.weight"
    refused("b: has a vocabulary of 14 tokens, a of 12: row i", state(), state(**{TOKENS: noise(14, 4), TIED: noise(14, 4)}))
    marks = {name: {"task_state": {"vocabulary": name}} for name in "ab"}
    refused("b: was trained with another vocabulary than a, of as many tokens", state(), state(1), **marks)
    refused(f"b: {key} is \\(9, 4\\), but \\(8, 4\\) in a", state(), state(**{key: noise(9, 4)}))
    other = state(**{"encoder.token_rp_bucket": torch.ones(6).long()})
    refused("b: encoder.token_rp_bucket, a constant of the model and no weight, differs", state(), other)
    refused(f"b: {TIED} has values of its own, in a it is tied", state(), state(**{TIED: noise(12, 4, seed=5)}))
    refused("b: is an adapter; `unival adapter stack BASE b", state(), state(), b={"adapter": {}})
    refused("b: has LoRA's factors", state(), state(**{"encoder.layers.0.fc1.lora.a": noise(2, 4)}))
    network = {"layer1.0.conv1.weight": noise(4, 4, 1, 1)}
    attention = {f"{side}.layers.0.self_attn.k_proj.weight": noise(4, 4) for side in ("encoder", "decoder")}
    ours = {**attention, "encoder.pos_q_linear.weight": noise(4, 4)}
    refused("b: is not recognised, but a is unival; only models of one architecture", ours, network)


def test_unrelated_pretrainings_are_refused():
    """Two random networks have a cosine near 0, a fine-tuned one near 1; media backbones do not count."""
    key = "encoder.layers.0.fc1.weight"
    models = [{key: noise(64, 64, seed=i), "encoder.media.image.backbone.fc.weight": torch.ones(500, 500)} for i in (1, 2)]
    refused("b and a do not come from one pretraining .*--allow-unrelated", *models)
    assert len(fitting_inputs(checkpoints(*models), None, "error", unrelated=True).keys) == 2
    assert relation(state(1), state(2)) > 0.9
    assert relation({"a": torch.ones(2)}, {"a": torch.ones(2)}) is None


def test_weights_are_written_in_place():
    """A second point of a sweep uses the tensors of the first."""
    models = checkpoints(state(1), state(3))
    inputs = fitting_inputs(models, None, "error")
    first = merged(inputs, linear, [0.5, 0.5])
    second = merged(inputs, linear, [0.0, 1.0], into=first)
    assert all(second[key].data_ptr() == value.data_ptr() for key, value in first.items())
    torch.testing.assert_close(first[TIED], models[1].state[TIED])
