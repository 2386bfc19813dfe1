"""Studies: every setting is trained with every seed and compared; what is there is not trained again; mixtures fit their tables."""

import importlib
import json
import pathlib
import re

import pytest
from PIL import Image

from unival.tasks.pretraining.file import read_mixture

STUDIES = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "studies"


@pytest.fixture
def study(monkeypatch):
    """Imports a study as its own process would."""
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module


def test_settings_are_trained_and_compared(study, tmp_path, monkeypatch, capsys):
    """Training is replaced by logs whose scores follow from setting and seed; a setting has two stages and a run that follows."""
    frame, calls = study("frame"), []

    def train(arguments, save, cost):
        calls.append(arguments)
        seed, is_after = int(arguments[arguments.index("--seed") + 1]), "after" in str(save)
        score = seed + ("two" in str(save)) * 10 + is_after * 100
        lines = [{"valid_num_updates": "5", "valid_a/cider": str(score), "valid_other": "1"}, {"train_num_updates": "5"}]
        (save / "train.jsonl").write_text("begin\n{'_name': None}\n" + "".join(json.dumps(line) + "\n" for line in lines))
        cost.seconds, cost.updates = cost.seconds + 2, cost.updates + 5

    monkeypatch.setattr(frame, "train", train)
    plain, staged = {"streams": {}}, {"streams": {}, "stages": {"first": {}, "second": {}}}
    settings = [frame.Setting("one", staged, {"after": plain}), frame.Setting("two, too", plain, {"after": plain})]
    made = frame.Study(
        file="there/words.py",
        question="Which?",
        data=lambda folder, small: (folder / "small").write_text(str(small)),
        settings=lambda small: settings,
        scores={"a/cider": "CIDEr", "after/a/cider": "CIDEr afterwards"},
    )
    arguments = ["--work", str(tmp_path / "work"), "--out", str(tmp_path), "--smoke", "--jobs", "1"]
    assert frame.main(made, arguments) == 0
    head, line, one, two = capsys.readouterr().out.splitlines()
    assert head == "| Which? | CIDEr | CIDEr afterwards | updates | processor seconds |" and line == "|---|---|---|---|---|"
    assert one == "| one | 2.000 ± 1.000 | 102.000 ± 1.000 | 15 | 6 |"
    assert two == "| two, too | 12.000 ± 1.000 | 112.000 ± 1.000 | 10 | 4 |"
    assert (tmp_path / "work" / "data" / "small").read_text() == "True"
    content = json.loads((tmp_path / "words.json").read_text())
    expected = [(name, seed) for seed in (1, 2, 3) for name in ("one", "two, too")]
    assert [(run["setting"], run["seed"]) for run in content["runs"]] == expected
    with Image.open(tmp_path / "words.png") as picture:
        assert picture.width > 500
    first, second, after, *_ = calls
    assert [call[call.index("--stage") + 1] for call in (first, second, after)] == ["first", "second", "all"]
    assert "--vocab-dir" in first and [call[-1] for call in (second, after)] == [
        str(tmp_path / "work" / "one-1" / "pretraining" / stage / "checkpoint_last.pt") for stage in ("first", "second")
    ]
    assert frame.main(made, arguments) == 0 and len(calls) == 15, "the runs are there"


def test_balancing(study, tmp_path):
    """The mixtures fit the tables; the large source has 20 times the rows, and a share by rows or as the others."""
    balancing = study("balancing")
    balancing.data(tmp_path, True)
    rows = {path.stem: balancing.frame.rows(path) for path in tmp_path.glob("*.jsonl")}
    assert {name: len(table) for name, table in rows.items() if name.endswith("-train")} == {
        **dict.fromkeys(("captions-train", "questions-train", "regions-train"), 20),
        "web-train": 400,
    }
    assert all((tmp_path / row["image"]).is_file() for table in rows.values() for row in table)
    assert all(re.fullmatch(r"photo of my \w+ \w+", row["caption"]) for row in rows["web-train"])
    shown = {row["image"] for row in rows["captions-train"]}
    assert {row["image"] for row in rows["regions-train"]} == shown and not {row["image"] for row in rows["web-train"]} & shown
    for setting in balancing.STUDY.settings(True):
        (tmp_path / "mixture.yaml").write_text(json.dumps(setting.mixture))
        read = read_mixture(tmp_path / "mixture.yaml")
        assert all(table.is_file() for stream in read.streams.values() for table in [*stream.table, *filter(None, [stream.valid])])
        assert ("web" in read.streams) == ("large" in setting.name)
        assert str(read.stages[0].balancing) == ("proportional" if "proportional" in setting.name else "equal")
