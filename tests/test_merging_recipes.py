"""The recipes of merging: what each trains from what, and that they run to their end with tiny models and go on after a stop."""

import base64
import json
import pathlib
import sys

import pytest
import torch

from tests import runs, tiny
from tests.checkpoints.samples import own_container
from tests.test_every_recipe import SMALL, cells
from tests.test_run_scripts import ROOT, bash, inputs, recorded  # noqa: F401  fixtures
from unival.checkpoints.files import read
from unival.cli import build_parser, main

pytestmark = pytest.mark.filterwarnings("ignore")  # of Hydra's, about fairseq's way to call it
FOLDER = ROOT / "run_scripts" / "merging"
RECIPES = sorted(path for path in FOLDER.glob("*.sh") if path.name != "example.sh")
IMAGE, VIDEO = ("caption_coco", "vqa", "refcocoplus", "snli_ve"), ("video_caption_msrvtt", "video_qa_msrvtt")
SIZES = ("--num-codes", "4", "--num-bins", "3")  # of the model that is trained
# Notes its arguments, and makes the files that the command would.
RECORDER = """#!/usr/bin/env bash
printf '%s\\0' "$(basename "$0")" "$@" '' >>"$RECORDED"
best=checkpoint_best.pt made=""
case " $* " in *" --store-ema "*) best=checkpoint_best_ema.pt ;; esac
while [ $# -gt 0 ]; do
  case "$1 $2" in "--save-dir "*) made="$2/$best" ;; "--out "*.pt) made="$2" ;; esac
  shift
done
[ -n "$made" ] || exit 0
mkdir -p "$(dirname "$made")"
[ -e "$made" ] || touch "$made"
"""


@pytest.fixture
def commands(recorded, tmp_path):  # noqa: F811
    """As ``recorded``; the commands leave empty files, so that the script goes on."""
    (tmp_path / "recording" / "bin" / "unival").write_text(RECORDER)

    def run(*arguments, **variables):
        calls = recorded(*arguments, **variables)
        assert "--check" in calls[0][1] or arguments[0].name == "example.sh", "how models are merged is checked before they are trained"
        return [call for call in calls if "--check" not in call[1]]

    return run


