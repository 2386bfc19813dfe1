"""Builders of tables of questions: VQAv2 with Visual Genome, OK-VQA, VizWiz, MSRVTT-QA, MSVD-QA."""

import pytest

from unival.tasks.presets import PRESETS

IMAGE = PRESETS["unival_vqa"].instruction
VIDEO = IMAGE.replace("IMAGE:image", "VIDEO:video")


def annotation(number, image, *answers, best=None):
    ten = [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i, answer in enumerate(answers, start=1)]
    entry = {"question_id": number, "image_id": image, "question_type": "what", "answer_type": "other", "answers": ten}
    return entry if best is None else {**entry, "multiple_choice_answer": best}


def vqa_files(prefix, split, *questions):
    """Question and annotation files of a split; questions are (id, image, text, answers, best answer)."""
    asked = [{"image_id": image, "question": text, "question_id": number} for number, image, text, _, _ in questions]
    told = [annotation(number, image, *answers, best=best) for number, image, _, answers, best in questions]
    return {
        f"{prefix}OpenEnded_mscoco_{split}_questions.json": {"info": {}, "questions": asked},
        f"{prefix}mscoco_{split}_annotations.json": {"info": {}, "annotations": told[::-1]},
    }


TWO, BOTH = ["two", "2", "2.", "three", *["many"] * 6], ["a dog", "dog", "the cat", *["Dog"] * 7]
TRAIN = (10, 1, "How many  cafés?", TWO, "many"), (11, 1, "What?", BOTH, "dog"), (12, 2, "Rare?", ["x"] * 10, "x")
VALID = (20, 3, "Many?", ["many"] * 10, "many"), (21, 4, "Two?", ["two"] * 9 + [""], "two"), (22, 5, "2?", TWO, "2")
VQA = {
    **vqa_files("v2_", "train2014", *TRAIN),
    **vqa_files("v2_", "val2014", *VALID),
    "v2_OpenEnded_mscoco_test2015_questions.json": {"questions": [{"image_id": 6, "question": "Why?", "question_id": 60}]},
}
NAMES = {1: "train2014", 2: "train2014", 3: "val2014", 4: "val2014", 5: "val2014", 6: "test2015"}
FILES = [f"{folder}/COCO_{folder}_{number:012d}.jpg" for number, folder in NAMES.items()]


def test_vqa(build, source, media):
    source(**VQA)
    root = media(*FILES)
    built = build("vqa", "--least", 2, "--media-root", root)
    assert built.answers == ["many", "2"], "those of two questions at least: two is 2"
    assert built.rows("train") == [
        {"id": 10, "image": FILES[0], "question": "How many cafés?", "answer": {"2": 0.9, "many": 1.0}},
    ]
    assert "2 without a candidate answer left out" in built.text and "train: 3 rows, the data set has 443,757" in built.text
    assert [row["answer"] for row in built.rows("valid")] == [["many"] * 10, [*["two"] * 9, ""], TWO]
    assert built.rows("test") == [{"id": 60, "image": FILES[5], "question": "Why?"}]
    assert "test: 1 row, table 15 of the paper says 453K (the number of the data set's paper" in built.text
    assert "test_dev: not made, since its file is not there" in built.text
    assert built.read("valid", IMAGE, root)[2].references == TWO
    (example,) = built.read("train", IMAGE, root)
    assert (example.references, example.conf) == (["0.9|!+2", "1.0|!+many"], 1.0)
    rows = build("vqa", "--least", 2, "--row-per-reference", "--force").rows("train")
    assert [row["answer"] for row in rows] == [{"2": 0.9}, {"many": 1.0}]
    assert "0 candidate answers, 3,129 in the published recipes" in build("vqa", "--force").text


def test_vqa_by_karpathy_with_visual_genome(build, source, media):
    splits = {3: "val", 4: "test", 5: "restval", 1: "train"}
    images = [{"image_id": i, "url": f"https://host/rak248/VG_100K_2/{i}.jpg", "coco_id": coco} for i, coco in ((1, None), (2, 3), (3, 5))]
    qas = [
        {"qa_id": 100 + i, "image_id": i, "question": "How many?", "answer": "Two.", "a_objects": [], "q_objects": []} for i in (1, 2, 3)
    ] + [{"qa_id": 200, "image_id": 1, "question": "What?", "answer": "A long answer."}]
    source(
        **VQA,
        **{
            "dataset_coco.json": {"images": [{"cocoid": number, "split": split} for number, split in splits.items()]},
            "image_data.json": images,
            "question_answers.json": [{"id": 1, "qas": qas[:1]}, {"id": 2, "qas": qas[1:]}],
        },
    )
    built = build("vqa", "--least", 2, "--karpathy", "--visual-genome")
    assert [row["id"] for row in built.rows("train")] == [10, 22, "vg101", "vg103"]
    assert built.rows("train")[-1] == {"id": "vg103", "image": "VG_100K_2/3.jpg", "question": "How many?", "answer": {"2": 1.0}}
    assert [[row["id"] for row in built.rows(table)] for table in ("valid", "test_karpathy")] == [[20], [21]]
    assert "in train: 2 of 4 questions of Visual Genome (version 1.2 has 1,445,322)" in built.text
    assert "1 of Visual Genome about images that are held out left out" in built.text


