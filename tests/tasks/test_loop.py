"""Updates with skipped rows equal those of the good rows alone, whatever is missing where."""

import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass.configs import DistributedTrainingConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

import unival.tasks.user_dir  # noqa: F401  registers the task
from tests import runs, tiny
from unival.tasks.loop import look_for_unused_parts

FLAGS = ["--batch-size", "1", "--on-bad-sample", "skip", "--freeze-batchnorm", "--weight-decay", "0.1", "--clip-norm", "1"]
BAD = 3


@pytest.fixture(scope="module")
def update(tmp_path_factory):
    """Makes one update of the same new model (dropout and Adam included) from micro-batches of rows: its log, model, optimizer state."""
    data = tmp_path_factory.mktemp("data")
    tiny.write_table(data, rows=4)
    tiny.vocabulary(data / "vocab", num_codes=0, num_bins=0)
    (data / "images" / f"train.jsonl-{BAD}.png").write_bytes(b"nothing")
    more = ["--disable-validation", "--skip-checks", *FLAGS]
    args = options.parse_args_and_arch(options.get_training_parser(), runs.train_flags(data, data / "out", *more))
    cfg = convert_namespace_to_omegaconf(args)
    task = tasks.setup_task(cfg.task)
    torch.manual_seed(0)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    task.load_dataset("train")
    dataset = task.dataset("train")
    start = {key: value.clone() for key, value in model.state_dict().items()}

    def make(*batches):
        model.load_state_dict(start)
        trainer = Trainer(cfg, task, model, criterion)
        itr = trainer.get_train_iterator(epoch=1, load_dataset=False)
        itr.next_epoch_itr()
        task.begin_epoch(1, model)
        metrics.reset()
        with metrics.aggregate("train") as log:
            trainer.train_step([dataset.collater([dataset[row] for row in rows]) for rows in batches])
        state = trainer.optimizer.optimizer.state_dict()["state"]
        return log.get_smoothed_values(), {key: value.clone().cpu() for key, value in model.state_dict().items()}, state, start

    yield make
    metrics.reset()


@pytest.mark.parametrize(
    ("with_bad", "good"),
    [
        ([[BAD], [0]], [[0]]),
        ([[0], [BAD]], [[0]]),
        ([[0], [BAD], [1]], [[0], [1]]),
        ([[BAD], [0], [BAD], [1], [BAD]], [[0], [1]]),
        ([[0, BAD], [1]], [[0], [1]]),
    ],
)
def test_an_update_is_that_of_the_good_rows_alone(update, with_bad, good):
    log, model, _, start = update(*with_bad)
    expected, reference, _, _ = update(*good)
    for key in ("loss", "nll_loss", "gnorm", "bsz", "wpb"):
        assert log[key] == expected[key], key
    assert log["num_skipped"] == sum(rows.count(BAD) for rows in with_bad) and expected["num_skipped"] == 0
    assert all(torch.equal(value, reference[key]) for key, value in model.items())
    assert any(not torch.equal(value, start[key]) for key, value in model.items())


def test_an_update_without_a_row_leaves_everything_alone(update):
    log, model, state, start = update([BAD], [BAD])
    assert log["num_skipped"] == 2 and log["loss"] == log["gnorm"] == log["bsz"] == 0
    assert all(torch.equal(value, start[key]) for key, value in model.items())
    assert not state


@pytest.mark.parametrize(("backend", "ranks", "expected"), [("pytorch_ddp", 2, True), ("legacy_ddp", 2, False), ("pytorch_ddp", 1, False)])
def test_torch_is_told_to_look_for_unused_parts(backend, ranks, expected, caplog):
    """Where it would wait for them; one line says so, unless it was asked for."""
    caplog.set_level("INFO")
    distribution = DistributedTrainingConfig(distributed_world_size=ranks, ddp_backend=backend)
    run = OmegaConf.create({"distributed_training": distribution, "task": {"x": 1}})
    for _ in range(2):
        look_for_unused_parts(run.task)
        assert run.distributed_training.find_unused_parameters == expected
    assert caplog.text.count("--find-unused-parameters is on") == expected
