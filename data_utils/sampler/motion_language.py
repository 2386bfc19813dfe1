"""Questions about moving scenes, with unambiguous answers."""

from collections.abc import Sequence

import numpy as np

from .crossing import BEHIND, IN_FRONT, Crossing
from .language import ask, presence
from .motion import STEPS, Motion, Track
from .relations import reading_order


def questions(motion: Motion, absent: Sequence[str], rng: np.random.Generator) -> list[dict[str, str]]:
    """Questions as {"kind", "question", "answer"}. ``absent`` names objects that are not there."""
    things = reading_order(motion.scene.things)
    moving = [track for track in motion.tracks if track.direction]
    still = [track for track in motion.tracks if not track.direction]
    assert moving, "a scene in which nothing moves has no motion to ask about"
    asked = [ask("how many", "how many objects are there?", str(len(things))), presence(things, absent, rng)]
    track = moving[rng.integers(len(moving))]
    asked.append(ask("which way", f"which way does the {track.name} move?", str(track.direction)))
    if still:  # else the answer would always be yes
        asked.append(_moves(moving, still, rng))
    claimed = _claim(track, rng)
    answer = "yes" if claimed == track.direction else "no"
    asked.append(ask("yes/no", f"does the {track.name} move {claimed}?", answer))
    if len(things) > 1:
        asked.append(ask("how many", "how many objects move?", str(len(moving))))
        if len(moving) == 1:
            asked.append(ask("what", "which object moves?", moving[0].name))
        if len(still) == 1:
            asked.append(ask("what", "which object stays still?", still[0].name))
    return asked + (_about_depth(motion, rng) if isinstance(motion, Crossing) else [])


def _moves(moving: Sequence[Track], still: Sequence[Track], rng: np.random.Generator) -> dict[str, str]:
    """Yes and no are equally likely."""
    chosen, answer = (still, "no") if rng.integers(2) else (moving, "yes")
    return ask("yes/no", f"does the {chosen[int(rng.integers(len(chosen)))].name} move?", answer)


def _claim(track: Track, rng: np.random.Generator) -> str:
    others = [direction for direction in STEPS if direction != track.direction]
    return str(track.direction) if rng.integers(2) else others[rng.integers(len(others))]


def _about_depth(motion: Crossing, rng: np.random.Generator) -> list[dict[str, str]]:
    pair = f"the {motion.mover} pass behind or in front of the {motion.other}?"
    claimed = (BEHIND, IN_FRONT)[rng.integers(2)]
    return [
        ask("which side", f"does {pair}", motion.depth),
        ask("what", f"what does the {motion.mover} pass {motion.depth}?", motion.other),
        ask("what", f"what passes {motion.depth} the {motion.other}?", motion.mover),
        ask(
            "yes/no",
            f"does the {motion.mover} pass {claimed} the {motion.other}?",
            "yes" if claimed == motion.depth else "no",
        ),
    ]
