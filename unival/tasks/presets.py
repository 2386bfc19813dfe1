"""Presets: instruction, metrics and generation options of a kind of task, as data; each is a ``--task``.

For other media give the same task other slots (``--instruction``), for other tables other columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """The defaults of a task.

    Attributes:
        name: name of the ``--task``.
        about: description in one sentence.
        instruction: the instruction; None: ``--instruction`` or the checkpoint has it.
        metrics: names in ``unival.metrics.METRICS`` for validation.
        closed_set: candidate answers of the instruction's slot with ``closed_set``, if the task has its own.
        generation: generation options of validation and the Python API (fields of fairseq's ``GenerationConfig``).
        tsv_columns: names of the columns of its TSV tables.
        tsv_selected: column numbers of these in the published tables.
    """

    name: str
    about: str = ""
    instruction: str | None = None
    metrics: tuple[str, ...] = ()
    closed_set: tuple[str, ...] | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    tsv_columns: tuple[str, ...] | None = None
    tsv_selected: str | None = None


ANY = Preset("unival", about="Any instruction over any table.")
CAPTION = "[IMAGE:image] what does the image describe? -> [TEXT:caption,no_punctuation,max_length=20]"
QUESTION = 'TEXT:question,clean=question,ending="?",max_length=80'
VQA = f"[IMAGE:image] [{QUESTION}] -> [{QUESTION},no_loss] [TEXT:answer,weighted,closed_set]"
GROUNDING = '[IMAGE:image] which region does the text " [TEXT:text,clean=caption] " describe? -> [BOX:box]'
HYPOTHESIS = "TEXT:hypothesis,clean=caption,max_length=80"
LABEL = '[TEXT:label,closed_set,map="entailment=yes,neutral=maybe,contradiction=no"]'
ENTAILMENT = (
    f'[IMAGE:image] does the image describe " [{HYPOTHESIS}] "? -> does the image describe " [{HYPOTHESIS},no_loss] "? {LABEL}'
)
PREMISE = "TEXT:premise,clean=caption,max_length=80"
ENTAILMENT_WITH_PREMISE = (  # for --instruction; published recipes are without
    f'[IMAGE:image] can image and text1 " [{PREMISE}] " imply text2 " [{HYPOTHESIS}] "?'
    f' -> can image and text1 " [{PREMISE},no_loss] " imply text2 " [{HYPOTHESIS},no_loss] "? {LABEL}'
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        ANY,
        Preset(
            name="unival_caption",
            about="Describe an image (published recipe: beam 5, at most 22 tokens, no repeated trigrams).",
            instruction=CAPTION,
            metrics=("cider", "bleu", "rouge_l"),
            generation={"beam": 5, "max_len_b": 22, "no_repeat_ngram_size": 3},
            tsv_columns=("id", "image", "caption"),
            tsv_selected="0,4,2",
        ),
        Preset(
            name="unival_vqa",
            about="Answer a question about an image by a candidate answer (published recipe: question to encoder and decoder, beam 5).",
            instruction=VQA,
            metrics=("vqa_score",),
            generation={"beam": 5, "unnormalized": True},
            tsv_columns=("id", "image", "question", "answer", "objects"),
            tsv_selected="0,5,2,3,4",
        ),
        Preset(
            name="unival_grounding",
            about="Find the box in an image that a text describes: four location bins (published recipe: beam 5).",
            instruction=GROUNDING,
            metrics=("box_accuracy",),
            generation={"beam": 5},
            tsv_columns=("id", "image", "text", "box"),
            tsv_selected="0,4,2,3",
        ),
        Preset(
            name="unival_entailment",
            about="Does an image entail a hypothesis: yes, no or maybe (published recipe: no premise, hypothesis to encoder and decoder).",
            instruction=ENTAILMENT,
            metrics=("accuracy",),
            closed_set=("yes", "no", "maybe"),
            generation={"beam": 5, "unnormalized": True},
            tsv_columns=("id", "image", "hypothesis", "premise", "label"),
            tsv_selected="0,2,3,4,5",
        ),
    )
}
