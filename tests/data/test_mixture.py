"""The plan of an epoch: every row once, no empty batch, as many on every process, whatever changes when a run is resumed."""

import itertools
import json
import math

import numpy as np
import pytest
from fairseq.data import iterators

from tests import tiny
from unival.data.mixture import EpochBatches, Mixture, mix, spread
from unival.data.plan import Batches, Rounds, shuffled
from unival.data.rows import RowTable
from unival.data.stream import Stream, TextLimits
from unival.errors import UserError
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def dataset(vocab, rows, train=True):
    table = RowTable([{"q": "red", "a": "blue"}] * rows)
    return Stream(table, parse("[TEXT:q] -> [TEXT:a]", MODALITIES), vocab, MediaOptions(patch_image_size=32), TextLimits(), train=train)


def mixture(vocab, *rows, weights=(), train=True):
    return Mixture([dataset(vocab, count, train) for count in rows], weights)


def update_of(epoch, rank_iterators, freq):
    """The rows of an epoch's updates on each rank, read as fairseq reads them: updates x ranks x rounds x rows."""
    groups = [iterators.GroupedIterator(itr.next_epoch_itr(), freq) for itr in rank_iterators]
    assert len({len(group) for group in groups}) == 1
    while groups[0].has_next():
        yield [[batch["id"].tolist() for batch in next(group)] for group in groups]


def test_rows_are_spread_over_processes_and_updates():
    settings = itertools.product(range(1, 31), (1, 2, 3, 5), (1, 2, 3, 4, 7), (1, 2, 3))
    for rows, size, ranks, freq in settings:
        where = f"{rows} rows, batches of {size}, {ranks} ranks, update frequency {freq}"
        batches = [np.arange(rows)[i : i + size] for i in range(0, rows, size)]
        batches = Batches.of(batches[1:] + batches[:1])  # the small one may be anywhere
        plan = spread(batches, ranks, freq)
        sizes = [len(batch) for batch in plan]
        assert sorted(np.concatenate(plan).tolist()) == list(range(rows)), where
        assert len(plan) % ranks == 0, where
        assert rows < ranks or min(sizes) > 0, where
        assert max(sizes) <= max(size, 2), where
        updates = math.ceil(len(batches) / (ranks * freq))
        for i in range(0, (updates - 2) * ranks * freq, ranks * freq):
            ours, theirs = plan[i : i + ranks * freq], batches[i : i + ranks * freq]
            assert np.array_equal(np.concatenate(ours), np.concatenate(theirs)), where
        if ranks == 1:
            assert plan is batches


def test_the_last_update_is_shared_evenly_by_hand():
    batches = [np.arange(start, start + 2) for start in (0, 2, 4, 6, 8)] + [np.array([10])]
    assert [batch.tolist() for batch in spread(Batches.of(batches[:5]), 2, 2)][4:] == [[8], [9]]
    # the last update has one row for two ranks, so the last two share theirs
    small = [batch.tolist() for batch in spread(Batches.of([*batches[:4], batches[5]]), 2, 1)]
    assert small == [[0, 1], [2, 3], [4, 5], [6], [7], [10]][: len(small)] and len(small) == 6
    # three batches of one row for two ranks: none is empty, so one grows
    assert [batch.tolist() for batch in spread(Batches.of([np.array([i]) for i in range(3)]), 2, 1)] == [[0, 1], [2]]


def test_batches_in_two_arrays_are_those_of_a_list():
    """Every slice, order and round; also of no batches, and of empty ones."""
    rng = np.random.default_rng(0)
    for count, ranks in itertools.product((0, 1, 6, 12), (1, 2, 3)):
        listed = [rng.integers(0, 100, rng.integers(0, 4)) for _ in range(count)]
        compact = Batches.of(listed)
        as_lists = lambda batches: [batch.tolist() for batch in batches]  # noqa: E731
        for which in (slice(None), slice(2, 5), slice(5, 2), slice(1, None, 2), slice(ranks, None), slice(7, 99)):
            part = compact[which]
            assert as_lists(part) == as_lists(listed[which]) and part.rows.tolist() == [row for batch in listed[which] for row in batch]
            assert part.sizes.tolist() == [len(batch) for batch in listed[which]]
        mixed = list(listed)
        np.random.RandomState(4).shuffle(mixed)
        assert as_lists(shuffled(compact, 4)) == as_lists(mixed), "as fairseq shuffles a list"
        for number in range(-count, count):
            assert compact[number].tolist() == listed[number].tolist()
        with pytest.raises(IndexError):
            compact[count]
        if count % ranks == 0:
            rounds = Rounds(compact[: count], ranks)
            assert [as_lists(each) for each in rounds] == [as_lists(listed[i : i + ranks]) for i in range(0, count, ranks)]
            assert [as_lists(rounds.of_rank(rank)) for rank in range(ranks)] == [as_lists(listed[rank::ranks]) for rank in range(ranks)]
            assert len(rounds) == len(rounds[:]) == count // ranks


