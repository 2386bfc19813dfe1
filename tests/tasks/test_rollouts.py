"""Self-critical training by the task: what hypotheses are scored as, resumed runs, groups, rewards that rise, two processes."""

import json
from argparse import Namespace

import pytest
import torch

from tests import runs, tiny
from tests.ranks import run_on_two_ranks
from tests.test_training import SAME, assert_equal, state
from unival.criterions.scst import GroundingScstConfig, ScstConfig, ScstCriterion
from unival.hub import from_checkpoint
from unival.tasks.rollouts import RolloutMaker, training_references

ROWS = 8
BOX = "1,2,45,38"
ANSWERS = ["a red square", "the circle", "blue"]
GIVEN = "[TEXT:word,no_loss] [TEXT:answer,closed_set]"
CLOSED = f"[IMAGE:image] what [TEXT:word]? -> {GIVEN} ||| [TEXT:word]? -> {GIVEN}"
GROUPS = "[IMAGE:image] what? -> [TEXT:caption] ||| [TEXT:word] -> [TEXT:caption]"
GROUNDING = "[IMAGE:image] which region does [TEXT:word] describe? -> [BOX:box]"
TWO_KINDS = f"{GROUNDING} ||| [IMAGE:image] [IMAGE:image] where is [TEXT:word]? -> [BOX:box]"  # of groups
RUN = ("--task", "unival", "--num-bins", "10", "--skip-checks", "--disable-validation", "--batch-size", "2")
SAMPLED = ("--criterion", "unival_scst", "--scst-args", '{"sampling": true, "beam": 3, "nbest": 3, "max_len_b": 5}')


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    path = tiny.write_table(folder, rows=ROWS)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    more = [{**row, "word": tiny.WORDS[i], "answer": ANSWERS[i % 3], "box": BOX} for i, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in more))
    (folder / "answers.txt").write_text("\n".join(ANSWERS) + "\n")
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=10)
    return folder


def train(data, out, instruction, *flags):
    return runs.train(data, out, *RUN, "--instruction", instruction, *flags)


