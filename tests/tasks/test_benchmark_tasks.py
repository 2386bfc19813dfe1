"""The presets of the benchmarks: trained, validated and asked on a few rows, through the commands and the Python API."""

import json

import pytest

from tests import runs, tiny
from unival.cli import main
from unival.hub import from_checkpoint
from unival.metrics.score import read_generated

ANSWERS = ["red", "blue square", "green"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One table for all of them."""
    folder = tmp_path_factory.mktemp("data")
    rows = [json.loads(line) for line in tiny.write_table(folder, 5).read_text().splitlines()]
    for i, row in enumerate(rows):
        row["question"] = f"What-is in / image {i}"
        row["answer"] = [f"0.3|!+red&&0.9|!+{ANSWERS[i % 3]}", [ANSWERS[i % 3]] * 4, {ANSWERS[i % 3]: 0.6}][i % 3]
    for split in ("train", "valid"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "answers.txt").write_text("\n".join(ANSWERS))
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=20)
    return folder


def trained(data, out, task, metric, *flags):
    """Train two updates, validate and generate: the checkpoint and the texts that fairseq-generate wrote, by row."""
    own = ["--task", task, "--num-bins", "20", "--best-checkpoint-metric", metric, "--batch-size", "3", "--max-update", "2", *flags]
    assert runs.train(data, out, *own) == 0
    checkpoint = out / "checkpoint_last.pt"
    asked = ["--task", task, "--num-bins", "20", "--no-repeat-ngram-size", "0", "--max-len-b", "200", "--unnormalized"]
    written = runs.generate(data, checkpoint, out, "valid", *asked, "--scoring", "unival")
    last = runs.log_lines(out, f"valid_{metric}")[-1]
    assert f"{metric} {float(last[f'valid_{metric}']):.4f}" in written.read_text().splitlines()[-1]
    return from_checkpoint(checkpoint), {row: text for row, (text, _) in read_generated(written).items()}


def test_vqa(data, tmp_path):
    model, said = trained(data, tmp_path, "unival_vqa", "vqa_score", "--closed-set", str(data / "answers.txt"))
    assert set(said.values()) <= set(ANSWERS)
    command = ["score", str(tmp_path / "generate-valid.txt"), "--table", str(data / "valid.jsonl"), "--columns", "answer"]
    assert main([*command, "--metrics", "vqa_score,accuracy", "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    validated = float(runs.log_lines(tmp_path, "valid_vqa_score")[-1]["valid_vqa_score"])
    assert scores["vqa_score"] == pytest.approx(validated, abs=1e-3) and scores["accuracy"] > 0  # every form of a cell, read by both
    table = [json.loads(line) for line in (data / "valid.jsonl").read_text().splitlines()]
    rows = [{"image": str(data / row["image"]), "question": row["question"]} for row in table]
    outputs = model.run(model.task.instruction_text, rows)
    assert [output.text for output in outputs] == [said[row] for row in range(5)]
    assert all(output.score <= 0 for output in outputs)
