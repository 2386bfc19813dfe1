"""What training never shows: pairs, objects, places and hues of the splits are disjoint."""

from itertools import combinations

import numpy as np
import pytest

from data_utils.sampler import splits
from data_utils.sampler.errors import UserError

NAMES = [f"thing{number}" for number in range(47)]


@pytest.fixture(scope="module")
def plan():
    return splits.make_plan(NAMES, unseen=7, most=4, seed=3)


def pairs(names):
    return {tuple(sorted(pair)) for pair in combinations(names, 2)}


def test_objects_are_dealt_out_once(plan):
    assert len(plan.known) == 40 and len(plan.unseen) == 7 and not set(plan.known) & set(plan.unseen)
    for groups in (plan.rows, plan.columns):
        dealt = [name for group in groups for name in group]
        assert sorted(dealt) == sorted(plan.known)
    held_out = plan.held_out
    assert not set(held_out["valid"]) & set(held_out["test"])
    assert 0.05 < len(held_out["test"]) / len(pairs(plan.known)) < 0.2


@pytest.mark.parametrize("count", [2, 3, 4])
def test_pairs_that_meet_belong_to_their_split(plan, count):
    held_out = {split: set(found) for split, found in plan.held_out.items()}
    for row in range(200):
        rng = np.random.default_rng(row)
        for split in splits.SPLITS:
            names = plan.draw(split, count, rng)
            assert len(set(names)) == count and set(names) <= set(plan.names_for(split))
            if split in held_out:
                assert pairs(names) <= held_out[split]
            elif split == "train":
                assert not pairs(names) & (held_out["valid"] | held_out["test"])


def test_training_shows_every_object_and_most_pairs(plan):
    rng = np.random.default_rng(0)
    shown = [plan.draw("train", 2, rng) for _ in range(5000)]
    assert {name for names in shown for name in names} == set(plan.known)
    open_pairs = len(pairs(plan.known)) - sum(len(found) for found in plan.held_out.values())
    assert len({tuple(sorted(names)) for names in shown}) > 0.9 * open_pairs


def test_places_and_hues_are_disjoint():
    masks = [splits.places(split, 96) for split in ("train", "valid", "test")]
    assert (np.sum(masks, axis=0) == 1).all()
    sectors = [set(splits.hues(split)) for split in ("train", "valid", "test")]
    assert sum(map(len, sectors)) == len(set().union(*sectors)) == splits.HUE_SECTORS
    assert splits.hues("test_unseen") == splits.hues("test")
    assert (splits.places("test_unseen", 64) == splits.places("test", 64)).all()


@pytest.mark.parametrize(
    ("count", "unseen", "most", "message"),
    [(6, 0, 4, "--objects 6: too few"), (30, 1, 2, "--unseen-objects 1: too few"), (2, 0, 2, "--objects 2: too few")],
)
def test_too_few_objects(count, unseen, most, message):
    with pytest.raises(UserError, match=message):
        splits.make_plan(NAMES[: count + unseen], unseen, most, seed=0)
