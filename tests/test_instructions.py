"""The instruction language: what a line of text becomes, that it comes back as text, and errors with a caret."""

import dataclasses
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from unival import instructions as language
from unival.errors import UserError
from unival.instructions import AttributeSpec, Instruction, InstructionError, Slot
from unival.modalities import MODALITIES

CAPTION = "[IMAGE:img] what does the image describe? -> [TEXT:cap]"
NLI = (
    'can text1 " [TEXT:s1] " imply text2 " [TEXT:s2] "? -> can text1 " [TEXT:s1,no_loss] " imply text2 " '
    '[TEXT:s2,no_loss] "? [TEXT:label,closed_set]'
)


def parse(text, modalities=MODALITIES):
    return language.parse(text, modalities)


def slots(text):
    return [(slot.modality, slot.column, slot.text, dict(slot.attributes)) for slot in text]


@pytest.fixture
def wide_attributes(monkeypatch):
    """Attributes of every type, on a modality that has none by itself."""
    specs = {"note": AttributeSpec(str), "shift": AttributeSpec(int), "ratio": AttributeSpec(float, minimum=0)}
    image = dataclasses.replace(MODALITIES["IMAGE"], attributes={**specs, "flag": AttributeSpec(bool)})
    monkeypatch.setitem(MODALITIES, "IMAGE", image)


def test_caption():
    (instruction,) = parse(CAPTION)
    assert slots(instruction.source) == [
        ("IMAGE", "img", None, {}),
        ("TEXT", None, "what does the image describe?", {}),
    ]
    assert slots(instruction.target) == [("TEXT", "cap", None, {})]
    assert instruction.columns == ("img", "cap")
    assert [slot.is_plain for slot in instruction.slots] == [False, True, False]
    assert [CAPTION[slot.position] for slot in instruction.slots] == ["[", "w", "["]
    assert instruction.text == str(instruction) == CAPTION


def test_input_repeated_without_loss():
    (instruction,) = parse(NLI)
    assert slots(instruction.target) == [
        ("TEXT", None, 'can text1 "', {}),
        ("TEXT", "s1", None, {"no_loss": True}),
        ("TEXT", None, '" imply text2 "', {}),
        ("TEXT", "s2", None, {"no_loss": True}),
        ("TEXT", None, '"?', {}),
        ("TEXT", "label", None, {"closed_set": True}),
    ]
    assert instruction.columns == ("s1", "s2", "label")
    assert str(instruction) == NLI


def test_alternatives_several_targets_and_free_spacing():
    text = " [ IMAGE : a ]what? ->[BOX:b] [TEXT : c , max_length = 20 ,uncased]|||[IMAGE:a] x -> [BOX:b][TEXT:d] "
    first, second = parse(text)
    assert slots(first.target) == [("BOX", "b", None, {}), ("TEXT", "c", None, {"max_length": 20, "uncased": True})]
    assert str(first) == "[IMAGE:a] what? -> [BOX:b] [TEXT:c,max_length=20,uncased]"
    assert second.text == "[IMAGE:a] x -> [BOX:b][TEXT:d]"
    assert [second.text[slot.position] for slot in second.slots] == ["[", "x", "[", "["]
    assert parse(f"{first} ||| {second}") == (first, second)


def test_escapes_in_plain_text():
    (instruction,) = parse(r"\[x\] a\->b \||| c\\d [TEXT:t] \ lead -> [TEXT:u]")
    assert [slot.text for slot in instruction.source] == [r"[x] a->b ||| c\d", None, " lead"]
    assert parse(str(instruction)) == (instruction,)


def test_text_that_touches_is_glued():
    (instruction,) = parse('say "[TEXT:q]"? [TEXT:r],[IMAGE:i]now [TEXT:s] -> [TEXT:a]')
    glued = [(str(slot), slot.glued) for slot in instruction.source]
    assert glued == [
        ('say "', False),
        ("[TEXT:q]", True),
        ('"?', True),
        ("[TEXT:r]", False),
        (",", True),
        ("[IMAGE:i]", False),
        ("now", False),
        ("[TEXT:s]", False),
    ]
    assert parse(str(instruction)) == (instruction,)


