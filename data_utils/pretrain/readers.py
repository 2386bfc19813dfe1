"""The data sets of multitask pretraining, by the names that ``--source`` and the column ``dataset`` have."""

from . import coco, questions, refcoco, visual_genome, web, webvid
from .rows import Reader

READERS: dict[str, Reader] = {
    "coco": coco.READER,
    "vg": visual_genome.READER,
    **web.READERS,
    **questions.READERS,
    **refcoco.READERS,
    **webvid.READERS,
}
