"""Animated sprites: cut-outs with several frames, and their resized copies at any time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .sprites import VISIBLE, Atlas, Sprite, fit


@dataclass(frozen=True)
class AnimatedSprite(Sprite):
    """A cut-out with ``frames`` (T x H x W x 4, uint8) of equal duration, ``seconds`` in all, shown in a loop.

    All frames are cropped to the same window, which has all visible pixels; ``pixels`` is the first one.
    """

    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1, 4), dtype=np.uint8))
    seconds: float = 1.0


def animate(name: str, frames: np.ndarray, seconds: float, source: str) -> AnimatedSprite | None:
    """The sprite of ``frames`` (T x H x W x 4, uint8), cropped; None if nothing is visible."""
    window = _window(frames)
    if window is None:
        return None
    cropped = np.ascontiguousarray(frames[:, window[0], window[1]])
    return AnimatedSprite(name, cropped[0], source, drawing=True, frames=cropped, seconds=seconds)


def _window(frames: np.ndarray) -> tuple[slice, slice] | None:
    """Slices of rows and columns with the pixels that are visible in any of ``frames``."""
    visible = (frames[..., 3] >= VISIBLE).any(0)
    rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


@dataclass
class AnimatedAtlas(Atlas):
    """Animated sprites by name. ``pixels`` returns the first frame, which has the size of all frames."""

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
        """The sprites at a time, for ``scene.render``."""
        return Moment(self, seconds)


@dataclass(frozen=True)
class Moment:
    """The sprites of an atlas at one time, in seconds."""

    atlas: AnimatedAtlas
    seconds: float

    def pixels(self, name: str, side: int) -> np.ndarray:
        """The sprite called ``name`` at this time: H x W x 4, uint8."""
        return self.atlas.at(name, side, self.seconds)


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
