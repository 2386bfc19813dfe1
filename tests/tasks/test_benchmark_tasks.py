"""The presets of the benchmarks: trained, validated and asked on a few rows, through the commands and the Python API."""

import json

import pytest

from tests import runs, tiny
from unival.cli import main
from unival.hub import from_checkpoint
from unival.metrics.score import read_generated

COLUMNS = {"unival_vqa": "answer", "unival_grounding": "box", "unival_entailment": "label"}
ALSO = {"unival_vqa": ",accuracy"}  # every form of a cell is read by both
ANSWERS = ["red", "blue square", "green"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One table for all of them."""
    folder = tmp_path_factory.mktemp("data")
    rows = [json.loads(line) for line in tiny.write_table(folder, 5).read_text().splitlines()]
    for i, row in enumerate(rows):
        row["question"] = f"What-is in / image {i}"
        row["answer"] = [f"0.3|!+red&&0.9|!+{ANSWERS[i % 3]}", [ANSWERS[i % 3]] * 4, {ANSWERS[i % 3]: 0.6}][i % 3]
        row |= {"text": f"the <person> in-front {i}", "box": [1, 2, 20.5 + i, 30]}
        row |= {"hypothesis": "A man/woman.", "premise": "it is", "label": ["entailment", "neutral", "contradiction"][i % 3]}
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
    scored = ["score", str(written), "--table", str(data / "valid.jsonl"), "--metrics", f"{metric}{ALSO.get(task, '')}"]
    assert main([*scored, "--columns", COLUMNS[task], "--json", str(out / "scores.json")]) == 0
    assert json.loads((out / "scores.json").read_text())[metric] == pytest.approx(float(last[f"valid_{metric}"]), abs=1e-4)
    return from_checkpoint(checkpoint), {row: text for row, (text, _) in read_generated(written).items()}


def test_vqa(data, tmp_path):
    model, said = trained(data, tmp_path, "unival_vqa", "vqa_score", "--closed-set", str(data / "answers.txt"))
    assert set(said.values()) <= set(ANSWERS)
    assert all(output.score <= 0 for output in asked(model, data, "question", said))


def asked(model, data, column, said):
    """What the Python API gives for the rows of the table: the texts that fairseq-generate wrote."""
    table = [json.loads(line) for line in (data / "valid.jsonl").read_text().splitlines()]
    outputs = model.run(model.task.instruction_text, [{"image": str(data / row["image"]), column: row[column]} for row in table])
    assert [output.text for output in outputs] == [said[row] for row in range(5)]
    return outputs


def test_grounding(data, tmp_path, capsys):
    model, said = trained(data, tmp_path, "unival_grounding", "box_accuracy")
    for output in asked(model, data, "text", said):
        assert len(output.tokens) == 4 and len(output.box) == 4 and 0 <= min(output.box) <= max(output.box) <= 48
    row = json.dumps({"image": str(data / "images/train.jsonl-0.png"), "text": "it"})
    capsys.readouterr()
    assert main(["run", "--path", str(tmp_path / "checkpoint_last.pt"), "--row", row, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["box"]) == 4


def test_entailment(data, tmp_path):
    model, said = trained(data, tmp_path, "unival_entailment", "accuracy")
    assert set(said.values()) <= {"yes", "no", "maybe"} and model.task.answers == ["yes", "no", "maybe"]
    assert [len(output.alternatives) for output in asked(model, data, "hypothesis", said)] == [0] * 5
