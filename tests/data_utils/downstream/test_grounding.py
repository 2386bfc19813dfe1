"""Builders of RefCOCO, RefCOCO+, RefCOCOg and SNLI-VE."""

import io
import os
import pickle

import pytest

from unival.tasks.presets import PRESETS

GROUNDING, ENTAILMENT = (PRESETS[f"unival_{name}"].instruction for name in ("grounding", "entailment"))


def ref(number, split, *texts, ann=1, image=5):
    sentences = [{"tokens": text.split(), "raw": text.title(), "sent_id": 10 * number + i, "sent": text} for i, text in enumerate(texts)]
    name = f"COCO_train2014_{image:012d}_{ann}.jpg"
    return {"ref_id": number, "ann_id": ann, "image_id": image, "file_name": name, "category_id": 1, "split": split, "sentences": sentences}


INSTANCES = {
    "images": [{"id": 5, "file_name": "COCO_train2014_000000000005.jpg", "width": 40, "height": 24}],
    "annotations": [
        {"id": 1, "image_id": 5, "bbox": [10.25, 2, 20.5, 22.3], "category_id": 1},
        {"id": 2, "image_id": 5, "bbox": [10, 2, 40, 5], "category_id": 1},
    ],
}
REFS = [
    ref(1, "train", "the left  one", "café sign", "sign"),
    ref(2, "testA", "a woman"),
    ref(3, "testB", "a dog"),
    ref(4, "val", "outside", ann=2),
    ref(5, "val", "right one"),
]
REFS[0]["sentences"][2]["raw"] = " "  # not kept as it was typed


class Python2(pickle._Pickler):
    """Writes texts as Python 2 does, whose strings are bytes: in Latin-1 by protocol 0, in UTF-8 by protocol 2."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, text):
        if self.bin:
            data = text.encode()
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.STRING + repr(text.encode("latin-1"))[1:].encode() + b"\n")
        self.memoize(text)

    dispatch[str] = save_text


def written(value, protocol, pickler=Python2):
    file = io.BytesIO()
    pickler(file, protocol).dump(value)
    return file.getvalue()


@pytest.mark.parametrize(("protocol", "pickler"), [(0, Python2), (2, Python2), (4, pickle.Pickler)])
def test_refcoco(build, source, media, protocol, pickler):
    source(**{"refs(unc).p": written(REFS, protocol, pickler), "instances.json": INSTANCES})
    root = media("train2014/COCO_train2014_000000000005.jpg")
    built = build("refcoco", "--variant", "refcoco+", "--media-root", root)
    assert built.tables == ["testA", "testB", "train", "valid"]
    image, box = "train2014/COCO_train2014_000000000005.jpg", [10.25, 2.0, 30.75, 24]
    assert built.rows("train") == [
        {"id": "1_10", "image": image, "text": "The Left One", "box": box},
        {"id": "1_11", "image": image, "text": "Café Sign", "box": box},
        {"id": "1_12", "image": image, "text": "sign", "box": box},
    ]
    assert "valid: 1 row with a box that is not within the image left out" in built.text
    assert "train: 3 rows, the data set has 120,191" in built.text and "its 6K and 5K are testA and testB" in built.text
    (example,) = built.read("testB", GROUNDING, root)
    assert len(example.target) == 5 and example.geometry


def test_the_pickle_runs_nothing(build, source, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    source(**{"refs(umd).p": pickle.dumps([Evil()]), "instances.json": INSTANCES})
    built = build("refcoco", "--variant", "refcocog")
    assert built.code == 2 and built.error.count("\n") == 1
    assert "refs(umd).p: refused, nothing in it was run: it names posix.mkdir" in built.error
    assert not (tmp_path / "ran").exists() and not list(built.out.iterdir())
    source(**{"refs(umd).p": pickle.dumps(REFS)[:-40]})
    assert "damaged, or not a pickle" in build("refcoco", "--variant", "refcocog").error
    source(**{"refs(umd).p": pickle.dumps([{**REFS[0], "ann_id": 9}])})
    assert "refs(umd).p, entry 0, key 'ann_id': expected one of instances.json, got 9" in build("refcoco", "--variant", "refcocog").error


def entailment(number, label, hypothesis):
    return (
        f'{{"pairID": "{number}.jpg#2r1n", "gold_label": "{label}", "sentence1": "A caption.", "sentence2": "{hypothesis}",'
        f' "Flickr30K_ID": "{number}", "annotator_labels": []}}\n'
    )


def test_snli_ve(build, source, media):
    train = entailment(1, "entailment", "Two é men.") + "\n" + entailment(2, "-", "Nobody knows.")
    dev, test = entailment(1, "neutral", "x"), entailment(3, "contradiction", "y")
    source(**{"snli_ve_train.jsonl": train, "snli_ve_dev.jsonl": dev, "snli_ve_test.jsonl": test})
    root = media("flickr30k-images/1.jpg", "flickr30k-images/3.jpg")
    built = build("snli_ve", "--media-root", root, sizes={"train": 2, "valid": 1, "test": 1})
    assert built.code == 0
    assert built.last == f"{built.out}: wrote train.jsonl, valid.jsonl, test.jsonl; complete"
    row = {"id": "1.jpg#2r1n", "image": "flickr30k-images/1.jpg", "hypothesis": "Two é men.", "premise": "A caption."}
    assert built.rows("train") == [{**row, "label": "entailment"}]
    assert "1 without a label left out" in built.text
    assert built.read("test", ENTAILMENT, root)[0].references == ["no"]
    assert "train: 1 file, table 15 of the paper says 30K" in build("snli_ve", "--force").text

    source(**{"snli_ve_dev.jsonl": entailment(1, "entails", "x")})
    broken = build("snli_ve", "--force")
    assert "dev.jsonl, line 1, key 'gold_label': expected one of entailment, neutral, contradiction, -, got 'entails'" in broken.error
    assert broken.rows("valid") == built.rows("valid") and not list(broken.out.glob(".*.part")), "the earlier tables stay"
