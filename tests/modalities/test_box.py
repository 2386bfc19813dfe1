"""Boxes: ids as published, cells that are none, and back to pixels of the original."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.errors import InstructionError, UserError
from unival.instructions import Slot, parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.modalities.geometry import Geometry
from unival.modalities.target import Context, decode

GROUND = '[IMAGE:image] which region does the text " [TEXT:text] " describe? -> [BOX:region]'
SLOT = Slot("BOX", "region")
# Measured on the original (its RefCOCO and pre-training rows): box, width and height of its image, the image as the model saw it, bins
PUBLISHED = [
    ((10.5, 20.25, 300.75, 211), (640, 480), 512, [16, 42, 469, 439]),
    ((100, 50, 200, 150), (512, 512), 512, [195, 98, 390, 293]),
]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"), num_codes=0, num_bins=1000)


@pytest.fixture
def place(tmp_path):
    """A folder with two images."""
    for name, size in (("a", (640, 480)), ("b", (64, 48))):
        Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def stream(place, vocab, rows, instruction=GROUND, name="t.jsonl", media=MediaOptions(patch_image_size=32), **options):  # noqa: B008
    path = place / name
    path.write_text("".join(json.dumps({"image": "a.png", "text": "a red square", **row}) + "\n" for row in rows))
    return Stream(open_table(path), parse(instruction, MODALITIES), vocab, media, TextLimits(), **options)


def bins(vocab, ids):
    return [int(i) - vocab.bin_range[0] for i in ids]


@pytest.mark.parametrize(("box", "size", "side", "expected"), PUBLISHED)
def test_published_bins_and_back(vocab, box, size, side, expected):
    target = MODALITIES["BOX"].target(vocab, MediaOptions())
    where = {"image": Geometry.of_resize(size, side)}
    ids, is_cut = target.encode(box, SLOT, Context(30, where))
    assert bins(vocab, ids) == expected and not is_cut
    again = decode(target, SLOT, [*ids, vocab.eos], where)
    assert again["box"] == pytest.approx(box, abs=max(size) / 999 / 2)
    assert again["text"] == target.as_text(again["box"]) and len(again["text"].split(",")) == 4
    # published pre-training has a square of 384 pixels and bins of one of 512
    small = MODALITIES["BOX"].target(vocab, MediaOptions(max_image_size=512))
    where = {"image": Geometry.of_resize(size, 384)}
    ids, _ = small.encode(box, SLOT, Context(30, where))
    assert bins(vocab, ids) == [round(999 * x / size[i % 2] * 384 / 512) for i, x in enumerate(box)]
    assert decode(small, SLOT, ids, where)["box"] == pytest.approx(box, abs=max(size) / 999 / 1.4)


def test_a_row_as_target_and_as_source(place, vocab):
    box = [10.5, 20.25, 300.75, 211]
    rows = [{"region": box}, {"region": "10.5,20.25,300.75,211"}, {"region": [box, [0, 0, 64, 48.4]], "image": "b.png"}]
    data = stream(place, vocab, rows)
    (first,), (second,) = data[0], data[1]
    assert bins(vocab, first.target[:-1]) == [16, 42, 469, 439] and first.target[-1] == vocab.eos
    assert torch.equal(first.target, second.target) and torch.equal(first.prev_output[1:], first.target[:-1])
    assert first.references == ["10.5,20.25,300.75,211"] == second.references
    with pytest.raises(UserError, match=r"t\.jsonl, row 2.*'region'.*box 10.5,20.25,300.75,211 is not within its image, which has 64 x 48"):
        data[2]
    batch = data.collater([[first], [second]])
    assert batch["geometry"] == [{"image": Geometry.of_resize((640, 480), 32)}] * 2 and "loss_spans" not in batch
    read = stream(place, vocab, [{"region": box}], "what is in [BOX:region] of [IMAGE:image] ? -> [TEXT:text]")[0][0]
    inner = vocab.encode(" what is in"), first.target[:-1].tolist(), vocab.encode(" of"), vocab.encode(" ?")
    assert read.source.tolist() == [vocab.bos, *(i for part in inner for i in part), vocab.eos]
    assert read.geometry == {}
    given = stream(place, vocab, [{"region": box}], "[IMAGE:image] what? -> [BOX:region,no_loss] [TEXT:text]")[0][0]
    assert given.prefix.tolist() == first.target[:-1].tolist() and (given.target[:4] == vocab.pad).all()


def test_a_tsv_as_published(place, vocab):
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480)).save(buffer, format="png")
    import base64

    image = base64.urlsafe_b64encode(buffer.getvalue()).decode()
    (place / "t.tsv").write_text(f"1\t9\t{image}\tThe person on left\t10.5,20.25,300.75,211&&0,0,640,480\n")
    table = open_table(place / "t.tsv", ["id", "image", "text", "region"], "0,2,3,4")
    data = Stream(table, parse(GROUND, MODALITIES), vocab, MediaOptions(patch_image_size=32), TextLimits())
    assert data[0][0].references == ["10.5,20.25,300.75,211", "0,0,640,480"]
    assert bins(vocab, data[0][0].target[:-1]) == [16, 42, 469, 439]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("1_0,1,20,20", "expected a box, four numbers x0,y0,x1,y1 in pixels of the image, got '1_0,1,20,20'"),
        ([1, 2, 3], "expected a box, four numbers x0,y0,x1,y1 in pixels of the image, got"),
        ([1, 2, 3, "x"], "four numbers.*'x'"),
        ([1, 2, 3, True], "four numbers"),
        ("1,2,3", "four numbers"),
        ([[[1, 2, 3, 4]]], "four numbers"),
        ("left", "four numbers"),
        ([], "four numbers"),
        (7, "four numbers"),
        (None, "four numbers"),
        ({"x": 1}, "four numbers"),
        ([1, 2, float("nan"), 4], "four numbers"),
        ("1,2,inf,4", "four numbers"),
        ([30, 2, 10, 4], "box 30,2,10,4: expected its top left and its bottom right corner"),
        ([3, 2, 10, 2], "box 3,2,10,2: expected"),
        ([-3, 2, 10, 4], "not within its image, which has 640 x 480"),
        ([600, 2, 700, 4], "not within its image"),
        ([600, 2, 620, 482], "not within its image"),
    ],
)
def test_cells_that_are_no_box(place, vocab, cell, problem):
    data = stream(place, vocab, [{"region": cell}])
    with pytest.raises(UserError, match=rf"t\.jsonl, row 0.*column 'region': .*{problem}") as error:
        data[0]
    assert "\n" not in str(error.value)
    if "within" not in problem:  # that takes the image
        with pytest.raises(UserError, match=problem):
            data.check_rows()


def test_rounding_of_annotations_is_no_fault(place, vocab):
    assert bins(vocab, stream(place, vocab, [{"region": [-0.5, 0, 640.4, 480.9]}])[0][0].target[:-1]) == [0, 0, 999, 999]


def test_which_image_a_box_is_of(place, vocab):
    rows = [{"region": [0, 0, 32, 24], "other": "b.png"}]
    both = "[IMAGE:image] [IMAGE:other] where? -> [BOX:region{}]"
    with pytest.raises(UserError, match=r"its row has image, other: name it, as in \[BOX:region,of=image\]"):
        stream(place, vocab, rows, both.format(""))[0]
    named = stream(place, vocab, rows, both.format(",of=other"))[0][0]
    assert bins(vocab, named.target[:-1]) == [0, 0, 500, 500]
    with pytest.raises(InstructionError, match="of=text: the source has no such image or video; there are image, other"):
        stream(place, vocab, rows, both.format(",of=text"))
    with pytest.raises(InstructionError, match="a box is of an image or a video, and the source has none"):
        stream(place, vocab, rows, "[TEXT:text] where? -> [BOX:region]")
    with pytest.raises(InstructionError, match="a box is of an image or a video, and the source has none"):
        stream(place, vocab, rows, "[AUDIO:text] where? -> [BOX:region]")
    with pytest.raises(InstructionError, match="of=text: the source has no such image or video; there are image"):
        stream(place, vocab, rows, "[IMAGE:image] [AUDIO:text] where? -> [BOX:region,of=text]")
    with pytest.raises(InstructionError, match="BOX must be all that is predicted"):
        stream(place, vocab, rows, "[IMAGE:image] where? -> [BOX:region] [TEXT:text]")
    with pytest.raises(UserError, match="--max-image-size 16 is smaller than the images, which have 32"):
        stream(place, vocab, rows, media=MediaOptions(patch_image_size=32, max_image_size=16))[0]


def test_boxes_of_frames(place, vocab):
    """Of a wide video the centre is seen: a box is cut to it, and outside of it there is none."""
    frames = [Image.new("RGB", (128, 64), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(place / "v.webp", save_all=True, append_images=frames[1:])
    rows = [{"video": "v.webp", "region": box} for box in ([48, 16, 80, 48], [0, 0, 64, 64], [0, 0, 30, 64])]
    options = {"media": MediaOptions(patch_frame_size=32, num_frames=2)}
    data = stream(place, vocab, rows, "[VIDEO:video] where? -> [BOX:region]", **options)
    assert bins(vocab, data[0][0].target[:-1]) == [250, 250, 749, 749]
    assert bins(vocab, data[1][0].target[:-1]) == [0, 0, 500, 999]
    with pytest.raises(UserError, match="row 2.*lies outside of the part of the frames that the model sees"):
        data[2]
    target = data.targets["BOX"]
    assert decode(target, SLOT, data[0][0].target.tolist(), data[0][0].geometry)["box"] == pytest.approx((48, 16, 80, 48), abs=0.05)
    augmented = stream(
        place, vocab, rows, "[VIDEO:video] where? -> [BOX:region]", media=MediaOptions(patch_frame_size=32, use_dataaug=True), train=True
    )
    with pytest.raises(UserError, match="cannot follow what --use-dataaug does"):
        augmented[0]


def test_a_vocabulary_without_bins(place, tmp_path_factory):
    without = tiny.vocabulary(tmp_path_factory.mktemp("none"), num_codes=0, num_bins=0)
    with pytest.raises(InstructionError, match="this vocabulary has none: give --num-bins 1000"):
        stream(place, without, [{"region": [0, 0, 1, 1]}])


def test_examples_of_boxes_travel_between_workers(place, vocab):
    data = stream(place, vocab, [{"region": [0, 0, 32, 24]}])
    assert pickle.loads(pickle.dumps(data))[0][0].geometry == data[0][0].geometry != {}
