"""A split is what it is used for: its name says nothing."""

import pytest
import torch
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf

from tests import tiny
from tests.tasks.test_task import config, model_config
from unival.generation.outputs import Output
from unival.metrics.score import evaluate
from unival.vocab import Vocabulary

CaptionTask = TASK_REGISTRY["unival_caption"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with four tables of unlike captions, and a vocabulary."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(["train", "train_small", "valid", "valid_hard"]):
        tiny.write_table(folder, rows=5, name=f"{name}.jsonl", seed=seed)
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


def training(data, **options):
    """A task as fairseq-train has it when it loads tables."""
    task = CaptionTask(config(data=str(data), patch_image_size=32, **options), Vocabulary.load(data / "vocab", 0, 0))
    task.build_model(model_config())
    return task


@pytest.mark.parametrize("name", ["train", "train_small", "valid"])
def test_the_split_to_train_on_draws_whatever_its_name(data, name):
    task = training(data, train_subset=name)
    task.load_dataset(name, combine=True, epoch=1, data_selector=None, tpu=False)
    dataset = task.datasets[name]
    assert dataset.is_train and sorted(dataset.ordered_indices()) == list(range(5))
    assert list(dataset.ordered_indices()) != list(range(5))
    model = task.build_model(model_config()).eval()
    batch = dataset.collater([dataset[0], dataset[1]])
    criterion = lambda model, sample: (model(**sample["net_input"])[0].sum(), 1, {"loss": 1.0, "sample_size": 1})  # noqa: E731
    optimizer = type("Optimizer", (), {"backward": lambda self, loss: loss.backward(), "params": [*model.parameters()]})()
    assert task.train_step(batch, model, criterion, optimizer, 0)[2]["num_skipped"] == 0
    others = {"train", "train_small", "valid"} - {name}
    for other in others:
        task.load_dataset(other, combine=False, epoch=1)
        assert not task.datasets[other].is_train, other


@pytest.mark.parametrize("name", ["train", "train_small", "valid"])
@pytest.mark.parametrize("trained_on", ["train", "train_small"])
def test_a_finished_model_evaluates_any_split(data, name, trained_on):
    """fairseq-generate and -validate: in the table's order, first caption and alternative, no random frames."""
    task = CaptionTask(config(data=str(data), train_subset=trained_on), Vocabulary.load(data / "vocab", 0, 0))
    saved = OmegaConf.create({"model": training(data).build_model(model_config()).cfg, "task": task.cfg})
    task.build_model(saved.model, from_checkpoint=True)
    task.load_dataset(name, task_cfg=saved.task)
    assert not task.datasets[name].is_train and list(task.datasets[name].ordered_indices()) == list(range(5))


def test_the_first_table_is_trained_on_whatever_the_split_is_called(data):
    tables = f"{data / 'train_small.jsonl'},{data / 'valid.jsonl'}"
    task = training(data)
    task.cfg.data, task.cfg.train_subset = tables, "first"
    for split, stem in (("first", "train_small"), ("train", "valid"), ("second", "valid")):
        task.load_dataset(split)
        assert task.datasets[split].table.path.stem == stem


def test_every_validation_split_has_its_own_document_frequencies(data):
    """CIDEr of each is that of ``unival score``, though another was loaded after it."""
    task = training(data, valid_subset="valid,valid_hard")
    for split in ("valid", "valid_hard"):
        task.load_dataset(split, combine=False, epoch=1)
    said = "a red square left of the circle"
    task.outputs = lambda generator, models, sample: [Output(said, 0.0)] * len(sample["references"])
    model = task.build_model(model_config()).eval()
    for split in ("valid", "valid_hard"):
        dataset = task.datasets[split]
        with torch.no_grad():
            sums = task.evaluation.step(task, model, dataset.collater([dataset[i] for i in range(5)]))
        references = dict(enumerate(dataset.references()))
        expected = evaluate(dict.fromkeys(references, said), references, ["cider"])["cider"]
        assert expected > 0
        assert sums["_cider:cider_sum"] / sums["_cider:cider_count"] == pytest.approx(expected, abs=1e-12), split
