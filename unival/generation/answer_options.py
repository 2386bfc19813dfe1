"""Options of generation that fairseq does not have."""

from dataclasses import dataclass, field
from typing import Optional  # fairseq's argument parser does not know `float | None`

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

INFERENCE = ChoiceEnum(["beam", "candidates"])
OF_DEVICE = ("cuda_graphs",)  # options that depend on the device alone: a checkpoint does not bring them


@dataclass
class AnswerOptions(FairseqDataclass):
    """Options of generation that fairseq does not have; the task declares them, so that every command has them."""

    inference: INFERENCE = field(  # type: ignore[valid-type]
        default="beam",
        metadata={
            "group": "evaluation",
            "help": "how answers are found: by beam search (or --sampling), or by scoring every candidate answer, of which the one with the"
            " highest sum of log-probabilities is taken",
        },
    )
    zero_shot: bool = field(
        default=False,
        metadata={
            "group": "evaluation",
            "help": "in generation, mask what is no candidate answer after the softmax instead of before: scores are those of the whole"
            " vocabulary",
        },
    )
    candidates_batch: int = field(
        default=1024,
        metadata={
            "group": "evaluation",
            "help": "--inference candidates: tokens of answers computed at a time, over all rows of a batch; fewer take less memory",
        },
    )
    reject_below: Optional[float] = field(
        default=None,
        metadata={
            "group": "evaluation",
            "help": "give no answer (an empty text, no box) where the best one's score is below this: the natural logarithm of its"
            " probability, without that of a prefix given in the target; per token (by --lenpen) unless with --unnormalized or --inference"
            " candidates (default: always answer)",
        },
    )
    cuda_graphs: bool = field(
        default=False,
        metadata={
            "group": "evaluation",
            "help": "replay the steps of a search as a CUDA graph, which launches the kernels of a step at once; answers are the same up to"
            " rounding. On GPUs, where launching takes longer than computing: with small models or batches",
        },
    )
