"""What the dataset makes of a row."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Example:
    """One row as the model takes it.

    ``source`` and ``prev_output`` start with bos, ``source`` and ``target`` end with eos; ``target`` is padding where there is no loss;
    ``prefix`` holds the leading target tokens without loss, which generation is given.  ``truncated`` counts texts cut to their limit,
    ``empty`` those of the predicted cell that were left out, since nothing can be learned from them.
    """

    row: int
    source: Tensor
    prev_output: Tensor
    target: Tensor
    prefix: Tensor
    media: list[tuple[str, Tensor]] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    truncated: int = 0
    empty: int = 0


@dataclass
class BadSample:
    """A row that could not be read, in training with ``--on-bad-sample skip``."""

    row: int
    message: str
