"""Reading ahead: the same batches from workers, from a thread and without either; one set at a time, none left."""

import gc
import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch
from torch.utils.data import Dataset

from unival.data.reading import THREAD, Reader, close_reader
from unival.errors import UserError


class Numbers(Dataset):
    """Row i is the tensor i; row 99 is broken."""

    def __getitem__(self, row):
        if row == 99:
            raise UserError("row 99 is broken")
        return torch.tensor(row)


armed = []  # the signal that comes with the next fork
os.register_at_fork(before=lambda: signal.raise_signal(armed.pop()) if armed else None)

BATCHES = [[0, 1], [2], [3, 4], [5], [6], [7], [8], [9, 10]]
WAYS = [{}, {"ahead": 2}, {"workers": 2}, {"workers": 1, "ahead": 5}]


def reader(batches=BATCHES, **options):
    return Reader(Numbers(), torch.stack, batches, **options)


def running():
    """Processes and threads of readers."""
    return len(multiprocessing.active_children()) + len([t for t in threading.enumerate() if t.name == THREAD])


@pytest.fixture(autouse=True)
def nothing_left():
    before = running()
    yield
    assert running() == before


@pytest.mark.parametrize("options", WAYS)
def test_batches_come_in_order_and_their_readers_end_with_the_last_one(options):
    before = running()
    itr = reader(**options)
    assert len(itr) == 8 and running() == before  # nothing starts before it is needed
    assert [next(itr).tolist() for _ in range(8)] == BATCHES
    assert running() == before
    with pytest.raises(StopIteration):
        next(itr)


@pytest.mark.parametrize("options", WAYS)
def test_a_reader_pauses_for_another_and_goes_on_where_it_was(options):
    before = running()
    first, second = reader(**options), reader([[7], [8], *BATCHES], **options)  # more than are read ahead
    seen = [next(first).tolist() for _ in range(3)]
    sizes = {running() - before}
    assert [next(second).tolist()] == [[7]]
    sizes.add(running() - before)
    seen += [next(first).tolist() for _ in range(5)]
    assert seen == BATCHES
    assert next(second).tolist() == [8]
    assert sizes == {options.get("workers", 1 if options else 0)}  # one set at a time
    close_reader()


@pytest.mark.parametrize("options", WAYS[1:])
def test_closing_ends_what_was_started(options):
    itr = reader(**options)
    next(itr)
    close_reader()
    close_reader()
    assert next(itr).tolist() == [2]
    itr.close()


@pytest.mark.parametrize("options", WAYS)
def test_an_error_in_a_row_ends_them_too(options):
    itr = reader([[0], [99], [1]], **options)
    assert next(itr).tolist() == [0]
    with pytest.raises(UserError, match="row 99 is broken"):
        next(itr)


def test_no_files_stay_open():
    def use():
        itr = reader(workers=2)
        next(itr)
        itr.close()

    def count():
        gc.collect()  # what other tests left may be closed at any time, in cycles of garbage for example
        return len(os.listdir("/proc/self/fd"))

    use()
    before = count()
    for _ in range(5):
        use()
    until = time.monotonic() + 10  # on a busy machine, what others have open for a moment is closed late
    while count() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert count() <= before


def test_reading_draws_no_global_random_numbers():
    state = torch.get_rng_state()
    for options in WAYS:
        next(itr := reader(**options))
        itr.close()
    assert torch.equal(state, torch.get_rng_state())


def test_ctrl_c_while_workers_start_is_not_lost():
    before = running(), signal.getsignal(signal.SIGINT)
    armed.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        next(reader(workers=2))
    assert (running(), signal.getsignal(signal.SIGINT)) == before and not armed


class Freed:
    """Part of a reference cycle; adds the process that frees it to a file."""

    def __init__(self, path):
        self.path, self.cycle = path, self

    def __del__(self):
        with self.path.open("a") as file:
            file.write(f"{os.getpid()}\n")


class Collecting(Numbers):
    """A garbage collection comes with every row."""

    def __getitem__(self, row):
        gc.collect()
        return super().__getitem__(row)


def test_workers_do_not_free_what_the_main_process_has_left(tmp_path):
    """It may be on a GPU, which a forked process cannot use."""
    gc.collect()
    gc.disable()
    try:
        Freed(tmp_path / "freed")
        assert len(list(Reader(Collecting(), torch.stack, BATCHES, workers=2))) == 8
        assert not (tmp_path / "freed").exists()
    finally:
        gc.enable()
    gc.collect()
    assert (tmp_path / "freed").read_text().split() == [str(os.getpid())]


class Collector(Numbers):
    """Every row is whether the garbage collector runs, and the number of objects that it leaves alone."""

    def __getitem__(self, row):
        return torch.tensor([gc.isenabled(), gc.get_freeze_count()])


@pytest.mark.parametrize("enabled", [True, False])
def test_workers_collect_only_their_own_garbage(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    gc.freeze()
    frozen = gc.get_freeze_count()
    try:
        rows = torch.cat(list(Reader(Collector(), torch.stack, BATCHES, workers=2)))
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() > frozen // 2  # some are freed by their counts of references
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
    assert rows[:, 0].bool().eq(enabled).all() and rows[:, 1].gt(frozen // 2).all()