def tables(folder: pathlib.Path, names) -> pathlib.Path:
    """Folders of tables that pass the checks."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "answers.txt").write_text("yes\nno\n")
        for split in ("train", "valid"):
            (folder / name / f"{split}.tsv").write_text("row\n")
    return folder


def steps(calls, out: pathlib.Path) -> list[str]:
    """What the commands do, by paths in ``out``: ``result < what it is made of``."""
    found = []
    for command, arguments in calls:
        if command == "train":
            parsed = {name: arguments[arguments.index(name) + 1] for name in ("--save-dir", "--finetune-from-model")}
            found.append(f"{parsed['--save-dir']} < {parsed['--finetune-from-model']}")
        else:
            merge = build_parser("merge").parse_args(arguments)
            assert merge.config_from in merge.models and merge.force
            found.append(f"{merge.out} < {' + '.join(merge.models)} as {merge.models.index(merge.config_from)}")
    return [line.replace(f"{out}/", "").replace("/checkpoint_best", "/best") for line in found]


def test_vanilla_and_fusing_and_ratatouille(commands, inputs, tmp_path):  # noqa: F811
    """Every average is of what its paper averages; all begin with the models of vanilla.sh; moving averages are taken if there are any."""
    inputs["DATA"], out, model = tables(tmp_path / "tables", IMAGE), inputs["OUT"], inputs["CHECKPOINT"]
    three = {**inputs, "TASKS": "caption_coco vqa snli_ve"}
    first = [f"finetuned/{name} < {model}" for name in ("caption_coco", "vqa", "snli_ve")]
    best = {"caption_coco": "best.pt", "vqa": "best_ema.pt", "snli_ve": "best.pt"}
    models = [f"finetuned/{name}/{file}" for name, file in best.items()]
    averages = [f"{name}.pt < {' + '.join(models)} as {i}" for i, name in enumerate(best)]
    assert steps(commands(FOLDER / "vanilla.sh", **three), out) == [*first, *(f"vanilla/{line}" for line in averages)]
    fused = steps(commands(FOLDER / "fusing.sh", **three, TARGETS="vqa refcocoplus"), out)
    assert fused == [
        *first,
        f"fusing/vqa/start.pt < {models[0]} + {models[2]} as 0",
        "fusing/vqa < fusing/vqa/start.pt",
        f"fusing/refcocoplus/start.pt < {' + '.join(models)} as 0",  # of a task that is none of TASKS all are auxiliary
        "fusing/refcocoplus < fusing/refcocoplus/start.pt",
        "fusing/vqa.pt < fusing/vqa/best_ema.pt + fusing/refcocoplus/best.pt as 0",
        "fusing/refcocoplus.pt < fusing/vqa/best_ema.pt + fusing/refcocoplus/best.pt as 1",
    ]
    delayed = steps(commands(FOLDER / "ratatouille.sh", **three, TARGETS="vqa snli_ve"), out)
    assert delayed == [
        *first,
        f"ratatouille/vqa/caption_coco < {models[0]}",
        f"ratatouille/vqa/snli_ve < {models[2]}",
        "ratatouille/vqa/average.pt < ratatouille/vqa/caption_coco/best_ema.pt + ratatouille/vqa/snli_ve/best_ema.pt as 0",
        f"ratatouille/snli_ve/caption_coco < {models[0]}",
        f"ratatouille/snli_ve/vqa < {models[1]}",
        "ratatouille/snli_ve/average.pt < ratatouille/snli_ve/caption_coco/best.pt + ratatouille/snli_ve/vqa/best.pt as 0",
        "ratatouille/vqa.pt < ratatouille/vqa/average.pt + ratatouille/snli_ve/average.pt as 0",
        "ratatouille/snli_ve.pt < ratatouille/vqa/average.pt + ratatouille/snli_ve/average.pt as 1",
    ]
    wise = commands(FOLDER / "wise_ft.sh", **inputs, TASKS="vqa", SHARE="0.25")
    assert steps(wise, out) == [first[1], f"wise_ft/vqa.pt < {model} + {models[1]} as 1"]
    parsed = build_parser("merge").parse_args(wise[-1][1])
    assert (parsed.share, parsed.missing) == (0.25, "skip")


def test_cold_fusion_goes_round_by_round(commands, inputs, tmp_path):  # noqa: F811
    """A round starts from the average of the one before; finished rounds are not trained again, and keep no checkpoints but the average."""
    inputs["DATA"], out = tables(tmp_path / "tables", VIDEO), inputs["OUT"]
    inputs["TASKS"] = " ".join(VIDEO)
    calls = commands(FOLDER / "cold_fusion.sh", "--max-epoch", "3", **inputs, ROUNDS=1)
    assert all(" ".join(arguments).endswith("--max-epoch 1 --max-epoch 3") for command, arguments in calls if command == "train")

    def round_of(number: int, start: object) -> list[str]:
        folder = f"cold_fusion/round-{number}"
        trained = [f"{folder}/{name} < {start}" for name in VIDEO]
        models = f"{folder}/{VIDEO[0]}/best.pt + {folder}/{VIDEO[1]}/best_ema.pt"
        return [*trained, *(f"{folder}/{name}.pt < {models} as {i}" for i, name in enumerate(VIDEO))]

    assert steps(calls, out) == round_of(1, inputs["CHECKPOINT"])
    (out / "cold_fusion" / "round-1" / f"{VIDEO[1]}.pt").rename(tmp_path / "aside")  # as if stopped before the round's last file
    again = commands(FOLDER / "cold_fusion.sh", **inputs, ROUNDS=3)
    second, third = (round_of(number, f"cold_fusion/round-{number - 1}/{VIDEO[1]}.pt") for number in (2, 3))
    assert steps(again, out) == [*round_of(1, inputs["CHECKPOINT"]), *second, *third]
    more = commands(FOLDER / "cold_fusion.sh", **inputs, ROUNDS=4)
    assert steps(more, out) == round_of(4, f"cold_fusion/round-3/{VIDEO[1]}.pt")
    kept = sorted(str(path.relative_to(out / "cold_fusion")) for path in (out / "cold_fusion").rglob("*.pt"))
    assert kept == [f"round-{number}/{name}.pt" for number in range(1, 5) for name in VIDEO]


def test_rewarded_soups_reward_three_sizes(commands, inputs):  # noqa: F811
    out = inputs["OUT"]
    calls = commands(FOLDER / "rewarded_soups.sh", **inputs, TASK="refcoco", MERGE="--coefficients 0.2,0.3,0.5")
    sizes = ("small", "medium", "large")
    assert steps(calls, out) == [
        *(f"{size} < {inputs['CHECKPOINT']}" for size in sizes),
        f"soup.pt < {' + '.join(f'{size}/best.pt' for size in sizes)} as 0",
    ]
    rewards = ("--reward-area small", "--reward-area medium", "--min-area-size 100000")
    assert all(reward in " ".join(arguments) for reward, (_, arguments) in zip(rewards, calls, strict=False))
    assert calls[-1][1][-2:] == ["--coefficients", "0.2,0.3,0.5"]


@pytest.mark.parametrize("script", RECIPES, ids=lambda path: path.name)
@pytest.mark.parametrize("variable", ["DATA", "CHECKPOINT", "OUT"])
def test_unset_variable_is_one_line(script, variable, inputs, tmp_path):  # noqa: F811
    tables(inputs["DATA"], IMAGE)
    del inputs[variable]
    result = bash(script, cwd=tmp_path, **inputs)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"{variable} is not set: it names ")


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("vanilla", {"TASKS": "vqa"}, "TASKS=vqa: expected 2 tasks or more, got 1"),
        ("vanilla", {"TASKS": "vqa easy_vqa"}, "unknown task easy_vqa: there are audio_caption_audiocaps "),
        ("fusing", {"TARGETS": "scst"}, "unknown task scst: there are audio_caption_audiocaps "),
        ("ratatouille", {"TASKS": "vqa okvqa"}, "okvqa: neither valid.tsv nor valid.jsonl is there; it names the tables of okvqa"),
        ("cold_fusion", {"ROUNDS": "0"}, "ROUNDS=0: must be a whole number from 1 on"),
        ("rewarded_soups", {"TASK": "caption_coco"}, "TASK=caption_coco: there are refcoco, refcocoplus and refcocog"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(script, variables, message, inputs, tmp_path):  # noqa: F811
    tables(inputs["DATA"], IMAGE)
    result = bash(FOLDER / f"{script}.sh", cwd=tmp_path, **inputs, **variables)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr and not list(inputs["OUT"].rglob("*"))


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("vanilla", {"MERGE": "--coefficients 0.2,0.8"}, "must be 4 numbers, one per model, got 2"),
        ("wise_ft", {"SHARE": "half"}, "argument --lambda: invalid float value: 'half'"),
    ],
)
def test_how_models_are_merged_is_checked_before_they_are_trained(script, variables, message, inputs, tmp_path):  # noqa: F811
    tables(inputs["DATA"], IMAGE)
    given = {**inputs, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": ROOT, **variables}
    result = bash(FOLDER / f"{script}.sh", cwd=tmp_path, **given)
    assert result.returncode and message in result.stderr.splitlines()[-1] and not inputs["OUT"].exists(), result.stderr


def run(calls, out: pathlib.Path) -> None:
    """Run what a script's commands were, in this process; the files that noting them left in ``out`` are removed before."""
    for path in out.rglob("*.pt"):
        if not path.stat().st_size:
            path.unlink()
    for command, arguments in calls:
        try:
            assert main(arguments if command == "unival" else [command, *arguments]) == 0
        finally:
            runs.forget_run()