def test_a_question_without_answers_is_named(build, source):
    source(**{**VQA, "v2_mscoco_train2014_annotations.json": {"annotations": []}})
    said = build("vqa").error
    assert "questions 0, key 'question_id'" in said and "annotations.json has no answers for 10" in said
    source(**{"v2_mscoco_train2014_annotations.json": {"annotations": [annotation(10, 1, "x", 5)]}})
    assert "annotations 0, answers, key 'answer': expected a text, got 5" in build("vqa").error


def test_okvqa(build, source, media):
    train = vqa_files("", "train2014", (1, 1, "Why?", ["Ride", "ride", "surf", "x"], None))
    source(**train, **vqa_files("", "val2014", (2, 3, "Who?", TWO, None)))
    root = media(FILES[0], FILES[2])
    built = build("okvqa", "--media-root", root)
    assert built.answers == ["ride", "many"]
    assert built.rows("train")[0]["answer"] == {"ride": 0.6} and built.rows("valid")[0]["answer"] == TWO
    assert len(built.read("valid", IMAGE, root)) == 1


def test_vizwiz(build, source, media):
    def entry(split, number, *answers):
        one = {"image": f"VizWiz_{split}_{number:08d}.jpg", "question": "What is  this?"}
        given = [{"answer_confidence": "yes", "answer": answer} for answer in answers]
        return {**one, "answers": given, "answer_type": "other", "answerable": 1} if answers else one

    files = {"train": [entry("train", 0, "café", "café", "x")], "val": [entry("val", 0, "unanswerable", "soup"), entry("val", 1, "")]}
    source(**{f"{split}.json": entries for split, entries in files.items()}, **{"test.json": [entry("test", 0)]})
    root = media("train/VizWiz_train_00000000.jpg", "val/VizWiz_val_00000000.jpg", "test/VizWiz_test_00000000.jpg")
    built = build("vizwiz", "--media-root", root)
    assert built.answers == ["café", "unanswerable"]
    image = "train/VizWiz_train_00000000.jpg"
    assert built.rows("train") == [{"id": image[6:], "image": image, "question": "What is this?", "answer": {"café": 0.6}}]
    assert built.rows("test") == [{"id": "VizWiz_test_00000000.jpg", "image": "test/VizWiz_test_00000000.jpg", "question": "What is this?"}]
    assert "valid: 1 row without a reference left out" in built.text
    assert built.read("valid", IMAGE, root)[0].references == ["unanswerable", "soup"]


def qa(*pairs):
    return [{"answer": answer, "id": i, "question": f"what is  {i}?", "video_id": video} for i, (video, answer) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("name", "files", "first", "others"),
    [
        ("msrvtt_qa", {}, "TestVideo/video7.mp4", ["video1.mp4"]),
        ("msvd_qa", {"youtube_mapping.txt": "-4w_x_5_15 vid1\nb 7 vid7\n\n"}, "b 7.avi", ["-4w_x_5_15.mp4"]),
    ],
)
def test_video_questions(build, source, media, name, files, first, others):
    tables = {"train": qa((1, "cat"), (1, "rare"), (7, "dog")), "val": qa((7, "dog"), (1, "cat")), "test": qa((7, "dog"), (1, "rare"))}
    source(**{f"{split}_qa.json": entries for split, entries in tables.items()}, **files)
    root = media(first, *others)
    built = build(name, "--most", 2, "--media-root", root)
    assert built.answers == ["cat", "dog"]
    assert built.rows("train") == [
        {"id": 0, "video": others[0], "question": "what is 0?", "answer": "cat"},
        {"id": 2, "video": first, "question": "what is 2?", "answer": "dog"},
    ]
    assert "1 whose answer is no candidate left out" in built.text
    assert [row["id"] for row in built.rows("test")] == [0, 1] and [row["id"] for row in built.rows("test_answerable")] == [0]
    assert "(the published tables leave out rows whose answer is no candidate)" in built.text
    assert built.read("test", VIDEO, root)[1].references == ["1.0|!+rare"]


def test_a_video_that_the_mapping_lacks_is_named(build, source):
    source(**{"train_qa.json": qa((3, "dog")), "youtube_mapping.txt": "a vid1"})
    assert "train_qa.json, entry 0, key 'video_id': expected one of youtube_mapping.txt, got 3" in build("msvd_qa").error
    source(**{"youtube_mapping.txt": "vid1"})
    assert "youtube_mapping.txt, line 1: expected a name and a video such as vid1, got 'vid1'" in build("msvd_qa").error
