"""Learning-rate schedules: importing this package registers ``unival_timed`` with fairseq."""

from unival.optim.schedules import TimedSchedule, TimedScheduleConfig

__all__ = ["TimedSchedule", "TimedScheduleConfig"]
