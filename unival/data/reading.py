"""Batches in order, read ahead by worker processes or by a thread: one set of readers at a time, none left behind.

An iterator that nobody exhausts (a run stops within an epoch, a validation is cut short) would keep its workers until garbage collection,
and workers that are forked meanwhile would inherit it.  Here opening a reader closes the one that is open, and a reader that was closed
goes on where it was when it is asked for its next batch: training pauses for a validation within an epoch, which costs the
batches that were read ahead.
"""

import atexit
import contextlib
import functools
import math
import multiprocessing.util
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

READY_PER_WORKER = 2  # batches that a worker reads ahead at least; torch's own default
POLL_SECONDS = 0.02
STOPS = (signal.SIGINT, signal.SIGTERM)
THREAD = "unival: reads batches ahead"

Batch = dict[str, Any]
Rows = Iterable[int]

_opened: "Reader | None" = None  # the one reader that has workers or a thread


class Reader:
    """An iterator over the batches of a data set.

    Args:
        dataset: rows by number.
        collate: rows -> a batch.
        batches: the rows of each batch.
        workers: processes that read; 0: this one.
        ahead: batches to read ahead; 0 without workers: each batch is read when it is asked for.
        pin_memory: batches of workers lie in page-locked memory, from where a GPU takes them faster.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Batch],
        batches: Sequence[Rows],
        *,
        workers: int = 0,
        ahead: int = 0,
        pin_memory: bool = False,
    ):
        self.dataset = dataset
        self.collate = collate
        self.batches = batches
        self.workers = workers
        self.ahead = ahead
        self.pin_memory = pin_memory
        self.position = 0  # batches handed out
        self._source: Workers | Ahead | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> "Reader":
        return self

    def __next__(self) -> Batch:
        if self.position == len(self.batches):
            raise StopIteration
        if not self.workers and not self.ahead:
            batch = self.collate([self.dataset[row] for row in self.batches[self.position]])
        else:
            try:
                batch = next(self._source or self._open())
            except BaseException:
                self.close()
                raise
        self.position += 1
        if self.position == len(self.batches):
            self.close()
        return batch

    def _open(self) -> "Workers | Ahead":
        global _opened
        close_reader()
        close_at_exit()
        rest = self.batches[self.position :]
        _opened = self
        if self.workers:
            with signals_held():
                self._source = Workers(self.dataset, self.collate, rest, self.workers, self.ahead, self.pin_memory)
        else:
            self._source = Ahead(self.dataset, self.collate, rest, self.ahead)
        return self._source

    def close(self) -> None:
        """End the workers or the thread; the next batch, if it is asked for, starts new ones."""
        global _opened
        if self._source is not None:
            source, self._source = self._source, None
            source.close()
        if _opened is self:
            _opened = None


class Workers:
    """Batches from worker processes, through torch's ``DataLoader``."""

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Batch],
        batches: Sequence[Rows],
        workers: int,
        ahead: int,
        pin_memory: bool,
    ):
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of rows will do
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=max(READY_PER_WORKER, math.ceil(ahead / workers)),
            pin_memory=pin_memory,
            worker_init_fn=ignore_interrupts,
            generator=torch.Generator(),  # seeds the workers, whose data draw nothing from it; else from the global generator
        )
        self._batches = iter(loader)

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        """End the processes now, not when the iterator is collected: nothing else makes torch do so."""
        self._batches._shutdown_workers()  # type: ignore[attr-defined]


class Ahead:
    """Batches from a thread of this process."""

    def __init__(
        self, dataset: Dataset[Any], collate: Callable[[list[Any]], Batch], batches: Sequence[Rows], ahead: int
    ):
        self._ready: queue.Queue[Batch | Exception] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(dataset, collate, batches), name=THREAD, daemon=True)
        self._thread.start()

    def _run(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Batch], batches: Sequence[Rows]) -> None:
        try:
            for batch in batches:
                examples = []
                for row in batch:
                    if self._stop.is_set():
                        return
                    examples.append(dataset[row])
                self._ready.put(collate(examples))
        except Exception as error:  # noqa: BLE001  raised where the batch is asked for
            self._ready.put(error)

    def __next__(self) -> Batch:
        item = self._ready.get()
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """End the thread after the row that it is reading."""
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):  # make room for a batch that it waits to hand over
                self._ready.get(timeout=POLL_SECONDS)


def ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the main one closes the workers, which say nothing, also when torch ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM inside wait for the end: while a process forks, Python prints and drops what its handlers raise."""
    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in STOPS}
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
    for number in came:
        signal.raise_signal(number)


def close_reader() -> None:
    """Close the reader that is open, if one is: when another starts and when a run ends, however it ends."""
    if _opened is not None:
        _opened.close()


@functools.cache
def close_at_exit() -> None:
    """Once per process: close what is open before torch and multiprocessing end, and keep temporary files in one place.

    Workers hand over tensors by sockets in a temporary folder.  A worker's own would stay if it were killed; this process removes its own.
    """
    multiprocessing.util.get_temp_dir()
    atexit.register(close_reader)
