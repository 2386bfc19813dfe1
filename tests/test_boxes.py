"""Boxes from end to end: training, validation, fairseq-generate with its score, and the Python API, all in pixels of the original."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from tests import runs, tiny
from unival.boxes import overlap, parse_numbers
from unival.cli import main
from unival.hub import from_checkpoint
from unival.metrics.score import read_generated

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
(COMMAND,) = re.findall(r"`(--instruction '[^`]*-> \[BOX:region\]'[^`]*)`", README)
FLAGS = ["--task", "unival", *shlex.split(COMMAND), "--num-bins", "20"]
INSTRUCTION = FLAGS[3]
SIZES = ((48, 36), (30, 60), (64, 64))


def write_table(folder, name, rows, seed):
    """Pictures of a bright rectangle, of several sizes, with its box; large ones, so that chance finds some."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(rows):
        width, height = SIZES[i % len(SIZES)]
        box = [int(rng.integers(0, 6)), int(rng.integers(0, 6)), width - int(rng.integers(0, 6)), height - int(rng.integers(0, 6))]
        image = Image.new("RGB", (width, height))
        image.paste((255, int(rng.integers(256)), 0), tuple(box))
        image.save(folder / f"{name}-{i}.png")
        lines.append(json.dumps({"image": f"{name}-{i}.png", "text": "a red square", "region": [box, [0, 0, width, height]]}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def test_boxes_are_trained_generated_and_scored(tmp_path, capsys):
    tiny.vocabulary(tmp_path / "vocab", num_codes=0, num_bins=0)
    write_table(tmp_path, "train", 8, 0)
    write_table(tmp_path, "valid", 6, 1)
    best = ["--best-checkpoint-metric", "box_accuracy", "--eval-box-threshold", "0.3"]
    out = tmp_path / "out"
    assert runs.train(tmp_path, out, *FLAGS, "--batch-size", "4", "--max-epoch", "1", "--seed", "7", *best) == 0
    checkpoint = out / "checkpoint_last.pt"
    (valid,) = runs.log_lines(out, "valid_box_accuracy")

    more = ["--nbest", "2", "--no-repeat-ngram-size", "0", "--max-len-b", "4", "--scoring", "unival"]
    printed = runs.generate(tmp_path, checkpoint, tmp_path / "gen", "valid", *FLAGS, *more)
    said = {row: text for row, (text, _) in read_generated(printed).items()}
    rows = [json.loads(line) for line in (tmp_path / "valid.jsonl").read_text().splitlines()]
    ious = [max(overlap(parse_numbers(said[i]), tuple(box)) for box in row["region"]) for i, row in enumerate(rows)]
    hits = [iou >= 0.3 for iou in ious]
    assert "box_accuracy" in printed.read_text().splitlines()[-1]
    assert float(valid["valid_box_accuracy"]) == pytest.approx(np.mean(hits), abs=1e-3)
    assert float(valid["valid_mean_iou"]) == pytest.approx(np.mean(ious), abs=1e-3)

    capsys.readouterr()
    columns = ["--columns", "image,region", "--metrics", "box_accuracy", "--box-threshold", "0.3", "--resamples", "0"]
    assert main(["score", str(printed), "--table", str(tmp_path / "valid.jsonl"), *columns]) == 0
    assert capsys.readouterr().out.split() == ["box_accuracy", f"{np.mean(hits):.4f}", "mean_iou", f"{np.mean(ious):.4f}"]

    no_box = runs.generate(tmp_path, checkpoint, tmp_path / "none", "valid", *FLAGS, *more, "--reject-below", "0")  # certainty is 0
    assert {text for text, _ in read_generated(no_box).values()} == {""} and no_box.read_text().count("\nD-") == 6
    assert "box_accuracy 0.0000, mean_iou 0.0000" in no_box.read_text().splitlines()[-1]
    assert main(["score", str(no_box), "--table", str(tmp_path / "valid.jsonl"), *columns]) == 0
    assert capsys.readouterr().out.split()[-4:] == ["box_accuracy", "0.0000", "mean_iou", "0.0000"]

    model = from_checkpoint(checkpoint)
    (none,) = model.run(INSTRUCTION, {**rows[0], "image": str(tmp_path / rows[0]["image"])}, beam=5, reject_below=0.0)
    assert (none.text, none.box, none.rejected) == ("", None, True)
    outputs = model.run(INSTRUCTION, [{**row, "image": str(tmp_path / row["image"])} for row in rows], beam=5, nbest=2)
    for i, output in enumerate(outputs):
        width, height = SIZES[i % len(SIZES)]
        assert output.text == said[i] and output.codes is None and len(output.tokens) == 4
        assert output.box == pytest.approx(parse_numbers(output.text), abs=0.01)
        assert all(0 <= edge <= side for edge, side in zip(output.box, (width, height, width, height), strict=True))
        bins = [token - model.task.vocabulary.bin_range[0] for token in output.tokens]
        assert output.box == pytest.approx([bin_ / 19 * side for bin_, side in zip(bins, (width, height) * 2, strict=True)])
        assert len(output.alternatives) == 1 and output.alternatives[0].box != output.box

    ask, image = "what is in [BOX:region] of [IMAGE:image]? -> [TEXT:text]", str(tmp_path / "valid-0.png")
    numbers = [1, 1, 20, 20]
    given = [numbers, np.array(numbers), torch.tensor(numbers), torch.tensor(numbers).bfloat16(), list(np.float32(numbers))]
    said = model.run(ask, [{"image": image, "region": region} for region in given], beam=1)
    capsys.readouterr()
    row = {"image": image, "text": rows[0]["text"]}
    assert main(["run", "--path", str(checkpoint), "--instruction", INSTRUCTION, "--row", json.dumps(row), "--nbest", "2", "--json"]) == 0
    found, (output,) = json.loads(capsys.readouterr().out), model.run(INSTRUCTION, row, nbest=2)
    assert found["box"] == pytest.approx(output.box) and "codes" not in found
    assert found["alternatives"][0]["box"] == pytest.approx(output.alternatives[0].box)
    assert len(said) == 5 and len({output.tokens for output in said}) == 1


def test_a_metric_of_boxes_on_texts_is_an_error(tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text('{"caption": "a dog"}\n')
    (tmp_path / "g.txt").write_text("D-0\t-1.0\ta cat\n")
    assert main(["score", str(tmp_path / "g.txt"), "--table", str(tmp_path / "t.jsonl"), "--metrics", "box_accuracy"]) != 0
    said = capsys.readouterr().err
    assert "row 0" in said and "expected a box, four numbers" in said and "--columns names" in said and said.count("\n") == 1