def test_one_process_has_the_batches_of_fairseq(vocab):
    data = dataset(vocab, 13)
    ours = EpochBatches(Mixture([data]), 4, seed=5, update_freq=[2])
    theirs = iterators.EpochBatchIterator(
        data, data.collater, data.batch_by_size(data.ordered_indices(), max_sentences=4), seed=5
    )
    for shuffle in (True, False):
        mine, reference = ours.next_epoch_itr(shuffle=shuffle), theirs.next_epoch_itr(shuffle=shuffle)
        data.set_epoch(1)
        assert len(mine) == len(reference) == len(ours) == 4
        assert [batch["id"].tolist() for batch in mine] == [batch["id"].tolist() for batch in reference]
        ours.epoch = theirs.epoch = 0  # both give the first epoch again


def stretches(vocab, rows, settings):
    """Train one epoch in stretches of (ranks, update frequency, batch size, updates); returns how often each row was used."""
    used = np.zeros(rows, dtype=int)
    state = None
    for ranks, freq, size, updates in settings:
        workers = []
        for rank in range(ranks):
            itr = EpochBatches(mixture(vocab, rows), size, ranks=ranks, rank=rank, update_freq=[freq])
            if state is not None:
                itr.load_state_dict(json.loads(json.dumps(state)))
            workers.append(itr)
        for update in itertools.islice(update_of(1, workers, freq), updates):
            assert len({len(rank) for rank in update}) == 1  # as many batches on every rank
            for batch in itertools.chain(*update):
                used[batch] += 1
        state = workers[0].state_dict()
        if state["epoch"] == 2:
            break
    assert state["epoch"] == 2 and state["iterations_in_epoch"] == 0
    return used


def test_an_epoch_goes_on_with_other_processes_batches_and_update_frequencies(vocab):
    choices = [(1, 1, 4), (2, 2, 2), (3, 1, 3), (1, 3, 2), (2, 1, 1)]
    for first, second in itertools.product(choices, repeat=2):
        used = stretches(vocab, 37, [(*first, 2), (*second, 1), (*first, None)])
        assert used.tolist() == [1] * 37, (first, second)


def test_a_resumed_epoch_is_the_uninterrupted_one(vocab):
    def run(stop):
        """(rank, rows of a batch) in order, with a new start after ``stop`` updates."""
        seen, state = [], None
        for updates in (stop, None):
            workers = [
                EpochBatches(mixture(vocab, 23), 2, ranks=2, rank=rank, update_freq=[3, 2], epoch=1) for rank in (0, 1)
            ]
            for itr in workers:
                if state is not None:
                    itr.load_state_dict(state)
            seen += itertools.islice(update_of(1, workers, 3), updates)
            state = workers[0].state_dict()
            assert state["iterations_in_epoch"] == (3 * stop if updates else 0)
        return seen

    whole = [*update_of(1, [EpochBatches(mixture(vocab, 23), 2, ranks=2, rank=r, update_freq=[3, 2]) for r in (0, 1)], 3)]
    assert len(whole) == 2
    assert run(1) == whole


def test_update_frequencies_go_by_epoch(vocab):
    itr = EpochBatches(mixture(vocab, 8), 1, update_freq=[1, 4])
    counts = []
    for epoch in (1, 2, 3):
        assert len([*itr.next_epoch_itr()]) == 8 and itr.epoch == epoch
        counts.append(itr.updates)
    assert counts == [8, 2, 2]


def test_the_last_round_can_be_left_out(vocab):
    itr = EpochBatches(mixture(vocab, 9), 2, ranks=2, update_freq=[2], skip_remainder_batch=True)
    assert len(itr) == 2 and len([*itr.next_epoch_itr()]) == 2 and itr.end_of_epoch() and itr.updates == 1


def test_fewer_rows_than_processes(vocab):
    with pytest.raises(UserError, match="2 rows cannot be shared by 3 processes"):
        EpochBatches(mixture(vocab, 2), 4, ranks=3)
    validation = [[*EpochBatches(mixture(vocab, 2, train=False), 4, ranks=3, rank=r).next_epoch_itr()] for r in range(3)]
    assert [[batch["id"].tolist() for batch in rank] for rank in validation] == [[[0]], [[1]], [[]]]
    assert validation[2][0]["nsentences"] == 0 and "net_input" not in validation[2][0]


