"""Example: one row as token ids and media tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from unival.modalities.geometry import Geometry

Kind = tuple[tuple[str, ...], bool]


@dataclass
class Example:
    """One row as input of the model.

    ``source`` and ``prev_output`` start with bos; ``source`` and ``target`` end with eos.  ``target`` is padding where there is no loss.
    ``prefix`` has the first target tokens without loss, which generation is given.  ``truncated`` is the number of truncated texts,
    ``empty`` the number of empty texts in the predicted cell, which are left out.  ``conf`` weights the loss of the row; None: no weight.
    ``is_outside``: the answer is none of the candidates.

    ``geometry`` maps pixels of the original to the input, by column of the media.  ``loss_span`` is the range (start, end) of ids that the
    loss is over, None: all.  ``has_codes``: the target is image codes, whose positions in the decoder are places in the image.
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
    conf: float | None = None
    is_outside: bool = False
    geometry: Mapping[str, Geometry] = field(default_factory=dict)
    loss_span: tuple[int, int] | None = None
    has_codes: bool = False

    @property
    def kind(self) -> Kind:
        """What all examples of a group have in common: their media in order, and whether the target is image codes."""
        return tuple(name for name, _ in self.media), self.has_codes


@dataclass
class BadSample:
    """A row that could not be read, in training with ``--on-bad-sample skip``."""

    row: int
    message: str


class TargetTokens(NamedTuple):
    """The target of an example: its tokens, which of them carry loss, and, of its predicted cells, what the example has (see there)."""

    tokens: list[int]
    loss: list[bool]
    references: list[str]
    truncated: int
    empty: int
    conf: float | None
    is_outside: bool


Sample = list[Example] | BadSample  # what reading a row returns
