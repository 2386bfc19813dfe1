"""The published stages of pretraining: their options are the published ones, and each trains on the tables of ``build_pretrain.py``."""

import json

import pytest

from tests import runs, tiny
from tests.tasks.pretraining import material
from tests.test_published_recipes import CRITERIONS, PUBLISHED, normal, resolved
from tests.test_run_scripts import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")  # of Hydra's, about fairseq's way to call it

STAGES = {"stage1": "1-images", "stage2": "2-videos", "stage2_highres": "3-highres"}
LENGTH = {"stage1": (15, 150_000), "stage2": (8, 90_000), "stage2_highres": (1, 11_250)}  # epochs and updates: the paper's
SMALL = [*material.SMALL, "--num-frames", "2", "--patch-frame-size", "64", "--batch-size", "2", "--update-freq", "2", "--num-bins", "10"]
TABLES = {  # as build_pretrain.py writes them
    **dict.fromkeys(("coco", "vg_captions", "sbu", "cc3m", "cc12m"), ("image", lambda i: {"caption": f"a {tiny.WORDS[i]} square"})),
    **dict.fromkeys(("vqa", "gqa", "vg_questions"), ("image", lambda i: {"question": "what?", "answer": tiny.WORDS[i]})),
    **dict.fromkeys(
        ("refcoco", "refcoco+", "refcocog", "vg_regions"), ("image", lambda i: {"text": tiny.WORDS[i], "box": f"{i},1,{i + 9},20"})
    ),
    "webvid": ("video", lambda i: {"caption": f"a {tiny.WORDS[i]} circle"}),
    "webvidqa": ("video", lambda i: {"question": "what?", "answer": tiny.WORDS[i]}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all tables, a vocabulary, and a small checkpoint of text and images to start from."""
    folder = tmp_path_factory.mktemp("pretrain")
    tiny.write_media_table(folder, rows=4)
    media = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for name, (medium, rest) in TABLES.items():
        rows = [{"id": f"{name}-{i}", medium: row[medium], "dataset": name, **rest(i)} for i, row in enumerate(media)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny.vocabulary(folder / "vocab")
    return folder


def arguments(place, script, out):
    """The arguments of ``unival train`` that a script makes; a stage that has trained is where it looks for the one before."""
    given = {"DATA": place, "VOCAB": place / "vocab", "CHECKPOINT": place / "start.pt", "OUT": out, "GPUS": 0}
    (place / "start.pt").touch()
    (found,) = material.commands(place, f"{script}.sh", **given)
    return found


@pytest.mark.parametrize("script", STAGES)
def test_options_are_the_published_ones(script, place, tmp_path):
    from fairseq import options

    import unival.tasks  # noqa: F401  registers what the arguments name

    given = arguments(place, script, tmp_path)
    ours = resolved(options.parse_args_and_arch(options.get_training_parser(), input_args=given))
    expected = dict(PUBLISHED[f"pretrain/{script}"]["train"])
    expected["criterion"] = CRITERIONS[expected["criterion"]]
    expected["freeze_token_embeddings"] = expected.pop("freeze_encoder_embedding")
    expected["schedule_epochs"] = expected.pop("max_epoch")
    if script == "stage1":  # it has no videos
        expected = {name: value for name, value in expected.items() if name not in ("patch_frame_size", "num_frames")}
    assert {name: normal(ours[name]) for name in expected} == {name: normal(value) for name, value in expected.items()}
    stage = material.read_stage(ROOT / "run_scripts" / "pretrain" / "unival.yaml", STAGES[script][2:], place)
    assert (stage.epochs, stage.epochs * stage.updates_per_epoch) == LENGTH[script]
    weights = {stream.name: stream.weight[0][1] for stream in stage.streams}
    if script != "stage1":  # half of a batch for each modality, without CC12M
        videos = sum(weight for name, weight in weights.items() if name.startswith("video"))
        assert videos == sum(weights.values()) / 2 and "cc12m" not in weights


def test_each_stage_trains_from_the_one_before(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TABLES", str(place))  # as the scripts do
    for number, (script, folder) in enumerate(STAGES.items()):
        given = arguments(place, script, tmp_path)
        if number == 0:  # BART's place is taken by random weights
            start = given.index("--finetune-from-model")
            del given[start : start + 2]
            given[given.index("--new-modalities") + 1] = ""
        else:
            before = tmp_path / list(STAGES.values())[number - 1] / "checkpoint_last.pt"
            assert str(before) in given
        assert material.run([*given, *SMALL, "--max-update", "1"]) == 0
        line = runs.log_lines(tmp_path / folder, "train_loss", name="train.jsonl")[-1]
        streams = ["captions", "questions", "grounding"] + (["cc12m"] if number == 0 else ["video_captions", "video_questions"])
        assert all(f"train_loss/{name}" in line for name in streams), line
        assert float(line["train_loss"]) > 0
