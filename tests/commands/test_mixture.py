"""``unival mixture``: what a stage will do, and its options for ``fairseq-train``."""

import re
import shlex
import subprocess

import pytest
from fairseq import options

from tests import tiny
from tests.tasks.pretraining import material
from unival.cli import main

TINY = [f"--set={option}" for option in ("patch_image_size=32", "num_codes=0", "num_bins=0", "cpu=true", "required_batch_size_multiple=1")]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    material.write_tables(folder)
    return material.write_mixture(folder, material.CURRICULUM)


def run(capsys, *arguments):
    code = main(["mixture", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_options_are_arguments_of_training(mixture, capsys):
    code, out, _ = run(capsys, mixture, "--options", "--set", "lr=[1e-3,1e-4]", "--set", "use_dataaug=true", "--set", "adam_eps=1e-7")
    assert code == 0
    first, second = [shlex.split(line) for line in out.splitlines()]
    assert first[:6] == ["--task", "unival_pretrain", "--stage", "a", "--max-epoch", "2"]
    arguments = [str(mixture), *second, "--arch", "unival_base", "--optimizer", "adam"]
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    assert (parsed.stage, parsed.max_epoch, parsed.schedule_epochs, parsed.lr_scheduler) == ("b", 2, 5, "unival_polynomial")
    assert (parsed.lr, parsed.batch_size, parsed.maximize_best_checkpoint_metric) == ([1e-3, 1e-4], 3, True)
    assert run(capsys, mixture, "--stages")[1] == "a\nb\n"


def test_rows_of_an_update_say_how_many_batches(mixture, capsys):
    content = {**material.CURRICULUM, "stages": {"a": {"epochs": 1, "rows_per_update": 50}}}
    file = material.write_mixture(mixture.parent, content, "rows.yaml")
    for processes, batches in {1: 17, 8: 3}.items():
        assert f"--update-freq {batches}\n" in run(capsys, file, "--options", "--set", f"distributed_world_size={processes}")[1]


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--stage", "c"], "--stage c: no such stage in .*; there are a, b"),
        (["--options", "--set", "batch_sise=3"], r"stages.a.options.batch_sise: training has no such option; did you mean 'batch_size'\?"),
        (["--options", "--set", "cpu=3"], r"stages.a.options.cpu: expected true or false, got '3'"),
        (["--options", "--set", "lr=fast"], r"stages.a.options.lr: expected a value of --lr, got 'fast'"),
        (["--options", "--set", "arch=unival_bas"], r"stages.a.options.arch: no 'unival_bas'; did you mean 'unival_base'\?"),
        (["--options", "--set", "max_epoch=3"], "stages.a.options.max_epoch: the file says it already: epochs"),
        (["--set", "batch_size=four"], "stages.a.options.batch_size: expected a whole number, got 'four'"),
        (["--set", "lr"], "--set lr: must be NAME=VALUE"),
        (["--time", "--stages"], "--time goes with --show"),
    ],
)
def test_mistakes_are_one_line(mixture, capsys, changes, message):
    code, out, err = run(capsys, mixture, *changes)
    assert code == 1 and not out and err.count("\n") == 1 and re.search(message, err), err


def test_show(mixture, capsys):
    code, out, err = run(capsys, mixture, *TINY)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "stage a: 6 updates in epochs of 3"
    assert re.fullmatch(r"  captions +9 +1.000 +9 +2.00 +1.0 +[\d.]+ +[\d.]+", lines[3])
    second = lines[lines.index("") + 1 :]
    assert second[0] == "stage b: 8 updates in epochs of 4; the learning rate is planned over 5 epochs"
    assert [re.sub(r" +", " ", line).split()[:5] for line in second[3:6]] == [
        ["captions", "9", "0.250-0.333", "3", "0.78"],
        ["questions", "4", "0.333-0.500", "5", "2.50"],
        ["texts", "6", "0.250-0.333", "3", "1.17"],
    ]


def test_tables_of_a_stream_lie_in_different_folders(mixture, tmp_path, capsys):
    """Each table's images are relative to its own folder, or to the stream's media root; an empty table is named."""
    tiny.write_table(tmp_path / "here", 3)
    there = tiny.write_table(tmp_path / "there", 2, seed=1)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "rooted.jsonl").write_text(there.read_text())
    streams = {
        "folders": {"table": ["here/train.jsonl", "there/train.jsonl"], "preset": "unival_caption"},
        "rooted": {"table": ["tables/rooted.jsonl", "here/train.jsonl"], "media_root": "there", "preset": "unival_caption"},
    }
    common = {"batch_size": 2, "vocab_dir": str(mixture.parent / "vocab")}
    content = {"streams": streams, "options": common, "stages": {"all": {"epochs": 1}}}
    code, out, err = run(capsys, material.write_mixture(tmp_path, content), *TINY)
    assert code == 0, err
    assert re.search(r"folders +5 ", out) and re.search(r"rooted +5 ", out)
    (tmp_path / "tables" / "rooted.jsonl").write_text("")
    code, out, err = run(capsys, tmp_path / "mixture.yaml", *TINY)
    assert code == 1 and re.search(r"mixture.yaml: streams.rooted.table: .*rooted.jsonl has no rows$", err.strip()), err