@pytest.fixture
def real(tmp_path):
    """The variables of a script, with tables and a model that can be trained."""
    data, start = tables(tmp_path / "tables", ("caption_coco", "vqa")), tmp_path / "start.pt"
    tiny.write_table(tmp_path, rows=3)
    media = [base64.urlsafe_b64encode(path.read_bytes()).decode() for path in sorted((tmp_path / "images").iterdir())]
    for task, name in (("caption", "caption_coco"), ("vqa", "vqa")):
        (data / name / "answers.txt").write_text("red\nblue\na square\n")
        for split in ("train", "valid"):
            (data / name / f"{split}.tsv").write_text("".join("\t".join(cells(task, i, image)) + "\n" for i, image in enumerate(media)))
    torch.save(own_container(tmp_path / "vocabulary"), start)
    return {"DATA": data, "VOCAB": tmp_path / "vocabulary", "CHECKPOINT": start, "OUT": tmp_path / "out", "GPUS": 0}


def weights(path: pathlib.Path) -> dict[str, torch.Tensor]:
    return {key: value.double() for key, value in read(path)["model"].items() if value.is_floating_point()}


def test_ratatouille_runs_to_its_end_and_again(commands, real, capsys):
    """The average is that of what was trained, with its task's question; started again nothing is trained and all stays as it is."""
    real.update(TASKS="caption_coco vqa", TARGETS="vqa")
    out, small = real["OUT"], [*SMALL, "--modalities", "image", "--image-backbone-stages", "4", *SIZES]
    run(commands(FOLDER / "ratatouille.sh", *small, **real), out)
    average, trained = (weights(out / "ratatouille" / name) for name in ("vqa.pt", "vqa/caption_coco/checkpoint_best_ema.pt"))
    assert average.keys() == trained.keys() and all(torch.allclose(value, trained[key]) for key, value in average.items())
    auxiliary = weights(out / "finetuned" / "caption_coco" / "checkpoint_best.pt")
    assert any(not torch.equal(value, auxiliary[key]) for key, value in average.items())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint*.pt")}
    capsys.readouterr()
    run(commands(FOLDER / "ratatouille.sh", *small, **real), out)
    assert capsys.readouterr().out.count("nothing is left to do") == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    asked = read(out / "ratatouille" / "vqa.pt")["task_state"]
    assert "[TEXT:question" in asked["instruction"] and set(asked["closed_set"]) == {"red", "blue", "a square"}