def test_values(wide_attributes):
    text = r"""[IMAGE:a,note="x, y]\"\\\n",shift=-3,ratio=1,flag] b -> [TEXT]"""
    attributes = parse(text)[0].source[0].attributes
    assert attributes == {"note": 'x, y]"\\\n', "shift": -3, "ratio": 1.0, "flag": True}
    assert type(attributes["ratio"]) is float
    other = parse(r"[IMAGE:a,note='it\'s -> |||',shift=+4,ratio=.5e-1,flag=false] b -> [TEXT]")[0]
    assert other.source[0].attributes == {"note": "it's -> |||", "shift": 4, "ratio": 0.05, "flag": False}
    assert parse(str(other)) == (other,)
    with pytest.raises(InstructionError, match="'shift' takes a whole number, not 'three'"):
        parse("[IMAGE:a,shift=three] b -> [TEXT]")
    with pytest.raises(InstructionError, match="'ratio' takes a number of at least 0, not -0.5"):
        parse("[IMAGE:a,ratio=-.5] b -> [TEXT]")
    with pytest.raises(InstructionError, match="'shift' takes a whole number, not True"):
        parse("[IMAGE:a,shift=true] b -> [TEXT]")
    with pytest.raises(InstructionError, match="'note' takes text, not 3"):
        parse("[IMAGE:a,note=3] b -> [TEXT]")


BAD = [  # text with the character that the caret must point at in ⟨⟩, and what the first line says
    ("⟨⟩", "the encoder side is empty"),
    ("[TEXT:a]⟨⟩", "no '->' between"),
    ("[TEXT:a] ⟨⟩||| b -> [TEXT]", "no '->' between"),
    ("⟨-⟩> [TEXT:b]", "the encoder side is empty"),
    ("a ->⟨⟩", "the decoder side is empty"),
    ("a -> [TEXT:x] ⟨-⟩> c", r"a second '->': write '\->'"),
    ("a -> [TEXT] |||⟨⟩", "the encoder side is empty"),
    (
        "[⟨I⟩MGAE:x] -> [TEXT]",
        "unknown modality 'IMGAE', did you mean 'IMAGE'? there are TEXT, IMAGE, VIDEO, AUDIO, BOX, CODE",
    ),
    ("[⟨t⟩ext:x] -> [TEXT]", "unknown modality 'text', did you mean 'TEXT'?"),
    ("[⟨M⟩OTION:x] -> [TEXT]", "unsupported modality 'MOTION'; there are TEXT"),
    ("[⟨]⟩ -> [TEXT]", "expected a modality"),
    ("[TEXT:⟨]⟩ -> [TEXT]", "expected a column name"),
    ("[TEXT:⟨é⟩] -> [TEXT]", "expected a column name"),
    ("[TEXT:a⟨-⟩b] -> [TEXT]", "expected ',' or ']' here, got '-'"),
    ("x ⟨[⟩TEXT:a", "'[' is never closed"),
    ("x ⟨]⟩ -> [TEXT]", r"']' without '[': write '\]'"),
    (r"x ⟨\⟩n -> [TEXT]", "a backslash must stand before"),
    ("x -> [TEXT,⟨m⟩axlength=3]", "unknown attribute 'maxlength', did you mean 'max_length'? there are no_loss, "),
    ("x -> [TEXT,⟨f⟩oo]", "unknown attribute 'foo'; there are no_loss, closed_set, max_length, uncased, no_punct"),
    ("[IMAGE,⟨u⟩ncased] -> [TEXT]", "unknown attribute 'uncased'; none can be used here"),
    ("x -> [TEXT,⟨p⟩reprocess=a]", "unsupported attribute 'preprocess'; there are no_loss"),
    ("x -> [TEXT,⟨n⟩oise_ratio=.1]", "unsupported attribute 'noise_ratio'; there are no_loss"),
    ("x -> [TEXT,uncased,⟨u⟩ncased]", "attribute 'uncased' is given twice"),
    ("x -> [TEXT,max_length=⟨-⟩3]", "'max_length' takes a whole number of at least 1, not -3"),
    ("x -> [TEXT,max_length=⟨1⟩.5]", "'max_length' takes a whole number of at least 1, not 1.5"),
    ('x -> [TEXT,max_length=⟨"⟩x,]y"]', "'max_length' takes a whole number of at least 1, not 'x,]y'"),
    ("x -> [TEXT,⟨m⟩ax_length]", "'max_length' needs a value: a whole number"),
    ("x -> [TEXT,max_length=⟨]⟩", "expected a value"),
    ("x -> [TEXT,uncased=⟨2⟩]", "'uncased' takes no value, true or false, not 2"),
    ("x -> [TEXT,max_length=⟨'⟩3]", "the quote ' is never closed"),
    (r'x -> [TEXT,max_length="⟨\⟩q"]', "unknown escape in a quoted value"),
    ("[TEXT:a,⟨n⟩o_loss] -> [TEXT]", "'no_loss' is for decoder slots only"),
    ("[TEXT:a,⟨c⟩losed_set] -> [TEXT]", "'closed_set' is for decoder slots only"),
    ("x -> [⟨I⟩MAGE]", "IMAGE cannot be predicted; the decoder side takes TEXT, BOX, CODE"),
    ("[⟨C⟩ODE] -> [TEXT]", "CODE can only be predicted; the encoder side takes TEXT, IMAGE, VIDEO, AUDIO, BOX"),
    ("x -> ⟨y⟩es", "the decoder side predicts nothing"),
    ("x -> ⟨[⟩TEXT,no_loss] yes", "the decoder side predicts nothing"),
]


