"""``unival_polynomial``: fairseq's learning rates for a length that follows from the batches and the options that change it."""

import logging

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
    PolynomialDecayLRSchedule,
    PolynomialDecayLRScheduleConfig,
)
from omegaconf import OmegaConf

from tests import runs, tiny
from unival.cli import main
from unival.errors import UserError
from unival.optim.polynomial import PolynomialSchedule, PolynomialScheduleConfig


def optimizer():
    return FairseqAdam(
        OmegaConf.create({**vars(FairseqAdamConfig()), "lr": [0.5], "tpu": False}), [torch.nn.Parameter(torch.zeros(1))]
    )


class Run:
    """What fairseq's trainer and the task do with a schedule; ``planned`` and ``left`` are what the task tells of the batches."""

    def __init__(self, planned=None, left=None, max_update=0, max_epoch=0, lr=(0.3,), made=0, state=None, **options):
        config = OmegaConf.structured(FairseqConfig())
        config.optimization.max_update, config.optimization.max_epoch, config.optimization.lr = max_update, max_epoch, list(lr)
        config.lr_scheduler = OmegaConf.structured(PolynomialScheduleConfig(**options))
        self.schedule = PolynomialSchedule(config.lr_scheduler, optimizer())
        self.schedule.step_update(0)
        if state is not None:
            self.schedule.load_state_dict(state)
        self.schedule.step_update(made)
        if planned is not None:
            config.lr_scheduler.planned_updates = planned
            config.lr_scheduler.updates_left = planned - made if left is None else left
        self.schedule.step_begin_epoch(1)
        self.made = made
        self.length = (self.schedule.cfg.warmup_updates, self.schedule.total_num_update)

    def rates(self, to):
        """The learning rates after each update up to ``to``; before the first of them, the present one."""
        return [self.schedule.step_update(update) for update in range(self.made, to + 1)]


def fairseqs(warmup, total, to, lr=0.3, **options):
    cfg = PolynomialDecayLRScheduleConfig(warmup_updates=warmup, total_num_update=total, lr=[lr], **options)
    schedule = PolynomialDecayLRSchedule(cfg, optimizer())
    return [schedule.step_update(update) for update in range(to + 1)]


@pytest.mark.parametrize("options", [{}, {"power": 2.0, "end_learning_rate": 1e-3}])
@pytest.mark.parametrize("total, ratio, warmup", [(50, 0.06, 3), (977, 0.04, 39), (13, 0.06, 0), (1, 0.06, 0), (100, 0.29, 28)])
def test_learning_rates_are_fairseqs_bit_for_bit(total, ratio, warmup, options):
    """Warm-up as the published code counts it, int(ratio x total); the end exactly at the last update, and after it."""
    run = Run(planned=total, max_epoch=7, warmup_ratio=ratio, **options)
    assert run.length == (warmup, total)
    rates = run.rates(total + 2)
    assert rates == fairseqs(warmup, total, total + 2, **options)
    assert rates[total:] == [options.get("end_learning_rate", 0.0)] * 3 and rates[total - 1] != rates[total]


def test_what_is_given_goes_before_what_is_planned():
    assert Run(planned=80, max_epoch=1, warmup_ratio=0.5).length == (40, 80)
    assert Run(planned=80, max_epoch=1, max_update=20, warmup_ratio=0.5).length == (10, 20), "--max-update, if it is less"
    assert Run(planned=80, max_epoch=1, max_update=200, warmup_ratio=0.5).length == (40, 80)
    assert Run(max_update=30, warmup_ratio=0.1).length == (3, 30), "no epochs: nothing is told"
    assert Run(planned=80, max_epoch=1, warmup_ratio=0.5, warmup_updates=7).length == (7, 80)
    assert Run(planned=80, max_epoch=1, warmup_ratio=0.5, warmup_updates=0).length == (0, 80)
    assert Run(planned=80, max_epoch=1, warmup_ratio=0.5, total_num_update=90).length == (45, 90)
    assert Run(planned=80, max_epoch=1).rates(1)[0] == 0.3, "without warm-up it starts at the top"


