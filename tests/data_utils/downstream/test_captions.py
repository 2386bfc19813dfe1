"""Builders of captioning tables: COCO, NoCaps, MSR-VTT, ActivityNet, AudioCaps, Clotho."""

import numpy as np

from data_utils.sampler.clips import load, save

IMAGE = "[IMAGE:image] what does the image describe? -> [TEXT:caption,no_punctuation,max_length=20]"
VIDEO = "[VIDEO:video] what does the video describe? -> [TEXT:caption]"
AUDIO = "[AUDIO:audio] what does the video describe? -> [TEXT:caption]"


def coco_image(number, split, *captions, folder="val2014"):
    name = f"COCO_{folder}_{number:012d}.jpg"
    sentences = [{"tokens": raw.lower().split(), "raw": raw, "imgid": 0, "sentid": i} for i, raw in enumerate(captions)]
    return {"filepath": folder, "sentids": [0], "filename": name, "imgid": 0, "split": split, "sentences": sentences, "cocoid": number}


def test_coco(build, source, media):
    images = [
        coco_image(9, "train", "A man  sitting.\n", "Un café à Zürich.", folder="train2014"),
        coco_image(7, "restval", "A dog.", ""),
        coco_image(1, "val", "A cat."),
        coco_image(2, "test", "A boat.", "A ship."),
        coco_image(2, "test", "Again."),
        coco_image(3, "test", "No such file."),
        coco_image(4, "test", " "),
    ]
    source(**{"caption_datasets/dataset_coco.json": {"images": images, "dataset": "coco"}})
    names = [f"{image['filepath']}/{image['filename']}" for image in images[:4]]
    root = media(*names)
    built = build("coco", "--media-root", root)
    assert (built.code, built.tables) == (1, ["test", "train", "valid"])
    assert built.rows("train") == [
        {"id": 9, "image": "train2014/COCO_train2014_000000000009.jpg", "caption": ["A man sitting.", "Un café à Zürich."]},
        {"id": 7, "image": "val2014/COCO_val2014_000000000007.jpg", "caption": ["A dog."]},
    ]
    assert [row["id"] for row in built.rows("test")] == [2]
    assert "test: 1 row with an id that an earlier row has left out" in built.text and "test: 1 row without a reference" in built.text
    assert "test: 1 row without a file left out, such as val2014/COCO_val2014_000000000003.jpg" in built.text
    assert "warning: train: 2 rows, the data set has 113,287" in built.text
    assert "warning: train: 2 rows, table 15 of the paper says 113K" in built.text
    assert built.last.startswith(f"{built.out}: wrote train.jsonl, valid.jsonl, test.jsonl; not the complete data set (")
    examples = built.read("train", IMAGE, root)
    assert [example.references for example in examples] == [["A man sitting.", "Un café à Zürich."], ["A dog."]]
    assert all(example.media[0][1].shape == (3, 32, 32) for example in examples)

    assert "train.jsonl is there already (--force replaces it)" in build("coco").error
    again = build("coco", "--force", "--row-per-reference")
    assert [row["caption"] for row in again.rows("train")] == ["A man sitting.", "Un café à Zürich.", "A dog."]
    assert [row["caption"] for row in again.rows("test")] == [["A boat.", "A ship."], ["No such file."]]
    assert not list(again.out.glob(".*.part"))


def test_coco_with_images_in_one_folder(build, source, media):
    source(**{"dataset_coco.json": {"images": [coco_image(1, "test", "A cat.")]}})
    built = build("coco", "--media-root", media("COCO_val2014_000000000001.jpg"))
    assert built.rows("test")[0]["image"] == "COCO_val2014_000000000001.jpg"


def test_nocaps(build, source, media):
    domains = {0: "in-domain", 1: "near-domain", 2: "out-domain"}
    images = [{"id": i, "file_name": f"{i:016x}.jpg", "open_images_id": f"{i:016x}", "domain": domain} for i, domain in domains.items()]
    annotations = [{"image_id": i, "id": 10 * i + j, "caption": f"caption {j} of {i}"} for j in range(2) for i in (1, 0, 2)]
    test = {"images": [{"id": 0, "file_name": "a.jpg", "open_images_id": "a"}]}
    source(
        **{
            "nocaps_val_4500_captions.json": {"images": images, "annotations": annotations},
            "nocaps_test_image_info.json": test,
        }
    )
    root = media(*(f"val/{image['file_name']}" for image in images), "test/a.jpg")
    built = build("nocaps", "--media-root", root)
    assert built.tables == ["test", "valid", "valid_in_domain", "valid_near_domain", "valid_out_domain"]
    assert built.rows("valid_near_domain") == [
        {"id": 1, "image": f"val/{1:016x}.jpg", "caption": ["caption 0 of 1", "caption 1 of 1"], "domain": "near-domain"}
    ]
    assert built.rows("test") == [{"id": 0, "image": "test/a.jpg"}]
    assert len(built.read("valid", IMAGE, root)) == 3


