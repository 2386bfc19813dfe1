"""Finds by trying how many threads train and caption fastest here: more are slower when other programs use the cores, too.

    python threads.py --out FILE -- DATA --user-dir unival ... (the arguments of fairseq-train)

Makes real updates and real captions with 1, 2, 4, … threads in turn, several times over, so that a machine whose load changes
treats all alike. Says what it measured, and writes the two numbers to FILE: for training, for captions.
"""

import argparse
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

ROUNDS = 3
STEPS = 2  # timed in a round; one more goes before, since the first after a change is slower
OUT_OF_THE_QUESTION = 2.5  # times the best so far in that first one: the others are left out
SECONDS = 60.0  # after which no further round begins
HOPELESS = 1.5  # times the best of a round: no further round for that number of threads
CAPTIONED = 16  # rows
CAPTION_TOKENS = 8


def candidates(cores: int) -> list[int]:
    """1, 2, 4, … and the number of cores."""
    powers = [2**n for n in range(cores.bit_length()) if 2**n <= cores]
    return sorted({*powers, cores})


def fastest(
    counts: Sequence[int],
    use: Callable[[int], None],
    act: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int, dict[int, float]]:
    """The count with which ``act`` is fastest, and the seconds with each (the median of its rounds).

    Every round tries all counts in turn, less those that were hopelessly slow before.  Of counts that are as fast, within five
    percent, the smaller one is taken: it leaves room for others.
    """
    times: dict[int, list[float]] = {count: [] for count in counts}
    tried, start = list(counts), clock()
    for round_number in range(ROUNDS):
        if round_number and (len(tried) == 1 or clock() - start > SECONDS):
            break
        for count in tried:
            use(count)
            before = clock()
            act()
            first = clock() - before
            if first > OUT_OF_THE_QUESTION * min((t for measured in times.values() for t in measured), default=math.inf):
                times[count].append(first)
                continue
            before = clock()
            for _ in range(STEPS):
                act()
            times[count].append((clock() - before) / STEPS)
        best = min(median(times[count]) for count in tried)
        tried = [count for count in tried if median(times[count]) <= HOPELESS * best]
    seconds = {count: median(measured) for count, measured in times.items()}
    best = min(seconds.values())
    return min(count for count in counts if seconds[count] <= 1.05 * best), seconds


def actions(arguments: Sequence[str]) -> tuple[Callable[[], None], Callable[[], None]]:
    """One update of fairseq's trainer, and captions of a few rows, as functions; ``arguments`` are those of fairseq-train."""
    from fairseq import options, tasks, utils
    from fairseq.data import iterators
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.trainer import Trainer

    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), list(arguments)))
    task = tasks.setup_task(cfg.task)
    task.load_dataset("valid")
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    batches = trainer.get_train_iterator(epoch=1)

    def endless() -> Iterator[Any]:
        while True:  # a small table has few updates in an epoch
            yield from iterators.GroupedIterator(batches.next_epoch_itr(shuffle=True), 1)

    updates = endless()
    rows = task.dataset("valid")
    few = rows.collater([rows[row] for row in range(min(CAPTIONED, len(rows)))])
    if trainer.cuda:
        few = utils.move_to_cuda(few)
    how = argparse.Namespace(beam=5, max_len_a=0, max_len_b=CAPTION_TOKENS, min_len=CAPTION_TOKENS)

    def caption() -> None:
        trainer.model.eval()
        task.hypotheses(task.build_generator([trainer.model], how), [trainer.model], few)

    def update() -> None:
        trainer.model.train()
        trainer.train_step(next(updates))

    return update, caption


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and writes the two numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="FILE", help="file for the two numbers")
    parser.add_argument("arguments", nargs="+", help="the arguments of fairseq-train, after --")
    args = parser.parse_args(arguments)
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen = []
    for what, act in zip(("an update", "captions"), actions(args.arguments), strict=True):
        best, seconds = fastest(candidates(cores), torch.set_num_threads, act)
        measured = ", ".join(f"{count}: {value:.2g} s" for count, value in seconds.items())
        sys.stdout.write(f"threads for {what}: {measured}; taken: {best}\n")
        chosen.append(best)
    args.out.write_text(" ".join(map(str, chosen)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