@pytest.mark.parametrize("marked,problem", BAD)
def test_errors_point_at_the_character(marked, problem):
    before, _, rest = marked.partition("⟨")
    text = before + rest.replace("⟩", "")
    with pytest.raises(InstructionError) as caught:
        parse(text)
    message, line, caret = str(caught.value).split("\n")
    assert message.startswith(problem) or problem in message
    assert (line, caret) == (f"  {text}", f"  {' ' * len(before)}^")
    assert caught.value.position == len(before)


def test_the_parser_knows_only_the_modalities_that_it_is_given():
    depth = SimpleNamespace(attributes={"scale": AttributeSpec(float)}, is_source=True, is_target=False)
    known = {"DEPTH": depth, "ANSWER": SimpleNamespace(attributes={}, is_source=True, is_target=True)}
    (instruction,) = parse("[DEPTH:map,scale=2] what? -> [ANSWER:a]", known)
    assert slots(instruction.source) == [("DEPTH", "map", None, {"scale": 2.0}), ("TEXT", None, "what?", {})]
    with pytest.raises(InstructionError, match="unknown modality 'IMAGE'; there are DEPTH, ANSWER"):
        parse("[IMAGE:a] what? -> [ANSWER:a]", known)
    with pytest.raises(InstructionError, match="DEPTH cannot be predicted; the decoder side takes ANSWER"):
        parse("[DEPTH:map] what? -> [DEPTH:map]", known)


def test_alternatives_must_predict_the_same():
    with pytest.raises(InstructionError, match=r"the first has \['TEXT'\], this one has \['BOX'\]"):
        parse("[IMAGE:a] x -> [TEXT:b] ||| [IMAGE:a] y -> [BOX:b]")


def test_errors_are_user_errors_and_cross_processes():
    with pytest.raises(UserError) as caught:
        parse("a\n[TEXT:x ->\tb")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert str(again).split("\n")[1:] == ["  [TEXT:x -> b", "  " + " " * 8 + "^"]