# What training would refuse at its start, and what the file's own words for it are; the last are keys of a stage.
REFUSED = [
    ({"valid": "other.jsonl"}, {}, "streams.captions.valid: .*other.jsonl: no column 'caption'; there are image, text"),
    ({"valid": "broken.jsonl"}, {}, "streams.captions.valid: .*broken.jsonl, row 1 .line 2., character 2: not valid JSON"),
    ({"table": "broken.jsonl", "builder": "matching"}, {}, "captions.table: .*broken.jsonl, row 1 .line 2., character 2: not valid JSON"),
    ({"table": "rows.tsv", "builder": "caption"}, {}, "captions: .*rows.tsv has 3 columns without names, and image, caption are read"),
    ({"instruction": "[IMAGE:image] -> [TEXT:caption,closed_set]"}, {}, "closed_set needs candidate answers: give closed_set: FILE, one"),
    ({}, {"options": {"batch_size": 2, "vocab_dir": "nowhere"}}, "vocab_dir: nowhere: no such file or folder; looked for /.* and /"),
    ({}, {"options": {"batch_size": 2.5}, "rows_per_update": 8}, "options.batch_size: expected a whole number, got '2.5'"),
    ({}, {"options": {"batch_size": 0}, "rows_per_update": 8}, "options.batch_size: expected a whole number, at least 1, got '0'"),
    ({}, {"options": {"batch_size": 2, "distributed_world_size": "two"}, "rows_per_update": 8}, "size: expected a whole number, got 'two'"),
]


@pytest.mark.parametrize("stream, stage, message", REFUSED, ids=[message[-40:] for *_, message in REFUSED])
def test_what_training_would_refuse_is_refused(mixture, tmp_path, capsys, stream, stage, message):
    folder = mixture.parent
    (folder / "other.jsonl").write_text('{"image": "images/valid.jsonl-0.png", "text": "a"}\n')
    first = (folder / "captions.jsonl").read_text().splitlines()[0]
    (folder / "broken.jsonl").write_text(f"{first}\n{{broken\n")
    (folder / "rows.tsv").write_text("0\timages/valid.jsonl-0.png\ta cat\n")
    ways = {} if {"builder", "instruction"} & set(stream) else {"preset": "unival_caption"}
    whole = {"table": "captions.jsonl", "valid": "valid.jsonl", **ways, **stream}
    stages = {"a": {"epochs": 1, "options": {"batch_size": 2}, **stage}}
    file = material.write_mixture(folder, {"streams": {"captions": whole}, "stages": stages}, "refused.yaml")
    code, out, err = run(capsys, file, *TINY[:-2], *TINY[-1:], *([] if "distributed" in str(stage) else ["--set=cpu=true"]))
    assert code == 1 and not out and err.count("\n") == 1 and re.search(f"refused.yaml: .*{message}", err), err


def test_columns_are_named_as_on_the_command_line_or_in_a_list(mixture, tmp_path, monkeypatch, capsys):
    """Numbers, too; the vocabulary is looked for beside the file, then in the working directory; rows of an update are rounded up."""
    folder = mixture.parent
    (folder / "wide.tsv").write_text("0\t\tthere\twhat?\n1\t\there\twhy?\n")
    said = []
    for columns, numbers in (("question, answer", "3,2"), (["question", "answer"], [3, 2])):
        stream = {"table": "wide.tsv", "columns": columns, "selected_cols": numbers, "instruction": "[TEXT:question] -> [TEXT:answer]"}
        for place in (folder, tmp_path):
            options = {"batch_size": 2, "vocab_dir": "vocab" if place == folder else "elsewhere"}
            stages = {"a": {"epochs": 1, "rows_per_update": 3, "options": options}}
            file = material.write_mixture(folder, {"streams": {"words": stream}, "stages": stages}, "wide.yaml")
            (tmp_path / "elsewhere").mkdir(exist_ok=True)
            for part in ("encoder.json", "vocab.bpe", "dict.txt"):
                (tmp_path / "elsewhere" / part).write_text((folder / "vocab" / part).read_text())
            monkeypatch.chdir(tmp_path)
            code, out, err = run(capsys, file, *TINY, "--set=disable_validation=true")
            assert code == 0, err
            said.append(out)
    assert len(set(said)) == 1 and "4 rows an update (1 process, 3 rounded up to whole batches)" in said[0]


def test_time_and_memory_are_of_updates_made_here(mixture, capsys, monkeypatch):
    """The updates are made in this process here, to save the start of another."""

    def inside(command, **kwargs):
        return subprocess.CompletedProcess(command, material.run([*command[4:], *material.SMALL]), "", "")

    monkeypatch.setattr("unival.commands.mixture.subprocess.run", inside)
    more = ("--set=optimizer=adam", f"--set=vocab_dir={mixture.parent / 'vocab'}")
    code, out, err = run(capsys, mixture, "--stage", "a", "--time", *TINY, *more)
    assert code == 0, err
    found = re.search(r"  time: ([\d.e-]+) s an update, .+ in all; memory [\d.]+ GB \(from 5 updates made here\)", out)
    assert found and float(found[1]) > 0, out
