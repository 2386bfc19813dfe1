"""Names, relations, captions, questions: checked against cases worked out by hand or against the boxes alone."""

import re

import numpy as np
import pytest

from data_utils.sampler import language, names, relations
from data_utils.sampler.relations import Thing

# Captions as they stand in tuxpaint-stamps-default 2022.06.04 (GPL-2), with the name that each should give.
CAPTIONS = {
    "A tiger.": "tiger",
    "An hippopotamus.": "hippopotamus",
    "A very small pumpkin.": "pumpkin",
    "A huge dump truck.": "dump truck",
    "A wheelie bin! Give me your trash!": "wheelie bin",
    "A peacock (a male peafowl).": "peacock",
    "An Adelaide Rosella.": "adelaide rosella",
    "A knight’s helmet.": "knight's helmet",
    "A ripe, red tomato!": None,
    "A UK post box. Put your letter in here!": None,
    "A “Fuji” apple.": None,
    "A pair of glasses.": None,
    "A tower with a red flag.": None,
    "A four leaf clover is said to bring good luck!": None,
    "An F-22 Raptor.": None,
    "Eat your bread!": None,
    "Holly leaves are shiny and have prickles!": None,
    "": None,
}

TIGER, FLAG, PEAR = "tiger", "red flag", "pear"


@pytest.mark.parametrize("caption", CAPTIONS)
def test_captions_give_short_names(caption):
    assert names.object_name(caption) == CAPTIONS[caption]


def test_articles_follow_the_sound():
    spoken = {
        "tiger": "a",
        "owl": "an",
        "onion": "an",
        "unicycle": "a",
        "umbrella": "an",
        "european bear": "a",
        "ukulele": "a",
    }
    spoken |= {
        "hourglass": "an",
        "one-way sign": "a",
        "otter": "an",
        "ewe": "a",
        "igloo": "an",
        "utensil": "a",
        "urn": "an",
    }
    assert {name: names.with_article(name).split()[0] for name in spoken} == spoken


def test_names_contain_one_another_by_words_only():
    assert names.contain("tiger", "sumatran tiger") and names.contain("polar bear cub", "bear")
    assert not names.contain("ant", "elephant") and not names.contain("red flag", "green flag")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 10, 10), (30, 0, 40, 10), "to the left of"),
        ((30, 5, 40, 15), (0, 0, 10, 10), "to the right of"),
        ((0, 0, 10, 10), (5, 30, 15, 40), "above"),
        ((5, 30, 15, 40), (0, 0, 10, 10), "below"),
        ((0, 0, 10, 10), (20, 20, 30, 30), None),  # a diagonal
        ((0, 0, 20, 10), (18, 0, 40, 10), None),  # they overlap along the axis
        ((0, 0, 10, 10), (15, 10, 25, 20), "to the left of"),  # 15 across, 10 down: just 1.5 to 1
        ((0, 0, 10, 10), (14, 10, 24, 20), None),  # 14 across, 10 down: not enough
    ],
)
def test_relation_by_hand(one, other, expected):
    assert relations.relation(one, other) == expected


def test_two_objects_have_two_captions():
    things = [Thing(FLAG, (60, 10, 90, 40)), Thing(TIGER, (5, 12, 35, 42))]
    assert language.captions(things) == ["a tiger to the left of a red flag", "a red flag to the right of a tiger"]
    stacked = [Thing(FLAG, (10, 60, 40, 90)), Thing("owl", (10, 5, 40, 35))]
    assert language.captions(stacked) == ["an owl above a red flag", "a red flag below an owl"]


def test_three_objects_join_relations():
    things = [Thing(TIGER, (0, 0, 20, 20)), Thing(FLAG, (60, 0, 80, 20)), Thing(PEAR, (0, 60, 20, 80))]
    said = language.captions(things)
    assert said == [
        "a tiger to the left of a red flag and above a pear",
        "a tiger above a pear and to the left of a red flag",
    ]  # the flag and the pear lie diagonally: neither can be the one that the caption begins with
    row = [Thing(TIGER, (0, 0, 20, 20)), Thing(FLAG, (30, 0, 50, 20)), Thing(PEAR, (60, 0, 80, 20))]
    said = language.captions(row)
    assert said[0] == "a tiger to the left of a red flag and a pear"
    assert "a red flag to the left of a pear and to the right of a tiger" in said
    assert len(said) == len(set(said)) == 6


def test_one_object_is_just_named():
    assert language.captions([Thing("owl", (0, 0, 9, 9))]) == ["an owl"]


