"""Tables of COCO, Visual Genome, VQAv2, GQA and RefCOCO, and the images of benchmarks that they must not have."""

import importlib
import pickle
import re

import pytest
import yaml

from tests.data_utils.conftest import DATA_UTILS

TRAIN, VAL = "train2014/COCO_train2014_{:012d}.jpg", "val2014/COCO_val2014_{:012d}.jpg"
FLICKR = "http://farm9.staticflickr.com/8186/{}_4e622c8349_z.jpg"


def annotated(*images):
    """The images of a file of COCO; image 7 is Flickr's 700."""
    return [{"id": i, "file_name": "x.jpg", "width": 40, "height": 24, "flickr_url": FLICKR.format(100 * i)} for i in images]


def captions(*pairs):
    """A file of COCO's captions, of (image, caption)."""
    made = [{"image_id": image, "id": 10 + i, "caption": text} for i, (image, text) in enumerate(pairs)]
    return {"info": {}, "images": annotated(*{image for image, _ in pairs}), "licenses": [], "annotations": made}


def karpathy(**splits):
    return {
        "images": [{"cocoid": int(i[1:]), "split": split, "sentences": [{"raw": "x"}]} for i, split in splits.items()],
        "dataset": "coco",
    }


def ref(number, split, image, *texts, box=1):
    sentences = [{"raw": text, "sent": text.lower(), "sent_id": i} for i, text in enumerate(texts)]
    name = f"COCO_train2014_{image:012d}_{box}.jpg"
    return {"ref_id": number, "ann_id": box, "image_id": image, "file_name": name, "split": split, "sentences": sentences}


REFS = [ref(1, "train", 1, "Left one", "a dog"), ref(2, "train", 2, "b", box=2), ref(3, "testA", 2, "c"), ref(4, "train", 1, "d", box=3)]
INSTANCES = {
    "images": [{"id": i, "width": 40, "height": 24} for i in (1, 2)],
    "annotations": [
        {"id": 1, "bbox": [1.5, 2, 10, 20]},
        {"id": 2, "bbox": [1, 2, 10, 20]},
        {"id": 3, "bbox": [1, 2, 0, 20]},
    ],
}
REFCOCO = {"refs(unc).p": pickle.dumps(REFS, 2), "instances.json": INSTANCES}
HELD = {
    "held/coco/dataset_coco.json": karpathy(i1="train", i7="val", i8="restval", i9="test"),
    "held/refcoco/refs(unc).p": REFCOCO["refs(unc).p"],
    "held/vqa/v2_OpenEnded_mscoco_val2014_questions.json": {"questions": [{"image_id": 8, "question": "?", "question_id": 1}]},
    "held/snli_ve/snli_ve_dev.jsonl": '{"Flickr30K_ID": "555"}\n',
    "held/snli_ve/snli_ve_test.jsonl": '{"Flickr30K_ID": "556.jpg"}\n\n',
}


def test_coco(pretrain, source, media):
    instances = {
        "images": annotated(1),
        "annotations": [{"image_id": 1, "category_id": i, "segmentation": [[1, 2]]} for i in (3, 18, 3)],
        "categories": [{"id": 3, "name": "car"}, {"id": 18, "name": "dog"}],
    }
    files = {
        "coco/annotations/captions_train2014.json": captions((1, "A  dog\n runs."), (2, "Held out."), (1, " "), (3, "No file.")),
        "coco/annotations/captions_val2014.json": captions((7, "Karpathy's."), (8, "For training.")),
        "coco/annotations/instances_train2014.json": instances,
    }
    source(**files, **HELD)
    root = media(TRAIN.format(1), VAL.format(8), TRAIN.format(2))
    built = pretrain("coco", held=("coco", "refcoco"), media=root)
    assert built.code == 1 and built.tables == ["coco"]
    assert built.rows("coco") == [
        {"id": "coco-10", "image": TRAIN.format(1), "caption": "A dog runs.", "objects": ["car", "dog"], "dataset": "coco"},
        {"id": "coco-11", "image": VAL.format(8), "caption": "For training.", "objects": [], "dataset": "coco"},
    ]
    left_out = "2 about images of benchmarks left out (coco 1, refcoco 1); 1 without a caption left out; 1 without a file left out"
    assert f"coco  6 rows read, 2 kept; {left_out}" in built.text
    assert f"warning: coco: 1 row without a file, such as {TRAIN.format(3)}" in built.text
    assert "images of vqa, okvqa, refcoco+, refcocog, snli_ve for validation and test were not looked for" in built.text
    assert built.last == f"{built.out}: wrote coco.jsonl; 1 difference, see above"
    assert len(built.examples("coco")) == 4, "a caption and a statement of each row"
    alone = pretrain("coco", flags=("--force",))
    assert "captions_val2014.json is not read" in alone.text and alone.code == 1
    assert "warning: images of coco, vqa, okvqa, refcoco" in alone.text and [row["id"] for row in alone.rows("coco")] == [
        f"coco-{i}" for i in (10, 11, 13)
    ]