def test_long_instructions_are_cut_around_the_character():
    with pytest.raises(InstructionError) as caught:
        parse("x" * 300 + "]" + "y" * 300)
    _, line, caret = str(caught.value).split("\n")
    assert len(line) < 125 and line.startswith("  ...") and line.endswith("...")
    assert line[len(caret) - 1] == "]"


def test_resolve_by_position_and_name():
    (instruction,) = parse("[IMAGE] what? [TEXT:q] -> [TEXT] [BOX]")
    assert instruction.columns == ("q",)
    named = instruction.resolve(["image", "q", "answer", "box", "id"])
    assert str(named) == "[IMAGE:image] what? [TEXT:q] -> [TEXT:answer] [BOX:box]"
    assert named.columns == ("image", "q", "answer", "box")
    assert named.resolve(["box", "answer", "q", "image"]) == named
    with pytest.raises(
        InstructionError, match="no column 'q', is 'Q' meant. there are img, Q, a, b"
    ) as caught:
        instruction.resolve(["img", "Q", "a", "b"])
    assert caught.value.position == instruction.source[2].position
    with pytest.raises(InstructionError, match="slot 4 has no column: the only ones are img, q, a"):
        instruction.resolve(["img", "q", "a"])


def test_resolve_tells_equal_slots_apart():
    same = Slot("TEXT")
    assert Instruction("", (same, same), (same,)).resolve(["a", "b", "c"]).columns == ("a", "b", "c")


def test_instructions_pickle_and_hash():
    (instruction,) = parse(NLI)
    assert pickle.loads(pickle.dumps(instruction)) == instruction
    assert {instruction: 1}[parse(NLI)[0]] == 1


def random_sentence(rng, side):
    """Slots that the parser could have made: no two plain texts side by side, glued only text to text."""
    made = []
    for k in range(int(rng.integers(1, 5))):
        modalities = [name for name, kind in MODALITIES.items() if (kind.is_target if side == "target" else kind.is_source)]
        spare_plain = not made or not made[-1].is_plain
        if spare_plain and rng.random() < 0.5:
            characters = list("ab é[]|\\->:,=\"'  \n")
            text = "x".join(rng.choice(characters, int(rng.integers(1, 8)))).strip("\n") or "y"
            slot = Slot("TEXT", text=" " * int(rng.integers(2)) + text + "z" + " " * int(rng.integers(2)))
        else:
            modality = str(rng.choice(modalities))
            column = None if rng.random() < 0.3 else f"c_{k}"
            slot = Slot(modality, column, attributes=random_attributes(rng, modality, side))
        glued = bool(made) and made[-1].modality == slot.modality == "TEXT" and rng.random() < 0.5
        made.append(Slot(slot.modality, slot.column, slot.text, slot.attributes, glued=glued))
    return made


def random_attributes(rng, modality, side):
    values = {bool: lambda: bool(rng.integers(2)), int: lambda: int(rng.integers(1, 99)), str: lambda: f"c_{rng.integers(9)}"}
    specs = MODALITIES[modality].attributes
    names = [name for name, spec in specs.items() if side == "target" or not spec.target_only]
    chosen = {name: specs[name] for name in names if rng.random() < 0.3}
    return {name: str(rng.choice(spec.choices)) if spec.choices else values[spec.type]() for name, spec in chosen.items()}


@pytest.mark.parametrize("seed", range(100))
def test_random_instructions_come_back(seed):
    rng = np.random.default_rng(seed)
    instructions = []
    for _ in range(int(rng.integers(1, 4))):
        target = [*random_sentence(rng, "target"), Slot("BOX", "out")]
        instructions.append(Instruction("", tuple(random_sentence(rng, "source")), tuple(target)))
    for instruction in instructions:
        assert parse(str(instruction)) == (instruction,)
    repeated = " ||| ".join([str(instructions[0])] * 3)
    assert parse(repeated) == (instructions[0],) * 3