def test_msrvtt(build, source, media):
    videos = [{"video_id": f"video{i}", "split": split, "id": i} for i, split in enumerate(["train", "validate", "test"])]
    sentences = [{"caption": f"a clip {i % 3}", "video_id": f"video{i % 3}", "sen_id": i} for i in range(6)]
    part = {"videos": videos[:2], "sentences": sentences}
    source(**{"train_val_videodatainfo.json": part, "test_videodatainfo.json": {"videos": videos[2:], "sentences": sentences}})
    root = media("TrainValVideo/video0.mp4", "TrainValVideo/video1.mp4", "TestVideo/video2.mp4")
    two = build("msrvtt", "--media-root", root)
    source(**{"MSRVTT_data.json": {"info": {}, "videos": videos, "sentences": sentences}})
    one = build("msrvtt", "--media-root", root, "--force")
    assert two.rows("test") == one.rows("test") == [{"id": "video2", "video": "TestVideo/video2.mp4", "caption": ["a clip 2", "a clip 2"]}]
    assert [row["id"] for table in ("train", "valid") for row in one.rows(table)] == ["video0", "video1"]
    (example,) = one.read("test", VIDEO, root)
    assert example.media[0][0] == "video"


def test_audiocaps(build, source, media):
    head = "audiocap_id,youtube_id,start_time,caption\n"
    source(
        **{
            "train.csv": head + '1,-abc,10,"A man speaks, then laughs"\n2,gone,0,A dog barks\n',
            "val.csv": head + "3,xyz,120,Wind\n4,xyz,120,Wind blows\n5,xyz,30,Another clip of it\n",
        }
    )
    root = media("train/-abc.wav", "Yxyz.wav", "xyz_30.wav")
    built = build("audiocaps", "--media-root", root)
    assert built.rows("train") == [{"id": "-abc_10", "audio": "train/-abc.wav", "caption": ["A man speaks, then laughs"]}]
    assert [(row["id"], row["caption"]) for row in built.rows("valid")] == [
        ("xyz_120", ["Wind", "Wind blows"]),
        ("xyz_30", ["Another clip of it"]),
    ]
    assert "such as gone.wav" in built.text and "test: not made, since its file is not there" in built.text
    assert "table 15 of the paper says 47K (videos were removed from YouTube since)" in built.text
    assert built.read("valid", AUDIO, root)[0].references == ["Wind", "Wind blows"]


def test_clotho(build, source, media):
    head = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    lines = {name: f"{name}.wav,One é,Two,\"Three, four\",,Five\n" for name in ("development", "evaluation", "validation")}
    files = {f"clotho_captions_{name}.csv": "\ufeff" + head + line for name, line in lines.items()}
    source(**{name: text for name, text in files.items() if "validation" not in name})
    root = media("development/development.wav", "evaluation.wav")
    built = build("clotho", "--media-root", root)
    assert built.rows("train") == [
        {"id": "development.wav", "audio": "development/development.wav", "caption": ["One é", "Two", "Three, four", "Five"]}
    ]
    assert built.rows("valid")[0]["audio"] == "evaluation.wav" and built.rows("valid") == built.rows("test")
    assert "train: 4 references, table 15 of the paper says 17.5K (the five captions of 2,893 recordings" in built.text
    assert len(built.read("valid", AUDIO, root)) == 1
    source(**files)
    second = build("clotho", "--force")
    assert "version 2" in second.text and second.rows("test")[0]["audio"] == "evaluation/evaluation.wav"
    assert second.rows("valid")[0]["audio"] == "validation/validation.wav"


ACTIVITYNET = {
    "train.json": {
        "v_a": {"duration": 2.0, "timestamps": [[0, 1.04], [1.5, 0.5], [1, 1]], "sentences": [" One.", "Two.", "None."]},
        "v_b": {"duration": 9.0, "timestamps": [[0, 1]], "sentences": ["Missing."]},
    },
    "val_1.json": {"v_a": {"duration": 2.0, "timestamps": [[1.95, 30]], "sentences": ["The end."]}},
}


def test_activitynet(build, source, tmp_path):
    """Frame ``i`` of the video is of brightness 12 i; ten frames a second."""
    source(**ACTIVITYNET)
    (tmp_path / "videos").mkdir()
    frames = np.stack([np.full((34, 46, 3), 12 * i, np.uint8) for i in range(20)])
    save(frames, tmp_path / "videos" / "v_a.mp4", fps=10, quality=92)
    (tmp_path / "videos" / "v_b.mkv").write_bytes(b"damaged")
    root = tmp_path / "clips"
    root.mkdir()
    built = build("activitynet", "--videos", tmp_path / "videos", "--media-root", root)
    assert built.rows("train") == [
        {"id": "v_a_0", "video": "v_a_0.00_1.04.mp4", "caption": ["One."], "start": 0, "end": 1.04},
        {"id": "v_a_1", "video": "v_a_0.50_1.50.mp4", "caption": ["Two."], "start": 0.5, "end": 1.5},
    ]
    assert "v_b.mkv: " in built.text and "train: 1 row without a duration left out" in built.text
    (end,) = built.rows("valid")
    frames_of = {"v_a_0.00_1.04.mp4": range(11), "v_a_0.50_1.50.mp4": range(5, 15), end["video"]: [19]}
    for name, numbers in frames_of.items():
        assert np.abs(load(root / name).mean((1, 2, 3)) - 12 * np.array(numbers)).max() < 4, name
    assert len(built.read("valid", VIDEO, root)) == 1

    times = {path.name: path.stat().st_mtime_ns for path in root.iterdir()}
    assert sorted(times) == ["v_a_0.00_1.04.mp4", "v_a_0.50_1.50.mp4", "v_a_1.95_30.00.mp4"]
    build("activitynet", "--videos", tmp_path / "videos", "--media-root", root, "--force")
    assert times == {path.name: path.stat().st_mtime_ns for path in root.iterdir()}, "what is there is not cut again"
    assert "give --media-root" in build("activitynet", "--videos", tmp_path, "--force").error
