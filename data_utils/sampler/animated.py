"""Sprites that move by themselves: cut-outs with several frames, and their resized copies at any moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .sprites import VISIBLE, Atlas, Sprite, fit


@dataclass(frozen=True)
class AnimatedSprite(Sprite):
    """A cut-out with ``frames`` (T x H x W x 4, uint8) that are shown evenly over ``seconds``, then again.

    All frames are cropped alike, to what is visible in any of them; ``pixels`` is the first one.
    """

    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1, 4), dtype=np.uint8))
    seconds: float = 1.0


def animate(name: str, frames: np.ndarray, seconds: float, source: str) -> AnimatedSprite | None:
    """The sprite of ``frames`` (T x H x W x 4, uint8), cropped; None when nothing is visible in them."""
    window = _window(frames)
    if window is None:
        return None
    cropped = np.ascontiguousarray(frames[:, window[0], window[1]])
    return AnimatedSprite(name, cropped[0], source, drawing=True, frames=cropped, seconds=seconds)


def _window(frames: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns that bound what is visible in any of ``frames``."""
    visible = (frames[..., 3] >= VISIBLE).any(0)
    rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


@dataclass
class AnimatedAtlas(Atlas):
    """Animated sprites by name. ``pixels`` is a sprite's first frame, of the size that all its frames have."""

    sprites: Sequence[AnimatedSprite]
    _windows: dict[tuple[str, int], tuple[slice, slice]] = field(default_factory=dict, repr=False)

    def pixels(self, name: str, side: int) -> np.ndarray:
        """The first frame of the sprite called ``name``, H x W x 4 uint8 with the longer side about ``side`` pixels."""
        key = (name, side)
        if key not in self._resized:
            self._resized[key] = self.at(name, side, 0.0)
        return self._resized[key]

    def at(self, name: str, side: int, moment: float) -> np.ndarray:
        """The sprite at ``moment`` seconds after its start, as large as ``pixels``."""
        sprite = self._by_name[name]
        assert isinstance(sprite, AnimatedSprite), f"{name} is no animated sprite"
        number = int(moment / sprite.seconds * len(sprite.frames)) % len(sprite.frames)
        size = fit(sprite.pixels, side)
        key = (name, side)
        if key not in self._windows:
            every = np.stack([_resized(frame, size) for frame in sprite.frames])
            window = _window(every)
            self._windows[key] = window or (slice(None), slice(None))
        rows, columns = self._windows[key]
        return _resized(sprite.frames[number], size)[rows, columns]

    def moment(self, seconds: float) -> "Moment":
        """The sprites as they are at a moment, for ``scene.render``."""
        return Moment(self, seconds)


@dataclass(frozen=True)
class Moment:
    """An atlas at a moment."""

    atlas: AnimatedAtlas
    seconds: float

    def pixels(self, name: str, side: int) -> np.ndarray:
        """The sprite called ``name`` as it is at this moment: H x W x 4, uint8."""
        return self.atlas.at(name, side, self.seconds)


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