IMAGE_DATA = [
    {"image_id": i, "url": f"https://cs.host/rak/VG_100K_2/{i}.jpg", "width": 40, "height": 20, "coco_id": coco, "flickr_id": flickr}
    for i, coco, flickr in ((1, None, None), (2, 9, None), (3, None, 700), (4, 8, 8), (5, None, 555))
]


def region(image, number, phrase, *box):
    return {"region_id": number, "image_id": image, "phrase": phrase, **dict(zip(("x", "y", "width", "height"), box, strict=True))}


def qa(image, number, question, answer):
    return {"a_objects": [], "q_objects": [], "question": question, "answer": answer, "image_id": image, "qa_id": number}


GENOME = {
    "image_data.json": IMAGE_DATA,
    "region_descriptions.json": [
        {"regions": [region(1, 1, "a  dog", -3, 0, 13, 10), region(1, 2, "a street with cars", 0, 0, 40, 30)], "id": 1},
        {
            "regions": [region(1, 3, "line", 5, 5, 0, 4), region(1, 4, "outside", 41, 5, 10, 4), region(2, 5, "COCO's", 0, 0, 40, 20)],
            "id": 2,
        },
        {"regions": [region(3, 6, "COCO's by Flickr", 0, 0, 9, 9), region(4, 7, "", 0, 0, 9, 9), region(5, 8, "x", 0, 0, 9, 9)], "id": 3},
    ],
    "question_answers.json": [
        {"id": 1, "qas": [qa(1, 1, "How many?", "Two."), qa(1, 2, "Where is  it?", "On the left."), qa(2, 3, "Held out?", "yes")]},
        {"id": 4, "qas": [qa(4, 4, "Of VQA's?", "yes"), qa(1, 5, "What?", "...")]},
    ],
    "objects.json": [
        {"image_id": 1, "objects": [{"names": ["dog"], "x": 1}, {"names": ["car", "auto"]}, {"names": ["dog"]}, {"names": []}]}
    ],
}


def test_visual_genome(pretrain, source, media):
    source(**{f"vg/{name}": value for name, value in GENOME.items()}, **HELD, **{"coco/captions_val2014.json": captions((7, "x"))})
    source(**{"coco/captions_train2014.json": captions((1, "x"))})
    root = media("vg/VG_100K_2/1.jpg", "VG_100K_2/4.jpg", TRAIN.format(1))
    built = pretrain("vg", "coco", held=("coco", "vqa", "snli_ve"), media=root)
    assert built.tables == ["coco", "vg_captions", "vg_questions", "vg_regions"]
    image = "vg/VG_100K_2/1.jpg"
    assert built.rows("vg_regions") == [
        {"id": "vg-1", "image": image, "text": "a dog", "box": [0, 0, 10, 10], "dataset": "vg"},
        {"id": "vg-2", "image": image, "text": "a street with cars", "box": [0, 0, 40, 20], "dataset": "vg"},
    ]
    assert built.rows("vg_captions") == [
        {"id": "vg-2", "image": image, "caption": "a street with cars", "objects": ["dog", "car"], "dataset": "vg"}
    ]
    assert built.rows("vg_questions") == [
        {"id": f"vg-{i}", "image": image, "question": question, "answer": {answer: 1.0}, "objects": ["dog", "car"], "dataset": "vg"}
        for i, question, answer in ((1, "How many?", "2"), (2, "Where is it?", "on left"))
    ]
    said = "8 rows read, 2 kept; 4 about images of benchmarks left out (coco 2, vqa 1, snli_ve 1); 2 with a box without area left out"
    assert f"vg_regions    {said}" in built.text
    assert (
        "vg_questions  5 rows read, 2 kept; 2 about images of benchmarks left out (coco 1, vqa 1); 1 without an answer left out"
        in built.text
    )
    assert "warning: vg_questions: read 5 rows, the data set has 1,445,322" in built.text
    assert len(built.examples("vg_regions")) == len(built.examples("vg_questions")) == 4
    mixture = yaml.safe_load((built.out / "mixture.yaml").read_text(encoding="utf-8"))
    assert mixture == {
        "streams": {
            "captions": {"table": ["coco.jsonl", "vg_captions.jsonl"], "builder": "caption_and_matching", "media_root": "../media"},
            "questions": {"table": ["vg_questions.jsonl"], "builder": "question_and_matching", "media_root": "../media"},
            "grounding": {"table": ["vg_regions.jsonl"], "builder": "grounding_and_region", "media_root": "../media"},
        },
        "balancing": "equal",
    }


