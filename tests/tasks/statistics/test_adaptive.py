"""AdaMerging: gradients of coefficients against finite differences, and what learning does."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from tests import tiny
from unival.checkpoints.merging.inputs import Checkpoint, fitting_inputs
from unival.checkpoints.merging.merge import merged
from unival.checkpoints.merging.task_vectors import PER, Adaptive
from unival.errors import UserError
from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.statistics.adaptive import entropy, learn
from unival.tasks.statistics.answers import OwnAnswers
from unival.tasks.statistics.rows import Batches, rows_of

QUESTIONS = ["a red square", "blue", "the red circle above a blue square", "left of the square"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptive")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"question": question}) + "\n" for question in QUESTIONS))
    return folder, tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)


def made(place, instruction="[TEXT:question] -> [TEXT:answer]", answers=None):
    folder, vocab = place
    cfg = OmegaConf.structured(UnivalTaskConfig(data=str(folder), seed=1, cpu=True, bf16=False, fp16=False, instruction=instruction))
    task, model = UnivalTask(cfg, vocab, answers=answers), tiny.model(vocab, modalities="").double()
    return task, model, rows_of(task, folder / "rows.jsonl", model)


def moved(model, seed):
    """Two models near a base, of which one has a layer that was not trained."""
    base = {key: value.clone() for key, value in model.state_dict().items()}
    generator, states = torch.Generator().manual_seed(seed), []
    for number in range(2):
        state = {}
        for key, value in base.items():
            frozen = not value.is_floating_point() or (number == 0 and "decoder.layers.1" in key)
            state[key] = value if frozen else value + 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for key, first in {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}.items():
            if key in state:
                state[key] = state[first]
        states.append(Checkpoint(str(number), {}, state))
    return fitting_inputs(states, Checkpoint("base", {}, base), "error", unrelated=True)


def loss_at(inputs, task, model, sample, coefficients):
    state = merged(inputs, Adaptive(), coefficients)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value.copy_(state[key])
        return float(entropy(task, model, sample))


def test_entropy_is_that_of_greedy_answers(place):
    """By the model's whole distribution of every token, and of the first one alone; of candidates over these."""
    task, model, stream = made(place)
    (batch,) = Batches(stream, model, 4)
    pad = task.vocabulary.pad
    for tokens in (3, 1):
        answered = OwnAnswers(task, model, sampled=False, longest=tokens)(batch)
        logits, _ = model(**answered["net_input"])
        counted = answered["target"].ne(pad)
        assert int(counted.sum(1).max()) <= tokens + 1  # and the end
        lprobs = logits.log_softmax(-1)[counted]
        torch.testing.assert_close(entropy(task, model, answered), -(lprobs.exp() * lprobs).sum(-1).mean())
        best = logits.argmax(-1)[:, 0]
        assert torch.equal(answered["target"][:, 0], best)
    answers = ["circle", "square"]
    task, model, stream = made(place, "[TEXT:question] -> [TEXT:answer,closed_set]", answers)
    answered = OwnAnswers(task, model, sampled=False)(batch)
    found = float(entropy(task, model, answered).detach())
    assert 0 < found <= 0.6932 and "constraint_masks" in answered


@pytest.mark.parametrize("per", PER)
def test_gradients_are_those_of_coefficients(place, per, monkeypatch):
    """One step of Adam moves every coefficient by the rate, against the sign of the slope; slopes by finite differences in float64."""
    task, model, stream = made(place)
    inputs = moved(model, seed=3)
    (batch,) = Batches(stream, model, 4)
    slopes = {}
    step = torch.optim.Adam.step
    given = list(model.parameters())

    def seen(optimizer):
        assert all(value.grad is None for value in given)  # in memory are those of coefficients alone
        values = optimizer.param_groups[0]["params"]
        slopes.update(enumerate(value.grad.clone() for value in values))
        return step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", seen)
    coefficients, entropies = learn(inputs, model, [(task, stream)], Adaptive(per=per, steps=1, rate=0.01, tokens=2), size=4)
    slopes = dict(zip(coefficients.values, slopes.values(), strict=True))
    assert len(slopes) == {"task": 1}.get(per, len(slopes))
    torch.testing.assert_close(entropies[0], loss_at(inputs, task, model, OwnAnswers(task, model, False, 2)(batch), [0.3, 0.3]))
    chosen = sorted(slopes, key=lambda name: -float(slopes[name].abs().max()))[:2]
    for name in chosen:
        for number in (0, 1):
            points = []
            for change in (1e-5, -1e-5):

                def at(key, change=change, name=name, number=number):
                    values = [0.3, 0.3]
                    values[number] += change * (coefficients.group(key) == name)
                    return values

                answered = OwnAnswers(task, model, False, 2)
                loss_at(inputs, task, model, answered(batch), [0.3, 0.3])  # the weights that answers are of
                points.append(loss_at(inputs, task, model, answered(batch), at))
            slope = (points[0] - points[1]) / 2e-5
            assert slope == pytest.approx(float(slopes[name][number]), rel=1e-3, abs=1e-7)
            if slope:
                assert float(coefficients.values[name][number].detach()) == pytest.approx(0.3 - 0.01 * (1 if slope > 0 else -1), abs=1e-4)
    if per == "layer":
        assert float(slopes["decoder.layers.1"][0]) == 0 and coefficients("decoder.layers.1.fc1.weight")[0] == pytest.approx(0.3)
    assert all(value.grad is None for value in model.parameters())


def test_learning_lowers_the_entropy(place):
    """Coefficients stay between 0 and 1, and the same seed learns the same."""
    task, model, stream = made(place)
    inputs = moved(model, seed=3)
    rule = Adaptive(steps=8, rate=0.1, tokens=2, seed=2)
    done = []
    coefficients, entropies = learn(inputs, model, [(task, stream), (task, stream)], rule, size=4, told=lambda *how: done.append(how))
    assert entropies[-1] < entropies[0] and done[-1] == (8, 8)
    values = torch.stack([value.detach() for value in coefficients.values.values()])
    assert bool(((values >= 0) & (values <= 1)).all()) and bool((values == 0).any() | (values == 1).any() | (values > 0.5).any())
    again, _ = learn(inputs, model, [(task, stream), (task, stream)], rule, size=4)
    assert again.plain() == coefficients.plain()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per": "row"}, "--per row: there are task, layer, tensor"),
        ({"steps": 0}, "--steps 0: must be at least 1"),
        ({"rate": 0.0}, "--rate 0: must be above 0"),
        ({"start": 2.0}, "--start 2: must be in 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Adaptive(**options)