def test_another_table_within_an_epoch_is_refused(vocab):
    itr = EpochBatches(mixture(vocab, 6), 2)
    next(itr.next_epoch_itr())
    state = itr.state_dict()
    with pytest.raises(UserError, match="has 5 rows, but had 6.*--reset-dataloader"):
        EpochBatches(mixture(vocab, 5), 2).load_state_dict(state)


def test_fairseqs_own_position_is_understood(vocab):
    """Checkpoints from before the plan hold a count of batches."""
    whole = [batch["id"].tolist() for batch in EpochBatches(mixture(vocab, 12), 2).next_epoch_itr()]
    resumed = EpochBatches(mixture(vocab, 12), 2)
    resumed.load_state_dict({"version": 2, "epoch": 1, "iterations_in_epoch": 4, "shuffle": True})
    assert [batch["id"].tolist() for batch in resumed.next_epoch_itr()] == whole[4:]


@pytest.mark.parametrize("skip", [False, True], ids=["whole epochs", "without the last batch"])
def test_how_many_updates_an_epoch_has_is_known_before_it_begins(vocab, skip):
    """For any rows, batches, processes and update frequencies, and of what is left of an epoch that is resumed."""
    told = []
    for rows, size, ranks, freqs in itertools.product((7, 8, 13), (1, 2, 3), (1, 2, 3), ([1], [2], [3, 1])):
        setting = {"update_freq": freqs, "ranks": ranks, "skip_remainder_batch": skip, "on_epoch": told.append}
        batches = EpochBatches(mixture(vocab, rows), size, **setting)
        planned = [batches.length(epoch) for epoch in (1, 2)]
        found = []
        for epoch in (1, 2):
            whole = batches.next_epoch_itr()
            assert told.pop() is batches and batches.epoch == epoch
            groups = iterators.GroupedIterator(whole, batches.rounds_per_update(epoch), skip_remainder_batch=skip)
            assert batches.updates_left == batches.updates == len(groups)
            found.append(len(groups))
            for done, _ in enumerate(groups, start=1):
                if done == 1 and len(groups) > 1:
                    state = batches.state_dict()
                    resumed = EpochBatches(mixture(vocab, rows), size, **setting)
                    resumed.load_state_dict(state)
                    resumed.next_epoch_itr()
                    assert told.pop() is resumed and resumed.updates_left == len(groups) - 1
            list(whole)  # what a skipped last update leaves
        assert found == planned, (rows, size, ranks, freqs)


# --- several streams -----------------------------------------------------------------------------------------------------------