def test_questions(pretrain, source, media):
    ten = [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(["two", "2.", *["a dog"] * 6, "", ""])]
    told = [{"question_id": i, "image_id": i, "answers": ten, "multiple_choice_answer": "dog", "answer_type": "other"} for i in (1, 2)]
    asked = [{"image_id": i, "question": "How  many?", "question_id": i} for i in (1, 2)]
    question = {
        "question": "Is it red?",
        "answer": "The sky",
        "fullAnswer": "Yes.",
        "semantic": [{"operation": "select"}],
        "isBalanced": True,
    }
    source(
        **{
            "vqa/v2_OpenEnded_mscoco_train2014_questions.json": {"info": {}, "questions": asked},
            "vqa/v2_mscoco_train2014_annotations.json": {"annotations": told[::-1]},
            "gqa/questions1.2/train_balanced_questions.json": {"0123": {**question, "imageId": "1"}, "04": {**question, "imageId": "2"}},
            "vg/image_data.json": IMAGE_DATA,
            "vg/question_answers.json": GENOME["question_answers.json"],
        },
        **HELD,
    )
    built = pretrain("vqa", "gqa", "vg", held=("refcoco", "coco"))
    row = {
        "id": "vqa-1",
        "image": TRAIN.format(1),
        "question": "How many?",
        "answer": {"2": 0.6, "dog": 1.0},
        "objects": [],
        "dataset": "vqa",
    }
    assert built.rows("vqa") == [row]
    assert built.rows("gqa") == [
        {"id": "gqa-0123", "image": "images/1.jpg", "question": "Is it red?", "answer": {"sky": 1.0}, "objects": [], "dataset": "gqa"}
    ]
    assert "vqa           2 rows read, 1 kept; 1 about images of benchmarks left out (refcoco 1)" in built.text
    assert "gqa           2 rows read, 1 kept; 1 about images of benchmarks left out (coco 1)" in built.text
    assert "warning: gqa: read 2 rows, the data set has 943,000" in built.text
    root = media("gqa/images/1.jpg", f"vqa/{TRAIN.format(1)}")
    found = pretrain("vqa", "gqa", "vg", held=("coco",), media=root, flags=("--force",))
    assert [found.rows(name)[0]["image"] for name in ("vqa", "gqa")] == [f"vqa/{TRAIN.format(1)}", "gqa/images/1.jpg"]
    assert "warning: vg_questions: not made, there is no row for it" in found.text and "vg_questions" not in found.tables


def test_refcoco(pretrain, source):
    source(**{f"{name}/{file}": content for name in ("refcoco", "refcoco+") for file, content in REFCOCO.items()}, **HELD)
    built = pretrain("refcoco", "refcoco+", held=("refcoco",))
    assert built.rows("refcoco+") == [
        {"id": f"refcoco+-1_{i}", "image": TRAIN.format(1), "text": text, "box": [1.5, 2, 11.5, 22], "dataset": "refcoco+"}
        for i, text in enumerate(("Left one", "a dog"))
    ]
    left_out = "1 about images of benchmarks left out (refcoco 1); 1 with a box without area left out"
    assert f"refcoco   4 rows read, 2 kept; {left_out}" in built.text


