"""Losses: importing this package registers ``unival_label_smoothed`` and ``unival_encouraging`` with fairseq."""

from unival.criterions.encouraging import EncouragingCriterion
from unival.criterions.label_smoothed import LabelSmoothedCriterion

__all__ = ["EncouragingCriterion", "LabelSmoothedCriterion"]
