"""Learning-rate schedules: importing this package registers ``unival_timed`` and ``unival_polynomial`` with fairseq."""

from unival.optim.polynomial import PolynomialSchedule, PolynomialScheduleConfig
from unival.optim.schedules import TimedSchedule, TimedScheduleConfig

__all__ = ["PolynomialSchedule", "PolynomialScheduleConfig", "TimedSchedule", "TimedScheduleConfig"]
