"""``--task unival_pretrain``: a mixture of streams trains one model."""

import pytest

from tests import runs
from tests.tasks.pretraining import material


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    material.write_tables(folder)
    return folder


def test_a_stage_trains_on_all_of_its_streams(folder, tmp_path):
    mixture = material.write_mixture(folder)
    assert material.train(mixture, tmp_path, "--batch-size", "2", "--disable-validation", "--max-epoch", "1") == 0
    (line,) = runs.log_lines(tmp_path, "train_loss")
    assert float(line["train_loss/captions"]) > 0 and float(line["train_loss/questions"]) > 0
