"""Scenes and motion: boxes bound what is drawn, nothing overlaps, places and hues keep to their split."""

import colorsys

import numpy as np
import pytest

from data_utils.sampler import backgrounds, motion, relations, shapes, splits
from data_utils.sampler.scene import GAP, compose, render
from data_utils.sampler.sprites import VISIBLE, Atlas, Sprite, choose, crop_visible, resize


def test_boxes_bound_exactly_what_is_drawn(crowded):
    """Pixels outside the boxes stay the background, opaque ones are the sprite, and each edge of a box is touched."""
    for row in range(30):
        scene, _ = crowded.scene("train", row)
        below = backgrounds.paint(scene.background, scene.size)
        picture = render(scene, crowded.atlas)
        outside = np.ones(picture.shape[:2], dtype=bool)
        for thing, side in zip(scene.things, scene.sides, strict=True):
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= scene.size and 0 <= y0 < y1 <= scene.size
            outside[y0:y1, x0:x1] = False
            visible = crowded.atlas.pixels(thing.name, side)[..., 3] >= VISIBLE
            for edge in (visible[0], visible[-1], visible[:, 0], visible[:, -1]):
                assert edge.any(), f"{thing.name}: its box {thing.box} is too large"
            opaque = crowded.atlas.pixels(thing.name, side)[..., 3] == 255
            drawn = picture[y0:y1, x0:x1][opaque]
            assert (drawn == crowded.atlas.pixels(thing.name, side)[opaque][:, :3]).all()
        assert (picture[outside] == below[outside]).all()


