"""Epochs of bounded length over several streams: the promised proportions, pass by pass, resumed anywhere, equal on all ranks."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from tests.data.test_mixture import dataset, update_of
from tests.data.test_mixture import vocab as vocab
from unival.data.bounded import PLACE, WHOLE, BoundedPlan, Segment, SharesByEpoch, deal
from unival.data.mixture import EpochBatches, Mixture
from unival.errors import UserError


def bounded(vocab, sizes, shares, rows, **settings):
    return Mixture([dataset(vocab, size) for size in sizes], shares=shares, rows_per_epoch=rows, **settings)


def ranks_of(make, batch_size, ranks=1, state=None, **settings):
    """The iterators of all ranks, each over a mixture of its own, as in processes of their own."""
    iterators = [EpochBatches(make(), batch_size, ranks=ranks, rank=rank, **settings) for rank in range(ranks)]
    for iterator in iterators if state is not None else ():
        iterator.load_state_dict(json.loads(json.dumps(state)))
    return iterators


def planned(iterator, epoch):
    """The row numbers of an epoch: rounds x ranks x rows."""
    return iterator.rounds(epoch, True, [])


def places(rows):
    return np.asarray(rows) >> PLACE


@pytest.mark.parametrize("ranks, size", [(1, 1), (1, 7), (4, 3), (3, 32)])
def test_every_stream_has_what_was_promised_to_less_than_a_piece_after_every_round(ranks, size):
    """One large stream beside many small ones, alike ones, one of share 0, shares that change, rounds that are cut, debts from before."""
    rng = np.random.default_rng([ranks, size])
    cases = [[0.5, *[0.01] * 50], [1, 1, 1], [1], [3, 0, 2], [100_000, 3], *rng.random((6, 5)) ** 4]
    for case in map(np.asarray, cases):
        streams, updates = len(case), 40
        weights = BoundedPlan([None] * streams, case.tolist(), 1).weights(range(updates))
        changing = BoundedPlan([None] * streams, lambda u, case=case: case + u / 10 * case[::-1], 1).weights(range(updates))
        for each, freq in itertools.product((weights, changing), (1, 2)):
            of_round = np.arange(updates * freq) // freq
            sizes = np.full(len(of_round), size)
            sizes[-1] = 1
            owed = np.diff(np.sort(rng.integers(0, ranks * WHOLE, streams - 1)), prepend=0, append=0) if streams > 1 else np.zeros(1, int)
            counts = deal(owed.tolist(), each, of_round, sizes, ranks)
            assert (counts.sum(1) == sizes).all() and counts.min() >= 0
            promised = owed / ranks + np.cumsum(each[of_round] * sizes[:, None], axis=0)
            assert (np.abs(promised - np.cumsum(counts, axis=0) * WHOLE) < WHOLE).all(), (case, freq)
            assert not counts[:, (each == 0).all(0) & (owed == 0)].any()


def test_shares_move_with_the_updates_to_within_a_piece(vocab):
    """From (1, 0) to (1/4, 3/4) over 20 updates, and 10 more; two rounds of 8 rows to an update, in epochs of 7 updates."""
    def shares(update):
        moved = min(update / 20, 1)
        return [1 - 0.75 * moved, 0.75 * moved]

    batches = EpochBatches(bounded(vocab, (50, 70), shares, 7 * 16), 8, update_freq=[2])
    found = []
    for epoch in range(1, 6):
        assert batches.length(epoch) == 7
        found += [(places(np.concatenate(batch)) == 1).sum() for batch in planned(batches, epoch)]
    of_updates = np.cumsum(np.reshape(found, (-1, 2)).sum(1))
    promised = np.cumsum([16 * shares(update)[1] for update in range(35)])
    assert np.abs(of_updates - promised).max() < 1 + 1e-6 and of_updates[-1] > 200
    assert found[:2] == [0, 0] and batches.plan.position(6, batches.setting).updates == 35


def test_every_row_is_read_once_per_pass_across_epochs(vocab):
    """Three rows beside 100,000, on three ranks; an epoch is a tenth of the large table and ends within passes."""
    make = lambda: bounded(vocab, (100_000, 3, 40), [8, 1, 1], 10_001)  # noqa: E731
    iterator = ranks_of(make, 4, ranks=3)[0]
    read = [np.empty(0, dtype=int) for _ in range(3)]
    for epoch in range(1, 13):
        rounds = planned(iterator, epoch)
        assert all(len(ranks) == 3 and min(map(len, ranks)) > 0 for ranks in rounds)
        assert all((places(batch) == places(ranks[0])).all() for ranks in rounds for batch in ranks), "the same kinds on all ranks"
        order = np.array([batch[i] for ranks in rounds for i in range(len(ranks[0])) for batch in ranks])  # piece by piece
        assert len(order) == 10_001 // 3 * 3
        for stream in range(3):
            read[stream] = np.concatenate([read[stream], order[places(order) == stream] - (stream << PLACE)])
    for numbers, size in zip(read, (100_000, 3, 40), strict=True):
        whole = len(numbers) // size * size
        passes = numbers[:whole].reshape(-1, size)
        assert (np.sort(passes) == np.arange(size) + size * np.arange(len(passes))[:, None]).all()
        assert len(set(numbers)) == len(numbers)
        orders = passes % size
        assert len({tuple(order) for order in orders[:, :40].tolist()}) >= min(len(passes), 6), "each pass in its own order"
    first = Counter(map(tuple, read[1][:3000].reshape(-1, 3) % 3))
    assert len(first) == 6 and max(first.values()) < 250, "all orders of three rows are equally likely"
    assert abs(len(read[0]) / 120_000 - 0.8) < 1e-4


def test_proportions_of_real_batches(vocab):
    """Chi-square of every process and of all: rows of batches as training has them against the promised shares."""
    shares = [0.6, 0.3, 0.1]
    total = np.zeros(3)
    for iterator in ranks_of(lambda: bounded(vocab, (90, 5, 30), shares, 240), 5, ranks=2):
        seen = np.zeros(3)
        for _ in range(2):
            batches = list(iterator.next_epoch_itr())
            assert len(batches) == 24 and {batch["nsentences"] for batch in batches} == {5}
            for batch in batches:
                assert batch["stream_names"] == ["rows.0", "rows.1", "rows.2"]
                seen += np.bincount(batch["stream"].numpy(), minlength=3)
        expected = seen.sum() * np.array(shares)
        assert ((seen - expected) ** 2 / expected).sum() < 0.103, "closer than 95 % of random draws would be"
        total += seen
    assert total.tolist() == [288, 144, 48]


@pytest.mark.parametrize("skip", [False, True], ids=["whole epochs", "whole updates"])
def test_a_run_goes_on_with_the_same_bits_or_with_other_settings(vocab, skip):
    """Stopped after every update of three epochs; then the same, or other ranks, batch sizes and update frequencies."""
    sizes, shares = (37, 11, 5), lambda update: [3, 1 + update / 4, 1]  # noqa: E731
    first = {"batch_size": 4, "ranks": 2, "update_freq": [3], "skip_remainder_batch": skip}
    make = lambda: bounded(vocab, sizes, shares, 70)  # noqa: E731

    def run(iterators, epochs, stop=None):
        """Updates of the ranks until ``stop``, and the state then."""
        updates = []
        while len(updates) != stop and (not updates or iterators[0].next_epoch_idx <= epochs):
            epoch = iterators[0].next_epoch_idx
            wanted = None if stop is None else stop - len(updates)
            updates += itertools.islice(update_of(epoch, iterators, iterators[0].rounds_per_update(epoch)), wanted)
        return updates, iterators[0].state_dict()

    whole, _ = run(ranks_of(make, **first), 3)
    per_epoch = ranks_of(make, **first)[0].length(1)
    assert len(whole) == 3 * per_epoch == (6 if skip else 9)
    for stop in range(1, len(whole)):
        begun, state = run(ranks_of(make, **first), 3, stop)
        assert begun == whole[:stop] and state["epoch"] == stop // per_epoch + 1
        assert run(ranks_of(make, **first, state=state), 3)[0] == whole[stop:], stop
    for stop, other in itertools.product((2, per_epoch, 4), ({"ranks": 3, "batch_size": 2}, {"ranks": 1}, {"update_freq": [1]})):
        iterators = ranks_of(make, **first)
        position = iterators[0].plan.start()
        run(iterators, 3, stop)
        state = iterators[0].state_dict()
        position = iterators[0].plan.position(state["epoch"], iterators[0].setting)
        resumed = ranks_of(make, **{**first, **other, "state": state})
        saved, new = state["plan"], resumed[0]
        numbers = np.concatenate([batch for ranks in planned(new, state["epoch"]) for batch in ranks])
        for place, size in enumerate(sizes):
            mine = np.sort(numbers[places(numbers) == place] - (place << PLACE))
            walk = new.mixture.streams[place].walk(saved["read"][place], len(mine))
            assert (np.sort(walk) == mine).all(), "neither lost nor twice"
            assert len(np.unique(new.mixture.streams[place].walk(0, size))) == size
        assert run(resumed, 4)[0], "and on to the end"
        assert position.updates <= saved["updates"] == stop


def test_epochs_that_nobody_planned_are_those_of_the_run(vocab):
    """A position that is not in a checkpoint is found by counting from the beginning."""
    make = lambda: bounded(vocab, (37, 11), [2, 1], 20)  # noqa: E731
    (walked,), (jumped,) = ranks_of(make, 3), ranks_of(make, 3, epoch=3)
    for _ in range(3):
        batches = [batch["id"].tolist() for batch in walked.next_epoch_itr()]
    assert [batch["id"].tolist() for batch in jumped.next_epoch_itr()] == batches


def test_a_stream_keeps_its_rows_whatever_stands_beside_it(vocab):
    """By its number in the file: what it reads and draws is the same in another stage."""
    both, alone = bounded(vocab, (9, 12), [1, 1], 24, numbers=[2, 5]), bounded(vocab, (12,), [1], 12, numbers=[5])
    one, two = EpochBatches(both, 4), EpochBatches(alone, 4)
    rows = np.concatenate([np.concatenate(ranks) for ranks in planned(one, 1)])
    only = np.concatenate([np.concatenate(ranks) for ranks in planned(two, 1)])
    assert (rows[places(rows) == 1] - (1 << PLACE)).tolist() == only.tolist() != list(range(12))
    batch = next(one.next_epoch_itr())
    assert sorted(set(batch["stream"].tolist())) == [0, 1] and batch["stream_names"] == ["rows.0", "rows.1"]


class Dynamic:
    """Shares that follow from what was learned so far: the worse a stream is, the more of it the next epoch reads."""

    def __init__(self):
        self.loss = [9, 6]
        self.asked = []

    def decide(self, epoch):
        self.asked.append(epoch)
        return list(self.loss)

    def learn(self, streams):
        self.loss = [loss - (streams == place).sum() / 4 for place, loss in enumerate(self.loss)]


@pytest.mark.parametrize("is_moving", [False, True], ids=["constant within an epoch", "in a transition"])
def test_shares_that_are_decided_by_epoch_are_resumed_with_the_same_bits(vocab, is_moving):
    """What was decided for an epoch stays, also where it is resumed within the epoch, when other things are known."""

    def start():
        method = Dynamic()
        follow = (lambda decided: lambda update: [decided[0] * update, decided[1]]) if is_moving else (lambda decided: decided)
        return method, EpochBatches(bounded(vocab, (30, 20), SharesByEpoch(method.decide, follow), 12), 3)

    def run(method, iterator, updates):
        """The rows of so many updates, and then the state of the iterator and of the method."""
        found = []
        while len(found) < updates:
            for batch in itertools.islice(iterator.next_epoch_itr(), updates - len(found)):
                found.append([*zip(batch["stream"].tolist(), batch["id"].tolist(), strict=True)])
                method.learn(batch["stream"].numpy())
        return found, json.loads(json.dumps(iterator.state_dict())), list(method.loss)

    method, iterator = start()
    whole = run(method, iterator, 12)[0]
    assert method.asked == [1, 2, 3] and method.loss[0] != method.loss[1]
    of_epochs = [sum(stream for batch in whole[i : i + 4] for stream, _ in batch) for i in (0, 4, 8)]
    assert len(set(of_epochs)) > 1, "shares change"
    for stop in range(1, 12):
        begun, state, loss = run(*start(), stop)
        method, iterator = start()
        iterator.load_state_dict(state)  # fairseq resumes the iterator before the task
        method.loss = loss
        assert (begun, run(method, iterator, 12 - stop)[0]) == (whole[:stop], whole[stop:]), stop


def test_what_cannot_be_planned_is_said(vocab):
    for shares in ([1.0], [0, 0], [1, -1], [1, math.nan], lambda update: [1, 2, 3]):
        with pytest.raises(UserError, match="shares of 2 streams: expected as many numbers, none negative and not all 0, got"):
            bounded(vocab, (3, 4), shares, 10)
    with pytest.raises(UserError, match="0 rows per epoch: expected at least 1"):
        bounded(vocab, (3, 4), [1, 1], 0)
    (iterator,) = ranks_of(lambda: bounded(vocab, (6, 6), [1, 1], 8), 2)
    list(iterator.next_epoch_itr())
    state = iterator.state_dict()
    assert state["epoch"] == 2 and state["plan"]["read"] == (4, 4)
    with pytest.raises(UserError, match=r"has \[6, 7\] rows, but had \[6, 6\] when the checkpoint was saved: .*--reset-dataloader"):
        ranks_of(lambda: bounded(vocab, (6, 7), [1, 1], 8), 2, state=state)


def test_an_epoch_has_at_least_one_piece():
    plan = BoundedPlan([None], [1], 2)
    assert plan.length(Segment(ranks=5, update_freq=1, batch_size=4, rounds=0)) == 1


# --- evaluation ------------------------------------------------------------------------------------------------------------------


def test_in_evaluation_streams_follow_each_other_and_no_batch_has_two(vocab):
    """Every row once, whatever the ranks; in a round all ranks have the same stream; with fewer rows than ranks some batches are empty."""
    sizes = (7, 1, 4)
    for size, ranks in itertools.product((1, 3, 8), (1, 2, 3)):
        make = lambda: Mixture([dataset(vocab, count, train=False) for count in sizes], numbers=[4, 0, 2])  # noqa: E731
        found = [[*iterator.next_epoch_itr(shuffle=False)] for iterator in ranks_of(make, size, ranks=ranks)]
        seen = Counter()
        for batches in zip(*found, strict=True):
            kinds = [set(batch["stream"].tolist()) for batch in batches]
            assert len(set.union(*kinds)) == 1 and max(map(len, kinds)) == 1
            seen.update((int(stream), int(row)) for batch in batches for stream, row in zip(batch["stream"], batch["id"], strict=True))
            assert {tuple(batch["stream_names"]) for batch in batches} == {("rows.0", "rows.1", "rows.2")}
        assert seen == Counter((stream, row) for stream, count in enumerate(sizes) for row in range(count))
        order = [batch["stream"][0].item() for batch in found[0]]
        assert order == sorted(order)


def test_shards_of_evaluation_share_the_rows(vocab):
    """A stream of one row is in one of three shards only; more shards than the largest stream has rows are refused."""
    seen = Counter()
    for number in range(3):
        mixture = Mixture([dataset(vocab, count, train=False) for count in (5, 1, 3)])
        mixture.split = "valid"
        mixture.take_shard(number, 3)
        for batch in EpochBatches(mixture, 2).next_epoch_itr(shuffle=False):
            assert batch["nsentences"] and batch["split"] == "valid"
            seen.update(zip(batch["stream"].tolist(), batch["id"].tolist(), strict=True))
    assert seen == Counter((stream, row) for stream, count in enumerate((5, 1, 3)) for row in range(count))
    with pytest.raises(UserError, match="--num-shards 6: rows has 5 rows only"):
        Mixture([dataset(vocab, count, train=False) for count in (5, 1)]).take_shard(0, 6)
