"""Losses: importing this package registers its criterions with fairseq, which are all named ``unival_…``."""

from unival.criterions.encouraging import EncouragingCriterion
from unival.criterions.label_smoothed import LabelSmoothedCriterion
from unival.criterions.scst import GroundingScstCriterion, ScstCriterion

__all__ = ["EncouragingCriterion", "GroundingScstCriterion", "LabelSmoothedCriterion", "ScstCriterion"]
