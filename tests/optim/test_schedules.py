"""The schedule that follows time: a clock that is set by hand decides when the decay starts, and where the run ends."""

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from omegaconf import OmegaConf

from unival.errors import UserError
from unival.optim.schedules import TimedSchedule, TimedScheduleConfig, from_first_process


class Run:
    """What fairseq's trainer does with a schedule; an update takes ``pace`` seconds of a clock that nothing else moves."""

    def __init__(self, pace=1.0, max_update=0, share=None, **options):
        self.now, self.pace = 1000.0, pace
        self.config = OmegaConf.structured(FairseqConfig())
        self.config.optimization.max_update = max_update
        self.config.optimization.lr = [0.5]
        self.config.lr_scheduler = OmegaConf.structured(TimedScheduleConfig(**options))
        adam = OmegaConf.create({**vars(FairseqAdamConfig()), "lr": [0.5], "tpu": False})
        self.optimizer = FairseqAdam(adam, [torch.nn.Parameter(torch.zeros(1))])
        self.schedule = TimedSchedule(self.config.lr_scheduler, self.optimizer, lambda: self.now, share)
        self.schedule.step_update(0)
        self.updates = 0

    def update(self, count=1):
        """``count`` updates; returns the learning rates that the next ones would have."""
        rates = []
        for _ in range(count):
            self.now += self.pace
            self.updates += 1
            for _ in range(2):  # fairseq asks again at the ends of epochs
                rate = self.schedule.step_update(self.updates)
            assert rate == self.optimizer.get_lr()
            rates.append(rate)
        return rates

    def to_the_end(self, most=10_000):
        """Updates until fairseq would stop."""
        for _ in range(most):
            self.update()
            if self.updates >= (self.config.optimization.max_update or most):
                return self.updates
        raise AssertionError("the run has no end")


def test_warmup_constant_decay_and_the_end():
    """60 updates of a second in a minute: 10 of warm-up, constant, 20 of decay."""
    run = Run(planned_minutes=1, warmup_updates=10, decay_updates=20)
    assert run.optimizer.get_lr() == 0
    rates = run.update(60)
    assert rates[:10] == pytest.approx([0.05 * i for i in range(1, 11)])
    assert set(rates[9:40]) == {0.5} and run.schedule.decay == (40, 60)
    assert rates[39:] == pytest.approx([0.5 * (20 - i) / 20 for i in range(21)])
    assert rates[-1] == 0 and run.config.optimization.max_update == 60
    assert run.config.optimization.stop_min_lr == 0, "a finished run that is started again has nothing to do"