def test_a_resumed_run_keeps_its_length_and_another_one_is_planned_from_where_it_is(caplog):
    first = Run(planned=100, max_epoch=10, warmup_ratio=0.1)
    state = {**first.schedule.state_dict(), "total": 98}  # as if it had been planned on the way
    with caplog.at_level(logging.WARNING):
        same = Run(planned=100, left=61, made=40, state=state, max_epoch=10, warmup_ratio=0.1)
    assert same.length == (9, 98), "an overflow more or less changes nothing"
    assert same.rates(98) == fairseqs(9, 98, 98)[40:] and not caplog.records
    with caplog.at_level(logging.WARNING):
        longer = Run(planned=150, left=110, made=40, state=state, max_epoch=15, warmup_ratio=0.1)
    assert longer.length == (15, 150) and longer.rates(150) == fairseqs(15, 150, 150)[40:]
    assert "falls until update 150 now, not until 98" in caplog.text
    capped = Run(planned=150, left=110, made=40, state=state, max_epoch=15, max_update=60, warmup_ratio=0.1)
    assert capped.length == (6, 60)
    again = Run(planned=150, left=50, made=99, state=longer.schedule.state_dict(), max_epoch=15, warmup_ratio=0.1)
    assert again.length == (15, 150)
    of_another = Run(planned=100, left=61, made=40, state={"best": None}, max_epoch=10, warmup_ratio=0.1)
    assert of_another.length == (10, 101), "a checkpoint of fairseq's own schedule says nothing of a length"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_epoch": 1, "warmup_ratio": 1.0}, "--warmup-ratio 1: must be"),
        ({"max_epoch": 1, "warmup_ratio": -0.1}, "--warmup-ratio -0.1: must be"),
        ({"max_epoch": 1, "warmup_updates": -1}, "--warmup-updates -1: must not"),
        ({"max_epoch": 1, "power": -1.0}, "--power -1.0: must not"),
        ({"max_epoch": 1, "total_num_update": 0}, "--total-num-update 0: must be"),
        ({}, "say when the run ends: --max-epoch, --max-update or --total-num-update"),
        ({"max_epoch": 1}, "the task does not tell how many updates an epoch has; give --max-update"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Run(**options)


def test_a_warm_up_longer_than_the_run_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        run = Run(planned=5, max_epoch=1, warmup_updates=10)
    assert "--warmup-updates 10" in caplog.text and run.rates(5) == fairseqs(10, 5, 5)


# In fairseq's own training ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    path = tiny.write_table(folder, rows=11)
    path.write_text(path.read_text().rstrip("\n"))  # a file's last line need not end
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


def train(data, out, *flags):
    arguments = runs.train_flags(data, out, "--lr-scheduler", "unival_polynomial", "--warmup-ratio", "0.25", *flags)
    start = arguments.index("polynomial_decay") - 1
    del arguments[start : start + 4]
    out.mkdir(exist_ok=True)
    try:
        assert main(["train", *arguments, "--disable-validation", "--skip-checks"]) == 0
    finally:
        runs.forget_run()
    return {int(line["num_updates"]): float(line["lr"]) for line in runs.log_lines(out, "ups")}


def expected(warmup, total):
    return {update: pytest.approx(rate, rel=1e-3) for update, rate in enumerate(fairseqs(warmup, total, total, 1e-3)) if update}


def ends(out):
    return torch.load(out / "checkpoint_last.pt", weights_only=True)


def test_a_run_ends_at_its_last_update_whatever_makes_it_longer_and_resumes_bit_for_bit(data, tmp_path):
    """11 rows in batches of 4: 3 batches, 2 updates in the first epoch and 3 in each further one."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    flags = ("--batch-size", "4", "--update-freq", "2,1")
    saving = ("--save-interval-updates", "4", "--keep-interval-updates", "-1")
    assert train(data, whole, *flags, *saving, "--max-epoch", "3") == expected(2, 8)
    last = ends(whole)
    assert last["optimizer_history"][-1]["lr_scheduler_state"] == {"best": None, "planned": 8, "total": 8}
    saved = str(next(whole.glob("checkpoint_2_4.pt")))
    train(data, resumed, *flags, "--max-epoch", "3", "--restore-file", saved)
    for name, value in last["model"].items():
        assert torch.equal(value, ends(resumed)["model"][name]), name
    rates = train(data, tmp_path / "longer", *flags, "--max-epoch", "4", "--restore-file", saved)
    assert {update: rate for update, rate in expected(2, 11).items() if update > 4} == rates
    assert "falls until update 11 now, not until 8" in (tmp_path / "longer" / "train.log").read_text()
    # other batches from there: what is left of the second epoch, a batch, are 2 updates now, and the third epoch has 6
    rates = train(data, tmp_path / "smaller", "--batch-size", "2", "--max-epoch", "3", "--restore-file", saved)
    assert max(rates) == 4 + 2 + 6 and rates[max(rates)] == 0, rates
    rates = train(data, tmp_path / "fewer", *flags, "--max-epoch", "3", "--max-update", "5")
    assert rates == expected(1, 5)
