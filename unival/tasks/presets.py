"""Captioning: images here; other media are the same task with other slots (``--instruction``)."""

from typing import Any, ClassVar

from fairseq.tasks import register_task

from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig

CAPTION = "[IMAGE:image] what does the image describe? -> [TEXT:caption,no_punctuation,max_length=20]"


@register_task("unival_caption", dataclass=UnivalTaskConfig)
class CaptionTask(UnivalTask):
    """Describe an image; scored by CIDEr, BLEU and ROUGE-L (published recipe: beam 5, at most 22 tokens, no repeated trigrams)."""

    instruction: ClassVar[str | None] = CAPTION
    metrics: ClassVar[tuple[str, ...]] = ("cider", "bleu", "rouge_l")
    generation: ClassVar[dict[str, Any]] = {"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3}
    tsv_columns: ClassVar[tuple[str, ...] | None] = ("id", "image", "caption")
    tsv_selected: ClassVar[str | None] = "0,4,2"