@pytest.mark.parametrize("pace, updates", [(0.1, 3600), (1, 360), (10, 36)])
def test_the_plan_is_kept_at_any_speed(pace, updates):
    run = Run(pace, planned_minutes=6, warmup_updates=100, decay_updates=150)
    assert run.to_the_end() == pytest.approx(updates, abs=1)
    start, end = run.schedule.decay
    assert end - start == min(150, start // 2), "the whole decay, or a third of the run"
    assert run.now - 1000 == pytest.approx(360, abs=pace)


def test_a_machine_that_becomes_busy_is_noticed():
    """Half as fast from the second minute on: the decay starts by the speed of the last updates, and the plan still holds."""
    run = Run(0.5, planned_minutes=6, decay_updates=100)
    run.update(120)
    run.pace = 1.0
    assert run.to_the_end() == 420
    assert run.schedule.decay == (320, 420)


def test_slow_updates_and_validation_count():
    """Pauses are part of the speed: every tenth update is followed by nine seconds of validation."""
    run = Run(1.0, planned_minutes=6, decay_updates=50)
    while not run.config.optimization.max_update:
        run.update(10)
        run.now += 9
    run.update(run.config.optimization.max_update - run.updates)
    start, end = run.schedule.decay
    assert end - start == 50 and start == pytest.approx((360 - 95) / 1.9, abs=10)


def test_decay_waits_for_the_signal_within_the_limit(tmp_path):
    signal = tmp_path / "decay"
    waits = Run(planned_minutes=1, limit_minutes=5, decay_updates=20, decay_signal=str(signal))
    waits.update(100)
    assert waits.schedule.decay is None
    signal.touch()
    assert waits.to_the_end() == 121, "it came after the plan: the decay starts at once"
    early = Run(planned_minutes=1, limit_minutes=5, decay_updates=20, decay_signal=str(signal))
    assert early.to_the_end() == 60, "it came before: the plan holds"
    signal.unlink()
    never = Run(planned_minutes=1, limit_minutes=5, decay_updates=20, decay_signal=str(signal))
    assert never.to_the_end() == 300


def test_signal_alone_and_max_update(tmp_path):
    signal = tmp_path / "decay"
    run = Run(decay_updates=5, decay_signal=str(signal), max_update=50)
    assert run.to_the_end() == 50 and run.schedule.decay == (45, 50)
    signal.touch()
    run = Run(decay_updates=5, decay_signal=str(signal))
    run.update(30)
    assert run.schedule.decay == (1, 2), "of a run of two updates, the decay is one"
    assert Run(planned_minutes=100, decay_updates=20, max_update=30).to_the_end() == 30


def test_resumed_schedule_goes_on_bit_for_bit():
    """Saved before and within the decay; the pause in between does not count, and another speed changes no decision."""
    for saved_at in (30, 50):
        whole = Run(planned_minutes=1, warmup_updates=10, decay_updates=20)
        whole.update(saved_at)
        state = whole.schedule.state_dict()
        resumed = Run(planned_minutes=1, warmup_updates=10, decay_updates=20)
        resumed.now += 5000
        resumed.schedule.load_state_dict(state)
        resumed.updates = saved_at
        assert resumed.schedule.step_update(saved_at) == whole.optimizer.get_lr()
        if whole.schedule.decay:
            resumed.pace = 7.0
        assert resumed.update(60 - saved_at) == whole.update(60 - saved_at)
        assert resumed.config.optimization.max_update == 60 == whole.config.optimization.max_update


def test_state_is_plain_and_of_this_schedule(tmp_path):
    run = Run(planned_minutes=1, decay_updates=20)
    run.update(50)
    torch.save(run.schedule.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["decay"] == (40, 60)
    with pytest.raises(UserError, match="--reset-lr-scheduler"):
        run.schedule.load_state_dict({"best": None})


def test_all_processes_take_the_first_ones_decision():
    """The second process's clock is far ahead; it asks as often as the first and starts its decay at the same update."""
    decisions = []

    def first(number, device):
        decisions.append(number)
        return number

    one = Run(planned_minutes=1, decay_updates=20, share=first)
    one.update(60)
    assert len(decisions) == 40, "asked once per update until it is decided"
    answers = iter(decisions)
    other = Run(planned_minutes=1, decay_updates=20, share=lambda number, device: next(answers), pace=50.0)
    other.update(60)
    assert other.schedule.decay == one.schedule.decay == (40, 60)
    assert next(answers, None) is None


def test_decision_goes_through_torch_distributed():
    assert from_first_process(7, torch.device("cpu")) == 7
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert from_first_process(7, torch.device("cpu")) == 7
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "say when the run ends: --planned-minutes, --decay-signal FILE or --max-update"),
        ({"planned_minutes": -1}, "--planned-minutes -1.0: must not be negative"),
        ({"planned_minutes": 1, "decay_updates": 0}, "--decay-updates 0: must be at least 1"),
        ({"planned_minutes": 1, "limit_minutes": 2}, "--limit-minutes: is the limit of waiting for --decay-signal"),
        ({"planned_minutes": 2, "limit_minutes": 1, "decay_signal": "x"}, "--limit-minutes 1: is less than --planned-minutes 2"),
    ],
)
def test_unusable_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        Run(**options)