@pytest.mark.parametrize("split", splits.SPLITS)
def test_scenes_are_plain_and_keep_to_their_split(crowded, split):
    allowed = splits.places(split, 96)
    for row in range(40):
        scene, _ = crowded.scene(split, row)
        first, *others = scene.things
        for other in others:
            assert relations.relation(first.box, other.box)
        for number, thing in enumerate(scene.things):
            x0, y0, x1, y1 = thing.box
            assert allowed[y0 + (y1 - y0) // 2, x0 + (x1 - x0) // 2]
            for other in scene.things[:number]:
                a, b = thing.box, other.box
                gaps = (a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
                assert max(gaps) >= GAP, f"{thing} and {other} touch"
        assert scene.background.sector in splits.hues(split)


@pytest.mark.parametrize("kind", backgrounds.KINDS)
def test_backgrounds_have_the_hue_of_their_sector(kind):
    rng = np.random.default_rng(1)
    found = 0
    while found < 5:
        recipe = backgrounds.draw_recipe((7,), np.zeros((1, 3)), rng)
        if recipe.kind != kind:
            continue
        found += 1
        picture = backgrounds.paint(recipe, 32)
        assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
        assert (len(np.unique(picture.reshape(-1, 3), axis=0)) == 1) == (kind == "plain")
        hues = [
            colorsys.rgb_to_hsv(*(pixel / 255.0))[0] * splits.HUE_SECTORS for pixel in picture[::5, ::5].reshape(-1, 3)
        ]
        assert min(hues) > 6.8 and max(hues) < 8.2


def test_backgrounds_avoid_the_colours_of_sprites():
    rng = np.random.default_rng(0)
    avoid = np.array([[230.0, 60.0, 50.0]])  # a red, in sector 0
    near = 0
    for _ in range(100):
        recipe = backgrounds.draw_recipe((0, 12), avoid, rng)
        near += min(np.linalg.norm(np.array(colour) - avoid[0]) for colour in recipe.colours) < 90
    assert near < 5


def test_motion_stays_in_the_picture_and_apart(crowded):
    moved = still = 0
    for row in range(40):
        scene, rng = crowded.scene("train", row)
        planned = motion.plan_motion(scene, rng)
        for moment in np.linspace(0, 1, 9):
            boxes = planned.boxes(float(moment))
            for number, (x0, y0, x1, y1) in enumerate(boxes):
                assert x0 >= 0 and y0 >= 0 and x1 <= scene.size and y1 <= scene.size
                for other in boxes[:number]:
                    assert x1 <= other[0] or other[2] <= x0 or y1 <= other[1] or other[3] <= y0
        for track in planned.tracks:
            dx, dy = track.end[0] - track.start[0], track.end[1] - track.start[1]
            expected = {"to the right": (1, 0), "to the left": (-1, 0), "down": (0, 1), "up": (0, -1), None: (0, 0)}
            assert (np.sign(dx), np.sign(dy)) == expected[track.direction]
            assert track.direction is None or max(abs(dx), abs(dy)) >= motion.LEAST * scene.size - 1
            verb = f"moves {track.direction}" if track.direction else "stays still"
            assert f"{track.name} {verb}" in planned.caption()
            moved, still = moved + bool(track.direction), still + (track.direction is None)
    assert moved > still > 0


def test_frames_go_from_start_to_end(crowded):
    scene, rng = next(made for row in range(20) if len((made := crowded.scene("train", row))[0].things) == 2)
    planned = motion.plan_motion(scene, rng)
    frames = planned.frames(5, crowded.atlas)
    assert frames.shape == (5, 96, 96, 3) and frames.dtype == np.uint8
    assert (frames[0] == render(scene, crowded.atlas)).all()
    assert (frames[-1] == render(scene, crowded.atlas, [track.end for track in planned.tracks])).all()
    assert planned.boxes(0.5) == [track.at(0.5) for track in planned.tracks]
    track = motion.Track("pear", (0, 4, 10, 9), (20, 4, 30, 9), "to the right")
    assert [track.at(moment) for moment in (0, 0.25, 1)] == [(0, 4, 10, 9), (5, 4, 15, 9), (20, 4, 30, 9)]


def test_a_scene_too_small_for_its_sprites_is_not_made_up():
    tall = Sprite("tower", np.full((64, 64, 4), 255, dtype=np.uint8), "test")
    atlas = Atlas([tall, Sprite("wall", tall.pixels, "test")])
    nowhere = np.zeros((64, 64), dtype=bool)
    with pytest.raises(AssertionError, match="no room for tower, wall at 64 pixels"):
        compose(["tower", "wall"], atlas, 64, nowhere, (0,), np.random.default_rng(0))


def test_resizing_keeps_the_box_tight():
    pixels = np.zeros((100, 60, 4), dtype=np.uint8)
    pixels[10:90, 20:50] = (200, 10, 10, 255)
    assert crop_visible(pixels).shape == (80, 30, 4)
    assert resize(crop_visible(pixels), 40).shape == (40, 15, 4)
    assert crop_visible(pixels[:5]).size == 0


def test_choosing_drops_copies_mirror_images_and_contained_names():
    rng = np.random.default_rng(0)
    looks = [np.kron(rng.integers(0, 256, (4, 4, 4)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(4)]
    for look in looks:
        look[..., 3] = 255
    candidates = [
        Sprite("tiger", looks[0], "a"),
        Sprite("cat", looks[0][:, ::-1].copy(), "mirrored tiger"),
        Sprite("sumatran tiger", looks[1], "b"),
        Sprite("owl", looks[2], "c"),
        Sprite("pear", looks[3], "d"),
    ]
    assert [sprite.name for sprite in choose(candidates, 5)] == ["tiger", "owl", "pear"]
    assert [sprite.name for sprite in choose(candidates, 2)] == ["tiger", "owl"]


def test_shapes_are_named_and_drawn_in_their_colour():
    drawn = shapes.all_shapes()
    assert len({sprite.name for sprite in drawn}) == len(drawn) == len(shapes.SHAPES) * len(shapes.COLOURS)
    for sprite in drawn:
        colour = shapes.COLOURS[sprite.name.split()[0]]
        visible = sprite.pixels[sprite.pixels[..., 3] == 255][:, :3].astype(int)
        assert (np.abs(visible - colour).max(1) <= 2).mean() > 0.2, f"{sprite.name}: little of it has its colour"


def test_shapes_can_be_told_apart_by_colour_and_by_their_parts():
    """Colours are far apart; and drawings differ by a corner of theirs, not by their outlines alone."""
    colours = np.array(list(shapes.COLOURS.values()), dtype=float)
    apart = np.sqrt(((colours[:, None] - colours[None]) ** 2).sum(-1)) + 1000 * np.eye(len(colours))
    assert apart.min() > 75, "distance in RGB, 0..255 each"
    looks = [resize(shapes.draw_shape("red", name).pixels, 40) for name in shapes.SHAPES]
    assert all(inner_edges(look) > 0.03 for look in looks), "part of the inside where the colour changes"


def inner_edges(pixels: np.ndarray) -> float:
    """The part of a sprite, more than three pixels inside its outline, where neighbouring pixels differ much."""
    opaque = np.pad(pixels[..., 3] == 255, 3)
    inside = np.logical_and.reduce([np.roll(opaque, (dy, dx), (0, 1)) for dy in range(-3, 4) for dx in range(-3, 4)])[3:-3, 3:-3]
    grey = pixels[..., :3].astype(float).mean(-1)
    change = np.maximum(np.abs(np.diff(grey, axis=0, prepend=grey[:1])), np.abs(np.diff(grey, axis=1, prepend=grey[:, :1])))
    return float((change[inside] > 40).mean())