def test_the_example_runs_to_its_end(commands, tmp_path, capsys):  # noqa: F811
    """Each model starts from what the script says; both curves are of two tasks, in one figure."""
    out = tmp_path / "made"
    calls = commands(FOLDER / "example.sh", "--smoke", OUT=out, WORKERS=0, GPUS=0)
    trained = [(arguments[0], arguments[arguments.index("--save-dir") + 1], arguments) for name, arguments in calls if name == "train"]
    starts = {}
    for _, folder, arguments in trained:
        start = arguments[arguments.index("--finetune-from-model") + 1] if "--finetune-from-model" in arguments else None
        starts[pathlib.Path(folder).name] = start and str(pathlib.Path(start).relative_to(out))
    assert starts == {
        "pretrained": None,
        "caption": "pretrained/checkpoint_last.pt",
        "vqa": "pretrained/checkpoint_last.pt",
        "vqa-caption": "vqa/checkpoint_best.pt",
        "caption-vqa": "caption/checkpoint_best.pt",
    }
    run(calls, out)
    ends = [read(out / name / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] for name in starts]
    assert ends == [2] * 5
    said = capsys.readouterr().out
    assert "vanilla:" in said and "ratatouille:" in said
    for name in ("vanilla", "ratatouille"):
        results = [json.loads(line) for line in (out / name / "results.jsonl").read_text().splitlines()]
        assert len(results) >= 2 and (out / name / "curves.png").is_file()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Captioning and questions: vanilla against Ratatouille" in page
    assert (out / "curves.png").is_file()
