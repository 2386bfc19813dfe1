"""Tables of SBU, CC3M, CC12M, WebVid and WebVidVQA: lists, folders and tar files."""

import io
import json
import tarfile

import pytest
import yaml

from unival.tasks.presets import CAPTION
from unival.tasks.pretraining.file import read_mixture

HELD = {f"held/snli_ve/snli_ve_{split}.jsonl": f'{{"Flickr30K_ID": "{i}"}}\n' for split, i in (("dev", 4385058960), ("test", 2))}


def sample(key, caption, url="http://host/1.jpg"):
    """The .json of img2dataset."""
    told = {"caption": caption, "url": url, "key": key, "status": "success", "error_message": None, "width": 40, "height": 24, "exif": "{}"}
    return json.dumps(told, indent=4)


def shard(*files):
    """A tar file of (name, content)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files:
            data = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def test_folders_of_img2dataset(pretrain, source, media, tmp_path):
    root = media("cc3m/00000/000000000.jpg", "cc3m/00000/000000002.jpg", "cc3m/00001/000010000.png", "cc3m/00001/000010001.jpg")
    flickr = "https://farm3.staticflickr.com/2723/4385058960_b0f291553e_b.jpg"
    files = {
        "00000/000000000.json": sample("000000000", "a  café\n"),
        "00000/000000001.json": sample("000000001", "not downloaded"),
        "00000/000000002.json": sample("000000002", "held out", flickr),
        "00000/000000000.txt": "not read",
        "00000_stats.json": "{}",
        "00001/000010000.txt": "a dog",
        "00001/000010001.json": sample("000010001", None),
    }
    for name, text in files.items():
        (root / "cc3m" / name).write_text(text, encoding="utf-8")
    source(**HELD)
    (tmp_path / "source" / "cc3m").symlink_to(root / "cc3m")
    built = pretrain("cc3m", held=("snli_ve",), media=root)
    row = {"objects": [], "dataset": "cc3m"}
    assert built.rows("cc3m") == [
        {"id": "cc3m-000000000", "image": "cc3m/00000/000000000.jpg", "caption": "a café", **row},
        {"id": "cc3m-000010000", "image": "cc3m/00001/000010000.png", "caption": "a dog", **row},
    ]
    left_out = "1 about images of benchmarks left out (snli_ve 1); 1 without a file left out; 1 without a caption left out"
    assert f"cc3m  5 rows read, 2 kept; {left_out}" in built.text
    assert "1 row without a file, such as cc3m/00000/000000001.jpg" in built.text
    assert len(built.examples("cc3m")) == 4
    assert "so that it must be below --media-root" in pretrain("cc3m", media=tmp_path / "out", flags=("--force",)).error
    assert "give --media-root" in pretrain("cc3m", flags=("--force",)).error
    (root / "cc3m" / "00001" / "000010001.json").write_text("{", encoding="utf-8")
    assert "00001/000010001.json, line 1, character 2: not valid JSON" in pretrain("cc3m", media=root, flags=("--force",)).error


def test_tars_of_img2dataset_are_unpacked(pretrain, source, media):
    root = media("a.jpg")
    image = (root / "a.jpg").read_bytes()
    first = shard(("000000000.jpg", image), ("000000000.txt", "x"), ("000000000.json", sample("0", "a dog")), ("000000003.txt", "no image"))
    source(**{"cc12m/00000.tar": first, "cc12m/00001.tar": shard(("./000010000.txt", "a <PERSON>"), ("./000010000.webp", image))})
    source(**{"cc12m/00000.parquet": b"", "cc12m/00000_stats.json": "{}"})
    built = pretrain("cc12m", media=root)
    assert [(row["id"], row["image"], row["caption"]) for row in built.rows("cc12m")] == [
        ("cc12m-000000000", "cc12m/00000/000000000.jpg", "a dog"),
        ("cc12m-000010000", "cc12m/00001/000010000.webp", "a <PERSON>"),
    ]
    assert "1 without a file left out" in built.text and len(built.examples("cc12m")) == 4
    unpacked = root / "cc12m" / "00000" / "000000000.jpg"
    stamp = unpacked.stat().st_mtime_ns
    pretrain("cc12m", media=root, flags=("--force",))
    assert unpacked.stat().st_mtime_ns == stamp and sorted(path.name for path in unpacked.parent.iterdir()) == [unpacked.name]
    for name, content, said in (
        ("00000.tar", first[:700], "00000.tar: cannot be read: unexpected end of data"),
        ("00000.tar", shard(("../../x.jpg", b"")), "expected names such as 000000012.jpg, got '../../x.jpg'"),
        ("00000.tar", shard(("1.jpg", b"x"), ("1.json", "[]")), "00000.tar, 1.json: expected an object, got a list"),
        ("00000.tar", shard(("1.jpg", b"x"), ("1.txt", b"\xff")), "00000.tar, 1.txt: not UTF-8 text"),
    ):
        source(**{f"cc12m/{name}": content})
        broken = pretrain("cc12m", media=root, flags=("--force",))
        assert broken.code == 2 and broken.error.count("\n") == 1 and said in broken.error
        assert broken.rows("cc12m") == built.rows("cc12m"), "the earlier table stays"


@pytest.mark.parametrize("header", ["", "caption\turl\n"])
def test_lists_of_addresses(pretrain, source, media, header):
    cc3m = f"{header}a dog\thttp://host/x?a=1.jpg\n<PERSON> runs\thttps://host/b.png\n"
    source(**{"cc3m/Train_GCC-training.tsv": cc3m, "cc12m/cc12m.tsv": "http://host/1\ta cat\r\n\nhttp://host/2\t\n"})
    root = media("cc3m/00000/000000001.jpg")
    built = pretrain("cc3m", "cc12m")
    assert [(row["image"], row["caption"]) for row in built.rows("cc3m")] == [
        ("00000/000000000.jpg", "a dog"),
        ("00000/000000001.jpg", "<PERSON> runs"),
    ]
    assert [(row["id"], row["caption"], row["dataset"]) for row in built.rows("cc12m")] == [("cc12m-0", "a cat", "cc12m")]
    found = pretrain("cc3m", media=root, flags=("--force",))
    assert [row["image"] for row in found.rows("cc3m")] == ["cc3m/00000/000000001.jpg"]
    source(**{"cc3m/Train_GCC-training.tsv": cc3m + "no address\n"})
    said = f"line {3 + bool(header)}: expected an address and a caption, separated by a tab, got 'no address'"
    assert said in pretrain("cc3m", flags=("--force",)).error


URLS = ["http://static.flickr.com/2723/4385058960_b0f291553e.jpg", "http://static.flickr.com/3326/3596303505_3ce4c20529.jpg"]


@pytest.mark.parametrize("is_json", [True, False])
def test_sbu(pretrain, source, media, is_json):
    files = {f"SBU_captioned_photo_dataset_{name}.txt": "".join(f"{line}\n" for line in lines) for name, lines in SBU.items()}
    source(
        **({"sbu/sbu-captions-all.json": {"image_urls": SBU["urls"], "user_ids": ["a"], "captions": SBU["captions"]}} if is_json else {})
    )
    source(**({} if is_json else {f"sbu/{name}": text for name, text in files.items()}), **HELD)
    built = pretrain("sbu", held=("snli_ve",), media=media("sbu/images/3596303505_3ce4c20529.jpg"))
    image = "sbu/images/3596303505_3ce4c20529.jpg"
    assert built.rows("sbu") == [{"id": "sbu-1", "image": image, "caption": "A dog.", "objects": [], "dataset": "sbu"}]
    assert "sbu  2 rows read, 1 kept; 1 about images of benchmarks left out (snli_ve 1)" in built.text
    more = {"sbu/sbu-captions-all.json": {"image_urls": SBU["urls"], "captions": ["x"]}}
    source(**(more if is_json else {"sbu/SBU_captioned_photo_dataset_captions.txt": "x\n"}))
    assert "there are more addresses than captions (1)" in pretrain("sbu", flags=("--force",)).error
    more = {"sbu/sbu-captions-all.json": {"image_urls": [], "captions": ["x"]}}
    source(**(more if is_json else {"sbu/SBU_captioned_photo_dataset_urls.txt": ""}))
    assert "there are more captions than addresses" in pretrain("sbu", flags=("--force",)).error


SBU = {"urls": URLS, "captions": ["Held out.", "A  dog."]}
WEBVID = (
    "videoid,contentUrl,duration,page_dir,name\n"
    '21179416,https://host/21179416.mp4,PT00H00M11S,006001_006050,"Aerial shot, ""winter"" forest"\n'
    "5629184,https://host/5629184.mp4,PT00H00M29S,071501_071550,Senior  couple\n"
    "7,https://host/7.mp4,PT00H00M29S,000001_000050,Gone\n"
)
QUESTIONS = {
    "21179416": {"question": ["What is in  the forest?", "When?"], "answer": ["Snow", "the winter"]},
    "5629184": {"question": ["Who?"], "answer": ["a couple."]},
    "9": {"question": ["Held out?"], "answer": ["yes"]},
}


def test_webvid_and_its_questions(pretrain, source, media):
    source(**{"webvid/results_2M_train.csv": WEBVID, "webvidqa/webvidvqa.json": QUESTIONS})
    source(**{"webvidqa/val_webvidvqa.csv": "feature_path,video_id\n9.mp4.npy,9\n", "coco/captions_train2014.json": COCO})
    root = media("webvid/videos/006001_006050/21179416.mp4", "5629184.mp4", "coco/train2014/COCO_train2014_000000000001.jpg")
    built = pretrain("webvid", "webvidqa", "coco", media=root)
    first = "webvid/videos/006001_006050/21179416.mp4"
    assert built.rows("webvid") == [
        {"id": "webvid-21179416", "video": first, "caption": 'Aerial shot, "winter" forest', "objects": [], "dataset": "webvid"},
        {"id": "webvid-5629184", "video": "5629184.mp4", "caption": "Senior couple", "objects": [], "dataset": "webvid"},
    ]
    asked = {"question": "What is in the forest?", "answer": {"snow": 1.0}, "objects": [], "dataset": "webvidqa"}
    rows = built.rows("webvidqa")
    assert rows[0] == {"id": "webvidqa-21179416-0", "video": first, **asked}
    assert [(row["video"], row["answer"]) for row in rows[1:]] == [(first, {"winter": 1.0}), ("5629184.mp4", {"couple": 1.0})]
    assert "webvidqa: 1 videos of val_webvidvqa.csv are left out" in built.text
    assert "warning: webvid: 1 row without a file, such as videos/000001_000050/7.mp4" in built.text
    mixture = yaml.safe_load((built.out / "mixture.yaml").read_text(encoding="utf-8"))
    assert {name: (each["builder"], each.get("medium")) for name, each in mixture["streams"].items()} == {
        "captions": ("caption_and_matching", None),
        "video_captions": ("caption_and_matching", "video"),
        "video_questions": ("question_and_matching", "video"),
    }
    assert mixture["stages"] == {
        "images": {"epochs": 15, "schedule_epochs": 50, "streams": ["captions"]},
        "videos": {"epochs": 8, "schedule_epochs": 50, "streams": ["captions", "video_captions", "video_questions"]},
    }
    assert len(built.examples("webvid")) == 4 and len(built.examples("webvidqa")) == 6
    assert [len(stage.streams) for stage in read_mixture(built.out / "mixture.yaml").stages] == [1, 3]
    alone = pretrain("webvidqa", flags=("--force",))
    assert alone.code == 0 and [row["video"] for row in alone.rows("webvidqa")] == ["videos/21179416.mp4"] * 2 + ["videos/5629184.mp4"]
    assert "webvid.jsonl" in (alone.out / "mixture.yaml").read_text(encoding="utf-8"), "tables of earlier runs stay in the mixture"


COCO = {"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "x"}]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("webvid/results_2M_train.csv", "videoid,name\n1,x\n", "line 2: there is no key 'page_dir'; there are 'videoid', 'name'"),
        ("webvid/results_2M_train.csv", "videoid,name,page_dir\nx,x,y\n", "line 2, key 'videoid': expected a whole number, got 'x'"),
        ("webvid/other.csv", "", "webvid: there is no results_2M_train.csv or train_2M_results.csv or results_10M_train.csv"),
        ("webvidqa/webvidvqa.pkl", b"cos\nsystem\n", "webvidvqa.pkl is a pickle, which is refused; if you trust it: python -c"),
        ("webvidqa/webvidvqa.json", [], "webvidvqa.json: expected an object, got a list"),
        ("webvidqa/webvidvqa.json", {"1": {"question": ["a"], "answer": []}}, "key 'answer': expected as many answers as questions (1)"),
        ("webvidqa/webvidvqa.json", {"x": {"question": [], "answer": []}}, "key 'video_id': expected a whole number, got 'x'"),
        ("webvidqa/webvidvqa.json", {"1": ["a"]}, "webvidvqa.json, 1: expected an object, got a list"),
    ],
)
def test_a_broken_file_is_one_line(pretrain, source, name, content, said):
    source(**{name: content})
    built = pretrain(name.split("/")[0])
    assert built.code == 2 and built.error.startswith("error: ") and built.error.count("\n") == 1 and said in built.error


def test_videos_of_video2dataset(pretrain, source, media, tmp_path):
    root = media("webvid/00000/00000000.mp4")
    (root / "webvid" / "00000" / "00000000.txt").write_text("A forest", encoding="utf-8")
    source(**HELD)
    (tmp_path / "source" / "webvid").symlink_to(root / "webvid")
    built = pretrain("webvid", media=root)
    assert built.code == 0 and built.rows("webvid")[0]["video"] == "webvid/00000/00000000.mp4"
    assert len(built.read("webvid", CAPTION.replace("IMAGE:image", "VIDEO:video"), root)) == 1
