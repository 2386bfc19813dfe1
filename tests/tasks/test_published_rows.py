"""Rows of the published tables give the token ids that the original made of them (``tests/golden/rows.json``)."""

import base64
import io
import json

import pytest
import torch
from PIL import Image

from tests import golden
from tests.tasks.test_task import config
from tests.test_vocab import write_extract
from unival.tasks import UnivalTask
from unival.tasks.presets import ENTAILMENT_WITH_PREMISE, PRESETS
from unival.tasks.registration import register_preset
from unival.vocab import Vocabulary

QUESTION = 'TEXT:question,clean=question,ending="?"'
ANSWER = "[TEXT:answer,weighted,closed_set]"
OBJECTS = "object: [TEXT:objects,join=30]"
SHORT = QUESTION + ",max_length=3"
VQA = {
    "vqa_gen/src": f"[IMAGE:image] [{QUESTION}] -> [{QUESTION},no_loss] [TEXT:answer,weighted,closed_set,after_eos]",
    "vqa_gen/add_object_no_trie": f"[IMAGE:image] [{SHORT}] {OBJECTS} -> [{SHORT},no_loss] {OBJECTS[:-1]},no_loss] [TEXT:answer,weighted]",
    "vqa_gen/none": f"[IMAGE:image] [{QUESTION}] -> {ANSWER}",
    "vqa_gen/prev_output": PRESETS["unival_vqa"].instruction,
    "video_vqa_gen/prev_output": f"[IMAGE:image] [{QUESTION}] -> [{QUESTION},no_loss] {ANSWER}",
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary.load(write_extract(tmp_path_factory.mktemp("gpt2")))


def task_of(preset, vocabulary, case, **options):
    cls = register_preset(PRESETS[preset])
    assert issubclass(cls, UnivalTask)
    return cls(config(patch_image_size=32, **options), vocabulary, case["options"].get("answers"))


def stream_of(task, case, folder):
    """The rows in a table of the layout that the task reads by default: unused columns hold what the original does not read."""
    numbers = [int(number) for number in task.preset.tsv_selected.split(",")]
    lines = []
    for row in case["rows"]:
        cells = ["unused"] * (max(numbers) + 1)
        for number, cell in zip(numbers, row, strict=False):
            cells[number] = cell
        lines.append("\t".join(cells))
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = task.open_table(folder / "rows.tsv")
    assert table.columns == task.preset.tsv_columns
    return task.build_dataset(table, train=True)


def check(examples, case):
    for example, sample in zip(examples, case["samples"], strict=True):
        assert example.source.tolist() == sample["source"]
        assert example.prev_output.tolist() == sample["prev_output_tokens"]
        assert example.target.tolist() == sample["target"]
        if "decoder_prompt" in sample:
            assert example.prefix.tolist() == sample["decoder_prompt"][1:]
        if "conf" in sample:
            assert [example.conf] == sample["conf"]
            assert example.references == [f"{weight}|!+{answer}" for answer, weight in sample["ref_dict"].items()]


def allowed_of(task, batch):
    """Ids that the loss is over, by row and position of the target."""
    return [[row.nonzero().flatten().tolist() for row in rows] for rows in task.with_limits(batch)["constraint_masks"]]


@pytest.mark.parametrize("name", VQA)
def test_questions(name, vocabulary, tmp_path):
    case = golden.numbers("rows")[name]
    task = task_of("unival_vqa", vocabulary, case, instruction=VQA[name])
    stream = stream_of(task, case, tmp_path)
    examples = [stream[row][0] for row in range(len(stream))]
    check(examples, case)
    for example, sample, row in zip(examples, case["samples"], range(2), strict=True):
        if "constraint_rows" in sample:
            (found,) = allowed_of(task, stream.collater([[example]]))
            assert found == sample["constraint_rows"], row


def test_a_batch_of_questions(vocabulary, tmp_path):
    case, batch = (golden.numbers("rows")[name] for name in ("vqa_gen/prev_output", "vqa_collate"))
    task = task_of("unival_vqa", vocabulary, case)
    stream = stream_of(task, case, tmp_path)
    ours = stream.collater([stream[0], stream[1]])
    (group,) = ours["net_input"]["groups"]
    for key in ("src_tokens", "prev_output_tokens"):
        assert group[key].tolist() == batch[key]
    for key in ("target", "prefix_tokens", "conf"):
        assert ours[key].tolist() == batch[key]
    assert ours["ntokens"] == batch["ntokens"] and ours["conf"].dtype == torch.float64
    assert task.with_limits(ours)["constraint_masks"].sum(-1).tolist() == batch["constraint_true_counts"]


@pytest.mark.parametrize("has_premise", [False, True])
def test_entailment(has_premise, vocabulary, tmp_path):
    case = golden.numbers("rows")[f"snli_ve/add_caption={has_premise}"]
    task = task_of("unival_entailment", vocabulary, case, **({"instruction": ENTAILMENT_WITH_PREMISE} if has_premise else {}))
    stream = stream_of(task, case, tmp_path)
    examples = [stream[row][0] for row in range(len(stream))]
    check(examples, case)
    for example, sample in zip(examples, case["samples"], strict=True):
        assert example.references == list(sample["ref_dict"])
        assert allowed_of(task, stream.collater([[example]])) == [sample["constraint_rows"]]


def test_grounding(vocabulary, tmp_path):
    """The original's image had 8 x 6 pixels here, but its box is that of an image of 640 x 480."""
    case = golden.numbers("rows")["refcoco"]
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480)).save(buffer, format="png")
    ((number, _, *others),) = case["rows"]
    rows = [[number, base64.urlsafe_b64encode(buffer.getvalue()).decode(), *others]]
    stream = stream_of(task_of("unival_grounding", vocabulary, case), {**case, "rows": rows}, tmp_path)
    check([stream[0][0]], case)


def test_all_rows_of_the_reference_file_are_here(shared):
    whole = json.loads((shared / "reference/golden/data.json").read_text(encoding="utf-8"))
    names = {name for name in whole if name.startswith(("vqa_gen", "video_vqa_gen", "refcoco", "snli_ve", "vqa_collate"))}
    assert names == set(golden.numbers("rows")) - {"provenance"}
