"""The texts that the published recipes make of table rows, with the ids measured for them (see golden/text.json)."""

from collections.abc import Iterator
from typing import Any

from unival.text import strip_punctuation

Case = tuple[str, str, list[int]]  # name, text, ids without <s> and </s>
LEADING_MARKS = ",.!?*#:;~"
_JOINERS_TO_SPACES = str.maketrans("-/", "  ")


def truncate_words(text: str, max_words: int | None) -> str:
    """The first ``max_words`` words separated by single spaces; all of them when ``max_words`` is None."""
    return " ".join(text.split()[:max_words])


def normalize_question(text: str, max_words: int | None = None) -> str:
    """Lower-case a question, drop leading punctuation, turn "-" and "/" into spaces, and keep at most ``max_words`` words."""
    return truncate_words(text.lower().lstrip(LEADING_MARKS).translate(_JOINERS_TO_SPACES), max_words)


def normalize_caption(text: str, max_words: int | None = None) -> str:
    """Normalise a caption: as ``normalize_question``, and the placeholder "<person>" becomes "person"."""
    text = text.lower().lstrip(LEADING_MARKS).translate(_JOINERS_TO_SPACES).replace("<person>", "person")
    return truncate_words(text, max_words)


def published_texts(golden: dict[str, Any]) -> Iterator[Case]:
    """Every text of the golden rows that the text functions cover."""
    for text, ids in golden["text"]["encode"].items():
        yield "text", text, ids
    for make in (_captions, _questions, _entailment, _other):
        for name, row, texts in make(golden):
            sample = golden[name]["samples"][row]
            pair = sample if isinstance(sample, list) else sample.get("pair", [sample])
            for (which, side), text in texts.items():
                start = 1 if side == "source" else 0  # <s>
                ids = [i for i in pair[which][side][start:-1] if i != 1]  # targets are padded over a prompt
                yield f"{name}, row {row}, {side} {which}", text, ids


Texts = tuple[str, int, dict[tuple[int, str], str]]


def _captions(golden: dict[str, Any]) -> Iterator[Texts]:
    prompt = " what does the image describe?"
    for row in (0, 1):  # the third row's caption is not in the file
        caption = golden["caption/train"]["rows"][row][2]
        target = " " + truncate_words(strip_punctuation(caption), 20)
        yield "caption/train", row, {(0, "source"): prompt, (0, "target"): target}
        references = [strip_punctuation(one) for one in truncate_words(caption, None).split("&&")]
        yield "caption/valid", row, {(0, "source"): prompt, (0, "target"): " " + "&&".join(references)}


def _questions(golden: dict[str, Any]) -> Iterator[Texts]:
    for name, max_words in (("vqa_gen/none", None), ("vqa_gen/src", None), ("vqa_gen/add_object_no_trie", 3)):
        for row, answer in enumerate((" two cats", " yes")):
            fields = golden[name]["rows"][row]
            question = normalize_question(fields[2], max_words)
            question += "" if question.endswith("?") else "?"
            if "object" in name:
                question += " object: " + " ".join(fields[4].split("&&"))
            yield name, row, {(0, "source"): " " + question, (0, "target"): answer}


def _entailment(golden: dict[str, Any]) -> Iterator[Texts]:
    for row, answer in enumerate((" yes", " maybe", " no")):
        _, _, hypothesis, premise, _ = golden["snli_ve/add_caption=True"]["rows"][row]
        hypothesis, premise = normalize_caption(hypothesis), normalize_caption(premise)
        plain = f' does the image describe " {hypothesis} "?'
        yield "snli_ve/add_caption=False", row, {(0, "source"): plain, (0, "target"): answer}
        both = f' can image and text1 " {premise} " imply text2 " {hypothesis} "?'
        yield "snli_ve/add_caption=True", row, {(0, "source"): both, (0, "target"): answer}


def _other(golden: dict[str, Any]) -> Iterator[Texts]:
    expression = normalize_caption(golden["refcoco"]["rows"][0][2])
    yield "refcoco", 0, {(0, "source"): f' which region does the text " {expression} " describe?'}
    words = truncate_words(golden["image_gen"]["rows"][0][1], 64)
    yield "image_gen", 0, {(0, "source"): f" what is the complete image? caption: {words}"}
    rows = golden["unify"]["rows"]
    dog, left = normalize_caption(rows[0][2]), normalize_caption(rows[3][2])
    yield "unify", 0, {(0, "source"): " what does the image describe?", (0, "target"): f" {dog}"}
    yield "unify", 2, {(0, "source"): f" {normalize_question(rows[2][3])}", (0, "target"): " 2"}
    yield "unify", 3, {(0, "source"): f' which region does the text " {left} " describe?', (1, "target"): f" {left}"}
    yield "unify", 4, {(0, "source"): " what does the video describe?", (0, "target"): " people dance"}
    yield "unify/video_qa", 0, {(0, "source"): " what is he doing", (0, "target"): " red"}
    yield "unify/audio_caption", 0, {(0, "source"): " what does the audio describe?", (0, "target"): " rain falls"}