@pytest.mark.parametrize(
    ("names", "files", "said"),
    [
        (["coco"], {"coco/x.json": {}}, "coco: there is no captions_train2014.json; the folder has x.json"),
        (["vg"], {"vg/objects.json": []}, "vg: there is no region_descriptions.json or question_answers.json; the folder has objects.json"),
        (["gqa"], {"gqa/train_balanced_questions.json": {}}, "gqa: there is no image_data.json"),
        (["coco", "coco"], {"coco/x.json": {}}, "coco is given twice"),
        (
            ["vg"],
            {"vg/image_data.json": [], "vg/question_answers.json": [{"qas": [qa(1, 1, "a", "b")]}]},
            "qas 0, key 'image_id': expected one of",
        ),
        (["vg"], {"vg/image_data.json": [{}], "vg/question_answers.json": []}, "image_data.json, entry 0: there is no key 'image_id'"),
        (
            ["vg"],
            {"vg/image_data.json": IMAGE_DATA, "vg/question_answers.json": []},
            "there is no row for any table: vg_captions: 0 rows read, 0 kept",
        ),
        (
            ["coco"],
            {"coco/captions_train2014.json": {"annotations": [{"image_id": 1, "id": 2}]}},
            "annotations 0: there is no key 'caption'",
        ),
        (["coco"], {"coco/captions_train2014.json": '{"annotations": [{"image_id": 1,\n}'}, "line 2, character 1: not valid JSON"),
        (["vqa"], {"vqa/v2_OpenEnded_mscoco_train2014_questions.json": {}}, "vqa: there is no v2_mscoco_train2014_annotations.json"),
    ],
)
def test_a_broken_file_is_one_line(pretrain, source, names, files, said):
    source(**files)
    built = pretrain(*names)
    assert built.code == 2 and built.error.startswith("error: ") and built.error.count("\n") == 1 and said in built.error
    assert not built.out.exists() or not list(built.out.iterdir())


def test_folders_have_names(pretrain, source, tmp_path):
    source(**{"coco/captions_train2014.json": captions((1, "x")), "held/coco/dataset_coco.json": karpathy(i1="train")})
    assert "--held-out coco=" in pretrain("coco", held=("coco",)).error
    assert "its files name no image for validation or test" in pretrain("coco", held=("coco",)).error
    assert f"--source {tmp_path}: expected NAME=FOLDER, where NAME is one of coco, vg" in pretrain(flags=("--source", tmp_path)).error
    assert "there is no 'flickr'; there are coco, vqa, okvqa" in pretrain("coco", flags=("--held-out", f"flickr={tmp_path}")).error
    assert "vg: there is no such folder" in pretrain("vg").error
    assert pretrain("coco").code == 1
    assert "coco.jsonl is there already (--force replaces it)" in pretrain("coco").error
    (tmp_path / "out" / "coco.jsonl").unlink()
    (tmp_path / "out" / "mixture.yaml").write_text("mine", encoding="utf-8")
    assert "mixture.yaml: is there already and stays as it is" in pretrain("coco").text
    assert (tmp_path / "out" / "mixture.yaml").read_text(encoding="utf-8") == "mine"


def test_the_documentation_names_every_source_and_benchmark(pretrain):
    page = (DATA_UTILS / "README.md").read_text(encoding="utf-8")
    readers = importlib.import_module("pretrain.readers").READERS
    benchmarks = importlib.import_module("pretrain.held_out").BENCHMARKS
    description = importlib.import_module("build_pretrain").__doc__
    tables = [page[page.index(f"| `{option}` |") :].split("\n\n")[0].splitlines()[2:] for option in ("--source", "--held-out")]
    assert [name for row in tables[0] for name in re.findall("`(.*?)`", row.split("|")[1])] == list(readers)
    assert [name for row in tables[0] for name in re.findall("`(.*?)`", row.split("|")[3])] == [
        t for each in readers.values() for t in each.tables
    ]
    assert [name for row in tables[1] for name in re.findall("`(.*?)`", row.split("|")[1])] == list(benchmarks)
    assert all(re.search(rf"(^|[ ,]){re.escape(name)}[ ,]", description, re.MULTILINE) for name in (*readers, *benchmarks))
