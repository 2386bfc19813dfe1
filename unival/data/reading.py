"""Read batches in order and ahead of time, with worker processes or a thread, of which only one reader has any at a time.

An iterator that is not exhausted (a run stops within an epoch, or a validation is cut short) would keep its workers until garbage
collection, and workers that are forked in the meantime would inherit it. Therefore opening a reader closes the one that is open. A
closed reader continues where it was when its next batch is requested, as training does after a validation within an epoch; only the
batches that were read ahead are lost.
"""

import atexit
import contextlib
import functools
import gc
import math
import multiprocessing.util
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from unival.errors import UserError

READY_PER_WORKER = 2  # least number of batches that a worker reads ahead; torch's default
POLL_SECONDS = 0.02
STOPS = (signal.SIGINT, signal.SIGTERM)
THREAD = "unival: reads batches ahead"

Batch = Any  # what collate returns
Rows = Iterable[int]

_opened: "Reader | None" = None  # the only reader that has workers or a thread


class Reader:
    """An iterator over the batches of a data set.

    Args:
        dataset: examples by row number.
        collate: list of examples -> batch.
        batches: row numbers of each batch.
        workers: number of worker processes; 0: read in this process.
        ahead: number of batches to read ahead; with 0 and no workers, a batch is read when it is requested.
        pin_memory: whether workers put batches into page-locked memory, from which copies to a GPU are faster.
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
        self.position = 0  # number of batches returned so far
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
        """Stop the workers or the thread; requesting another batch starts new ones."""
        global _opened
        if self._source is not None:
            source, self._source = self._source, None
            source.close()
        if _opened is self:
            _opened = None


def in_order(rows: int, size: int) -> list[range]:
    """The row numbers of batches of so many rows, one after the other; the last may be smaller."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


class RowsOrErrors(Dataset[Any]):
    """What a stream reads of every row (``stream.read(row)``), or the error of a row that cannot be read."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getitem__(self, row: int) -> Any:
        try:
            return self.stream.read(row)
        except UserError as error:
            return error


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
            batch_sampler=batches,  # type: ignore[arg-type]  # torch accepts any iterable of row numbers
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=max(READY_PER_WORKER, math.ceil(ahead / workers)),
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(begin_worker, gc.isenabled()),
            generator=torch.Generator(),  # for the seeds of workers, which are not used, instead of the global generator
        )
        with garbage_kept():
            self._batches = iter(loader)

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        """Stop the processes now instead of at garbage collection; torch has no public method for it."""
        self._batches._shutdown_workers()  # type: ignore[attr-defined]


class Ahead:
    """Batches from a thread of this process."""

    def __init__(
        self, dataset: Dataset[Any], collate: Callable[[list[Any]], Batch], batches: Sequence[Rows], ahead: int
    ):
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(ahead)
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
        except BaseException as error:  # noqa: BLE001  raised again where the batch is requested
            self._ready.put(error)

    def __next__(self) -> Batch:
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop the thread after the row that it is reading."""
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):  # make room for a batch that it waits to put
                self._ready.get(timeout=POLL_SECONDS)


def begin_worker(collects: bool, worker: int) -> None:
    """Make a worker ignore Ctrl-C, which reaches all processes of a terminal: the main process stops the workers.

    Args:
        collects: whether it collects its own garbage; that of the main process it keeps, see :func:`garbage_kept`.
        worker: its number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    if collects:
        gc.enable()


def read_ahead(dataset: Dataset[Any], batches: Sequence[Rows]) -> Generator[list[Any], None, None]:
    """The examples of each batch; a thread reads one while the caller works on the one before.  Any number of these may be open."""
    if len(batches) < 2:
        yield from ([dataset[row] for row in batch] for batch in batches)
        return
    source = Ahead(dataset, list, batches, 1)
    try:
        for _ in batches:
            yield next(source)
    finally:
        source.close()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM to the end of the block: an exception that a handler raises during a fork is printed and lost."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
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


@contextlib.contextmanager
def garbage_kept() -> Iterator[None]:
    """Keep processes that are forked in the block from collecting the garbage of this one; they go on with :func:`begin_worker`.

    Their memory is a copy of this process's. A reference cycle that nobody uses may hold tensors of a GPU, and a forked process that frees
    one is aborted by CUDA.  This process's own frozen objects (``unival.quiet_import``) stay frozen.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def close_reader() -> None:
    """Close the open reader, if there is one: when another one starts, and when a run ends for any reason."""
    if _opened is not None:
        _opened.close()


@functools.cache
def close_at_exit() -> None:
    """Register, once per process, that the open reader is closed before torch and multiprocessing shut down.

    Also create the temporary folder in which workers share tensors by sockets: this process removes it at exit, while a folder
    created by a worker would be left behind if the worker is killed.
    """
    multiprocessing.util.get_temp_dir()
    atexit.register(close_reader)