def made(data, out, instruction, config, *flags):
    """A task with a trained model, its criterion and rollouts, and a batch of half the rows of its training table."""
    assert train(data, out, instruction, *flags, "--max-update", "1") == 0
    loaded = from_checkpoint(out / "checkpoint_last.pt")
    task = loaded.task
    criterion = ScstCriterion(task, config)
    dataset = task.build_dataset(task.open_table(data / "train.jsonl"), train=True)
    return loaded.model, criterion, RolloutMaker(task, criterion), dataset.collater([dataset[i] for i in range(ROWS // 2)])


BEAM = '{"beam": 3, "nbest": 3, "unnormalized": true}'
CANDIDATES = '{"inference": "candidates", "nbest": 3}'


def scored(model, criterion, maker, batch):
    """Rollouts of a batch, once the forward pass is known to give every hypothesis the score that generation gave it."""
    sample = maker(batch, model, update=0)
    rollouts = sample["rollouts"]
    (generator,) = maker.generators
    beams = generator.generate([model], batch, prefix_tokens=batch.get("prefix_tokens"), bos_token=maker.task.vocabulary.bos)
    prompts = [maker.prompt(batch, row) for row in range(len(beams))]
    scores = [float(beam["positional_scores"][start:].sum()) for start, row in zip(prompts, beams, strict=True) for beam in row[:3]]
    assert rollouts.count == len(scores) == 12
    features, _ = model(**sample["net_input"], features_only=True)
    tokens = criterion.select_tokens(model, features, rollouts.hypotheses)
    rows = tokens.counts.nonzero(as_tuple=True)[0]
    picked = tokens.lprobs[0].gather(-1, tokens.target.unsqueeze(-1)).squeeze(-1)
    found = torch.zeros(len(tokens.counts)).index_add_(0, rows, picked.detach())
    torch.testing.assert_close(found[tokens.counts.any(1)], torch.tensor(scores), rtol=1e-4, atol=1e-4)
    assert float(rollouts.advantages[~tokens.counts.any(1)].abs().max()) == 0
    return sample, features


@pytest.mark.parametrize(
    "instruction, config, flags",
    [
        (CLOSED, ScstConfig(scst_args=BEAM, ce_weight=1.0, sentence_avg=False), ("--closed-set", "answers.txt")),
        (GROUNDING, GroundingScstConfig(scst_args=BEAM, sentence_avg=False), ()),
    ],
    ids=["candidate answers after prompts, two groups", "boxes"],
)
def test_hypotheses_are_scored_as_they_were_generated_and_gold_targets_as_ever(data, tmp_path, instruction, config, flags):
    """The one forward gives every hypothesis the score of its generation, and the cross-entropy that of plain training."""
    flags = [str(data / flag) if flag.endswith(".txt") else flag for flag in flags]
    model, criterion, maker, batch = made(data, tmp_path, instruction, config, *flags)
    before = torch.get_rng_state()
    sample, features = scored(model, criterion, maker, batch)
    assert torch.equal(torch.get_rng_state(), before) and not model.training
    assert len(batch["net_input"]["groups"]) == (2 if instruction is CLOSED else 1)
    gold = criterion.token_losses(criterion.select_tokens(model, features, sample["rollouts"].gold))[0].sum()
    torch.testing.assert_close(gold, criterion(model, maker.task.with_limits(batch))[0], rtol=1e-5, atol=1e-5)
    if instruction is CLOSED:
        other = ScstCriterion(maker.task, ScstConfig(scst_args=CANDIDATES, ce_weight=1.0, sentence_avg=False))
        scored(model, other, RolloutMaker(maker.task, other), batch)
    criterion(model, sample)[0].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


BOXES = ("--criterion", "unival_grounding_scst", "--scst-args", '{"sampling": true, "beam": 8, "nbest": 8}', "--baseline", "mean")


def test_a_resumed_run_has_the_same_bits(data, tmp_path):
    """Sampled hypotheses, groups of two kinds, gradient accumulation, bfloat16, dropout: stopped after its first update."""
    flags = (*BOXES, "--acc-thresh", "0.01", "--update-freq", "2", "--autocast-bf16", "--save-interval-updates", "1")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert train(data, whole, TWO_KINDS, *flags, "--max-update", "3") == 0
    resumed.mkdir()
    (resumed / "checkpoint_last.pt").write_bytes((whole / "checkpoint_1_1.pt").read_bytes())
    assert train(data, resumed, TWO_KINDS, *flags, "--max-update", "3") == 0
    one, two = state(whole / "checkpoint_last.pt"), state(resumed / "checkpoint_last.pt")
    for key in ("model", "last_optimizer_state"):
        assert_equal(one[key], two[key], key)
    logged = runs.log_lines(whole, "reward")
    assert {"loss", "scst_loss", "ce_loss", "reward", "baseline"} <= logged[0].keys() and "ppl" not in logged[0]
    assert len({line["scst_loss"] for line in logged}) > 1 and 0 < float(logged[0]["reward"]) < 1


@pytest.fixture(scope="module")
def learned(data, tmp_path_factory):
    """From random boxes to the one box that all rows have."""
    out = tmp_path_factory.mktemp("learned")
    flags = (*BOXES, "--ce-weight", "0", "--lambda-reinforce", "1", "--lr", "5e-3", "--max-update", "40", "--batch-size", "4")
    assert train(data, out, GROUNDING, *flags, "--dropout", "0") == 0
    return out


def test_the_reward_rises_within_seconds(learned):
    rewards = [float(line["reward"]) for line in runs.log_lines(learned, "gnorm")]
    assert sum(rewards[-5:]) / 5 > 0.6 > 0.4 > sum(rewards[:5]) / 5


def test_what_cannot_be_rewarded_is_told_at_the_start(data, tmp_path, capsys):
    assert train(data, tmp_path, GROUNDING, *SAMPLED, "--max-update", "1") == 1
    assert "--reward cider is for a predicted text; the instruction predicts BOX" in capsys.readouterr().err
    assert train(data, tmp_path, GROUPS, "--criterion", "unival_scst", "--scst-args", '{"beams": 3, "nbest": 2}', "--max-update", "1") == 1
    assert "--scst-args {" in (said := capsys.readouterr().err) and "unknown generation option 'beams', did you mean 'beam'?" in said


def test_documents_are_the_rows_of_all_training_tables_that_can_be_read(data, tmp_path):
    lines = (data / "train.jsonl").read_text().splitlines()
    (tmp_path / "first.jsonl").write_text("\n".join(lines[:3]) + "\n")
    (tmp_path / "second.jsonl").write_text(json.dumps({**json.loads(lines[3]), "caption": []}) + "\n" + lines[4] + "\n")
    cfg = Namespace(data=f"{tmp_path}/first.jsonl,{tmp_path}/second.jsonl,{tmp_path}/valid.jsonl", train_subset="train")
    assert train(data, tmp_path / "run", GROUPS, *SAMPLED, "--max-update", "1") == 0
    task = from_checkpoint(tmp_path / "run" / "checkpoint_last.pt").task
    stand_in = Namespace(cfg=cfg, open_table=task.open_table, build_dataset=task.build_dataset)
    task.cfg.on_bad_sample = "skip"
    assert training_references(stand_in) == [json.loads(lines[i])["caption"] for i in (0, 1, 2, 4)]


@pytest.mark.slow
def test_two_processes_make_the_updates_of_one(data, learned, tmp_path):
    """By beam search and the greedy baseline, which draw nothing; a row of the second process cannot be read."""
    own = tmp_path / "data"
    own.mkdir()
    for name in ("images", "vocab"):
        (own / name).symlink_to(data / name)
    lines = (data / "train.jsonl").read_text().splitlines()
    lines[5] = json.dumps({**json.loads(lines[5]), "image": "images/absent.png"})
    (own / "train.jsonl").write_text("\n".join(lines) + "\n")
    flags = ("--criterion", "unival_grounding_scst", "--scst-args", '{"beam": 4, "nbest": 4}', "--baseline", "greedy")
    flags = (*SAME, *flags, *RUN, "--instruction", TWO_KINDS, "--acc-thresh", "0.8", "--on-bad-sample", "skip", "--max-epoch", "1")
    flags = (*flags, "--batch-size", "1", "--finetune-from-model", str(learned / "checkpoint_last.pt"))
    (tmp_path / "two").mkdir()
    run_on_two_ranks(tmp_path, runs.train_flags(own, tmp_path / "two", *flags))
    assert runs.train(own, tmp_path / "one", *flags, "--update-freq", "2") == 0
    one, two = (runs.log_lines(tmp_path / name, "gnorm") for name in ("one", "two"))
    assert len(one) == len(two) == ROWS // 2
    for first, second in zip(one, two, strict=True):
        for key in ("loss", "scst_loss", "reward", "baseline", "gnorm"):
            key = key if key in first else f"train_{key}"
            assert float(first[key]) == pytest.approx(float(second[key]), rel=2e-3, abs=2e-3), key
    assert any(float(line["reward"]) not in (0, float(line["baseline"])) for line in one[:-1])