SIDE = r"(to the left of|to the right of|above|below)"


def claim_holds(first: tuple, claim: str, second: tuple) -> bool:
    """Whether `first` lies wholly on the claimed side of `second`; written without the code that it checks."""
    return {
        "to the left of": first[2] <= second[0],
        "to the right of": first[0] >= second[2],
        "above": first[3] <= second[1],
        "below": first[1] >= second[3],
    }[claim]


def answer_from_boxes(question: str, boxes: dict[str, tuple], size: int) -> str:
    """The answer that boxes alone give to any question that the sampler asks."""
    if question == "how many objects are there?":
        return str(len(boxes))
    if found := re.fullmatch(r"is there an? (.+)\?", question):
        return "yes" if found[1] in boxes else "no"
    if found := re.fullmatch(r"which side of the picture is the (.+) on\?", question):
        x0, _, x1, _ = boxes[found[1]]
        assert x1 <= size / 2 or x0 >= size / 2, "the object is in the middle"
        return "left" if x1 <= size / 2 else "right"
    if found := re.fullmatch(r"is the (.+) to the left or to the right of the (.+)\?", question):
        return "left" if claim_holds(boxes[found[1]], "to the left of", boxes[found[2]]) else "right"
    if found := re.fullmatch(r"is the (.+) above or below the (.+)\?", question):
        return "above" if claim_holds(boxes[found[1]], "above", boxes[found[2]]) else "below"
    if found := re.fullmatch(rf"is the (.+) {SIDE} the (.+)\?", question):
        return "yes" if claim_holds(boxes[found[1]], found[2], boxes[found[3]]) else "no"
    if found := re.fullmatch(rf"how many objects are {SIDE} the (.+)\?", question):
        return str(len(on_side(found[1], found[2], boxes)))
    found = re.fullmatch(rf"what is {SIDE} the (.+)\?", question)
    assert found, f"unknown question: {question}"
    (name,) = on_side(found[1], found[2], boxes)
    return name


def on_side(claim: str, of: str, boxes: dict[str, tuple]) -> list[str]:
    """Objects on that side whose centres also lie further along that axis than across it."""
    sideways = claim.startswith("to")
    found = []
    for name, box in boxes.items():
        across = abs(box[0] + box[2] - boxes[of][0] - boxes[of][2])
        down = abs(box[1] + box[3] - boxes[of][1] - boxes[of][3])
        if name != of and claim_holds(box, claim, boxes[of]) and (across > down) == sideways:
            found.append(name)
    return found


def test_questions_are_answered_by_the_boxes(crowded):
    kinds, yes = set(), []
    for row in range(150):
        record, _ = crowded.record("train", row)
        boxes = {thing["name"]: tuple(thing["box"]) for thing in record["objects"]}
        for asked in record["questions"]:
            assert asked["answer"] == answer_from_boxes(asked["question"], boxes, 96), (asked, boxes)
            kinds.add(asked["kind"])
            yes += [asked["answer"]] if asked["kind"] == "yes/no" else []
    assert kinds == {"how many", "what", "which side", "yes/no"}
    assert 0.35 < yes.count("yes") / len(yes) < 0.65


def test_a_what_question_has_only_one_answer():
    things = [Thing(TIGER, (0, 0, 20, 20)), Thing(FLAG, (0, 40, 20, 60)), Thing(PEAR, (70, 20, 90, 40))]
    for seed in range(40):
        for asked in language.questions(things, [], 96, np.random.default_rng(seed)):
            assert asked["question"] != "what is to the left of the pear?"  # both of the others are


def test_every_caption_is_true_of_the_boxes(crowded):
    several = 0
    for row in range(100):
        record, _ = crowded.record("test", row)
        boxes = {thing["name"]: tuple(thing["box"]) for thing in record["objects"]}
        assert len(set(record["caption"])) == len(record["caption"])
        for caption in record["caption"]:
            subject, *rest = re.split(rf",? (?:and )?{SIDE} ", caption)
            said = [
                (claim, other) for claim, others in zip(rest[::2], rest[1::2], strict=True) for other in listed(others)
            ]
            assert sorted([*listed(subject), *(other for _, other in said)]) == sorted(boxes)
            for claim, other in said:
                assert claim_holds(boxes[listed(subject)[0]], claim, boxes[other]), (caption, boxes)
            several += len(said) > 1
    assert several > 50


def listed(text: str) -> list[str]:
    return [re.sub(r"^an? ", "", part) for part in re.split(r", | and ", text.removesuffix(","))]
