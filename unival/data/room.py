"""The room of a target: what is given is shortened so that what is predicted has its place."""

from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """The token ids of a slot of the target, whether they have loss, and whether they must not make room for others."""

    ids: list[int]
    has_loss: bool
    is_whole: bool


def fit(pieces: Sequence[Piece], room: int) -> tuple[list[int], list[bool]]:
    """Shorten a target to ``room`` tokens: the longest of what is given first, so that what is predicted stays whole where it fits.

    Where what is predicted fills the room by itself, half of the room stays for what is given.

    Args:
        pieces: the target in order.
        room: most tokens.

    Returns:
        The token ids, and whether each has loss.
    """
    kept = [piece.ids for piece in pieces]
    given = sorted((i for i, piece in enumerate(pieces) if not piece.is_whole), key=lambda i: -len(kept[i]))
    whole = sum(len(piece.ids) for piece in pieces if piece.is_whole)
    share = (room - whole if whole < room else room // 2) // max(len(given), 1)  # of each, more where others leave it
    for i in given:
        others = sum(map(len, kept)) - len(kept[i])
        kept[i] = kept[i][: max(room - others, share)]
    tokens = [token for ids in kept for token in ids]
    loss = [piece.has_loss for piece, ids in zip(pieces, kept, strict=True) for _ in ids]
    return tokens[:room], loss[:room]
