"""What the dataset makes of a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from unival.modalities.geometry import Geometry

Kind = tuple[tuple[str, ...], bool]


@dataclass
class Example:
    """One row as the model takes it.

    ``source`` and ``prev_output`` start with bos, ``source`` and ``target`` end with eos; ``target`` is padding where there is no loss;
    ``prefix`` holds the leading target tokens without loss, which generation is given.  ``truncated`` counts texts cut to their limit,
    ``empty`` those of the predicted cell that were left out, since nothing can be learned from them.

    ``geometry`` says where the pixels of its media went, by column; ``loss_span`` which ids the loss is over (start, end), None for all;
    ``has_codes`` that the target is image codes, whose positions in the decoder are places in the image.
    """

    row: int
    source: Tensor
    prev_output: Tensor
    target: Tensor
    prefix: Tensor
    stream: int = 0  # the number of its stream in a mixture
    media: list[tuple[str, Tensor]] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    truncated: int = 0
    empty: int = 0
    geometry: Mapping[str, Geometry] = field(default_factory=dict)
    loss_span: tuple[int, int] | None = None
    has_codes: bool = False

    @property
    def kind(self) -> Kind:
        """What is the same for all examples of a group: their media in order, and whether the target is image codes."""
        return tuple(name for name, _ in self.media), self.has_codes


@dataclass
class BadSample:
    """A row that could not be read, in training with ``--on-bad-sample skip``."""

    row: int
    message: str


Sample = list[Example] | BadSample  # what is read of a row
