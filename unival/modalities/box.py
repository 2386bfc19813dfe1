"""Boxes: instructions may name them; no slot reads or predicts them yet."""

from unival.modalities.base import Modality

BOX = Modality("BOX", is_target=True)