def test_in_a_round_all_ranks_have_as_many_rows_of_a_stream():
    settings = itertools.product([(1,), (7, 30), (3, 3, 3), (40, 2, 11), (5, 0, 9)], (1, 2, 3, 5), (1, 2, 3, 7))
    for rows, size, ranks in settings:
        where = f"{rows} rows, batches of {size}, {ranks} ranks"
        starts = np.cumsum([0, *rows])
        plan = mix([np.arange(start, end) for start, end in itertools.pairwise(starts)], ranks, size)
        owners = [np.searchsorted(starts, batch, side="right") - 1 for batch in plan]
        counts = np.array([[(owner == stream).sum() for stream in range(len(rows))] for owner in owners]).reshape(-1, ranks, len(rows))
        assert (counts == counts[:, :1]).all(), where
        sizes = counts.sum(-1)
        assert (sizes[:-1] == size).all() and (sizes > 0).all() and (sizes <= size).all(), where
        used = np.concatenate([[0], *plan]).astype(int)[1:]
        assert len(set(used)) == len(used), where
        left = [count - (np.searchsorted(starts, used, side="right") - 1 == stream).sum() for stream, count in enumerate(rows)]
        assert left == [count % ranks for count in rows], where
        for stream, count in enumerate(rows):  # spread evenly: a stream is never ahead or behind by more than what a round rounds to
            shares = np.cumsum(counts[:, 0, stream]) / max(count // ranks, 1)
            done = np.cumsum(sizes[:, 0]) / max(sizes[:, 0].sum(), 1)
            assert count < ranks or np.abs(shares - done).max() <= len(rows) / max(count // ranks, 1), where


def test_weights_say_how_often_rows_are_read(vocab):
    mixed = mixture(vocab, 10, 4, weights=[0.5, 2.5])
    assert mixed.rows == [5, 10]
    seen = np.zeros((2, 10), dtype=int)
    for epoch in range(1, 41):
        mixed.set_epoch(epoch)
        first, second = mixed.orders()
        assert len(set(first)) == 5 and first.max() < 10, "no row twice where half of them are read"
        rows = [mixed[number][0].row for number in second]
        assert sorted(rows[:4]) == sorted(rows[4:8]) == [0, 1, 2, 3] and len(set(rows[8:])) == 2
        np.add.at(seen[0], first, 1)
        np.add.at(seen[1], rows, 1)
    assert seen[0].min() > 10 and seen[1, :4].tolist() != [100] * 4, "another half in another epoch"
    assert [mixed[number][0].stream for number in (0, 9, 10, 13, 14, 21)] == [0, 0, 1, 1, 1, 1]
    for weights in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(UserError, match="weights"):
            mixture(vocab, 10, 4, weights=weights)
    with pytest.raises(UserError, match="at least one stream"):
        Mixture([], [])


def test_what_is_drawn_depends_on_stream_and_pass(vocab):
    """A row of the first stream is drawn as in a plain data set; another stream and another pass draw for themselves."""
    def stream():
        table = RowTable([{"q": "red", "a": ["blue", "green", "red", "black"]}] * 30)
        return Stream(table, parse("[TEXT:q] -> [TEXT:a]", MODALITIES), vocab, MediaOptions(patch_image_size=32), TextLimits(), train=True)

    def drawn(read, start):
        return [read[number][0].target.tolist() for number in range(start, start + 30)]

    mixed = Mixture([stream(), stream()], [1, 2])
    first, second, again = drawn(mixed, 0), drawn(mixed, 30), drawn(mixed, 60)
    assert first == drawn(stream(), 0) and first != second != again != first
    assert drawn(Mixture([stream(), stream()], [3, 2]), 90) == second, "whatever stands before it"
    assert mixed.orders()[0].tolist() == stream().ordered_indices().tolist() != (mixed.orders()[1][:30] - 30).tolist()


def test_an_epoch_of_several_streams_goes_on_with_other_processes(vocab):
    """No row twice, of every stream fewer rows left out than there are processes; one that nobody stopped is the same."""
    rows = (37, 11, 5)
    whole = list(update_of(1, [EpochBatches(mixture(vocab, *rows), 4)], 1))
    for first, second in [((1, 1, 4), (1, 1, 4)), ((2, 2, 4), (3, 1, 3)), ((3, 1, 2), (1, 2, 5))]:
        used, state, updates = np.zeros(sum(rows), dtype=int), None, []
        for (ranks, freq, size), stop in ((first, 2), (second, None)):
            workers = [EpochBatches(mixture(vocab, *rows), size, ranks=ranks, rank=r, update_freq=[freq]) for r in range(ranks)]
            for itr in workers:
                if state is not None:
                    itr.load_state_dict(json.loads(json.dumps(state)))
            assert workers[0].length(1) == math.ceil(len(workers[0]) / freq)
            plan = workers[0].rounds(1, True, workers[0]._before)
            used_now = plan if stop is None else plan[: stop * freq]
            for batches in used_now:
                for batch in batches:
                    assert len(batch) and (used[batch] == 0).all()
                    used[batch] += 1
            updates += itertools.islice(update_of(1, workers, freq), stop)
            state = workers[0].state_dict()
        starts = np.cumsum([0, *rows])
        most = first[0] + second[0] - 2
        assert all(end - start - used[start:end].sum() <= most for start, end in itertools.pairwise(starts))
        if first == second:
            assert updates == whole
    state = EpochBatches(mixture(vocab, 6, 6), 2)
    next(state.next_epoch_itr())
    with pytest.raises(UserError, match=r"has \[6, 5\] rows, but had \[6, 6\]"):
        EpochBatches(mixture(vocab, 6, 5), 2).load_state_dict(state.state_dict())
    with pytest.raises(UserError, match="2 rows cannot be shared by 3 processes"):
        EpochBatches(mixture(vocab, 6, 2), 2, ranks=3)


def test_a_batch_of_several_streams_names_them(vocab):
    mixed = mixture(vocab, 3, 2)
    batch = mixed.collater([mixed[4], mixed[0], mixed[3]])
    assert batch["id"].tolist() == [1, 0, 0] and batch["stream"].tolist() == [1, 0, 1] and batch["stream_names"] == ["rows.0", "rows.1"]
    alone = mixture(vocab, 3)
    assert "stream_names" not in alone.collater([alone[0]])
