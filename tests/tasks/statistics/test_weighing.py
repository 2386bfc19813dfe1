"""Fisher information and Gram matrices of a small task, against sums worked out another way."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from tests import tiny
from unival.checkpoints.merging.tensors import is_matrix
from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.statistics import weighing
from unival.tasks.statistics.answers import OwnAnswers
from unival.tasks.statistics.rows import Batches, rows_of

ROWS = [("a red square", "circle"), ("blue", "square"), ("the red circle above a blue square", "green"), ("left of the square", "circle")]
OPEN = "[TEXT:question] -> [TEXT:answer]"
CLOSED = "[TEXT:question] -> [TEXT:answer,closed_set]"
ANSWERS = ["circle", "square", "green"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weighing")
    (folder / "train.jsonl").write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in ROWS))
    return folder, tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)


def made(place, instruction, answers=None):
    """A task, a model without media, and the rows of the table."""
    folder, vocab = place
    cfg = OmegaConf.structured(
        UnivalTaskConfig(data=str(folder), seed=1, cpu=True, bf16=False, fp16=False, instruction=instruction)
    )
    task, model = UnivalTask(cfg, vocab, answers=answers), tiny.model(vocab, modalities="")
    return task, model, rows_of(task, folder / "train.jsonl", model, with_target=True)


def log_likelihoods(task, model, sample):
    """log p(y | x) of each row, from the logits of the whole vocabulary."""
    logits, _ = model(**sample["net_input"])
    target = sample["target"]
    lprobs = logits.log_softmax(-1).gather(-1, target[..., None]).squeeze(-1)
    return lprobs.masked_fill(target.eq(task.vocabulary.pad), 0.0).sum(1)


def test_empirical_fisher_information_is_the_mean_of_squared_gradients(place):
    task, model, stream = made(place, OPEN)
    found = weighing.fisher(task, model, weighing.examples(task, model, stream, "table"))
    named = dict(model.named_parameters())
    assert set(found) == set(named) and all(value.grad is None for value in named.values())
    (batch,) = Batches(stream, model, 4)
    expected = {name: torch.zeros_like(value) for name, value in named.items()}
    for likelihood in log_likelihoods(task, model, batch):
        grads = torch.autograd.grad(likelihood, list(named.values()), retain_graph=True, allow_unused=True)
        for name, grad in zip(named, grads, strict=True):
            expected[name] += 0 if grad is None else (grad.to_dense() if grad.is_sparse else grad).square() / 4
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5 * float(expected[name].max()) + 1e-12)
    assert sum(bool(value.any()) for value in found.values()) > 50


def test_answers_are_drawn_from_the_models_distribution(place):
    """Of candidates, as often as the model gives them; the same for a seed, with the limits that they were generated under."""
    task, model, stream = made(place, CLOSED, ANSWERS)
    (batch,) = Batches(stream, model, 4)
    draw, pad = OwnAnswers(task, model, sampled=True), task.vocabulary.pad
    assert torch.equal(draw(batch, seed=3)["target"], draw(batch, seed=3)["target"])
    encoded = {tuple(ids): number for number, ids in enumerate(task.trie.answers)}
    counts = torch.zeros(4, len(ANSWERS))
    criterion, chances = weighing.likelihood(task), torch.zeros(4, len(ANSWERS))
    for seed in range(60):
        drawn = draw(batch, seed)
        for row, target in enumerate(drawn["target"]):
            ids = tuple(target[target.ne(pad)].tolist()[:-1])
            counts[row, encoded[ids]] += 1
            if not chances[row, encoded[ids]]:
                one = {**drawn, "target": drawn["target"].clone().fill_(pad)}
                one["target"][row] = target
                chances[row, encoded[ids]] = (-criterion(model, one)[0].detach()).exp()
    assert bool((chances > 0).any(1).all()) and not torch.equal(draw(batch, 1)["target"], draw(batch, 5)["target"])
    torch.testing.assert_close(chances.sum(1), torch.ones(4), rtol=0.05, atol=0.05)  # of those that were drawn
    assert float((counts / 60 - chances).abs().max()) < 0.15


def test_fisher_information_of_sampled_answers(place):
    """Examples of one row and seed have the same answers; other seeds have others, and the table's are not needed."""
    task, model, _ = made(place, CLOSED, ANSWERS)
    stream = rows_of(task, place[0] / "train.jsonl", model)
    first, again, other = (
        weighing.fisher(task, model, weighing.examples(task, model, stream, "model", most=2, seed=seed)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    assert bool(first["encoder.layers.0.fc1.weight"].any())


def test_gram_matrices_are_those_of_real_tokens(place):
    """Against a padded batch whose padding is left out; the mean over examples, of every linear layer but the output projection."""
    task, model, stream = made(place, OPEN)
    done = []
    found = weighing.gram(task, model, weighing.examples(task, model, stream, "table", told=lambda *how: done.append(how)))
    assert done == [(number, 4) for number in range(1, 5)]
    state = model.state_dict()
    assert set(found) == {key for key, value in state.items() if key.endswith(".weight") and is_matrix(key, value)}
    assert all(value.shape == (state[key].size(1),) * 2 for key, value in found.items())
    seen = {}
    for key in ("encoder.layers.1.fc2", "decoder.layers.0.fc1", "decoder.layers.1.encoder_attn.k_proj"):
        model.get_submodule(key).register_forward_pre_hook(lambda module, inputs, key=key: seen.update({key: inputs[0]}))
    (batch,) = Batches(stream, model, 4)
    with torch.no_grad():
        model(**batch["net_input"])
    (group,) = batch["net_input"]["groups"]
    pad = task.vocabulary.pad
    source, target = group["src_tokens"].ne(pad), batch["target"].ne(pad)
    assert not bool(source.all())
    for key, x in seen.items():
        rows = x[target if key == "decoder.layers.0.fc1" else source]
        torch.testing.assert_close(found[f"{key}.weight"], rows.T @ rows / 4, rtol=1e-4, atol=1e-4)
