"""Nothing fails late: what is wrong is said before a run's first update, in one line; what is right leaves no trace in the run."""

import json
import logging
import math
import random
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.logging import metrics
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf

from tests import runs, tiny
from tests.tasks.test_task import model_config
from tests.test_training import assert_equal
from unival.criterions.label_smoothed import LabelSmoothedConfig
from unival.data.stream import Stream
from unival.errors import UserError
from unival.hub import from_checkpoint
from unival.instructions import parse
from unival.metrics import METRICS
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.tasks import checks, disk
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.trial import untouched

CaptionTask = TASK_REGISTRY["unival_caption"]

MAXIMIZE = {"checkpoint.maximize_best_checkpoint_metric": True}
ALTERNATIVES = "[IMAGE:image] what? -> [TEXT:caption] ||| [IMAGE:picture] what? -> [TEXT:caption]"

COUNTS = {
    **dict.fromkeys(("batch_size", "batch_size_valid", "validate_interval"), "dataset"),
    "log_interval": "common",
    "save_interval": "checkpoint",
}
PLACED = {"dataset.train_subset": "placed", "dataset.valid_subset": "displaced"}
CLOSED = "[IMAGE:image] what? -> [TEXT:caption,closed_set]"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tables that are whole, one without captions, one whose first row's image is broken, and one whose images are all broken."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(["train", "valid", "other", "broken", "ruins"]):
        tiny.write_table(folder, rows=3, name=f"{name}.jsonl", seed=seed)
    (folder / "mute.jsonl").write_text(json.dumps({"image": "images/valid.jsonl-0.png"}) + "\n")
    whole = (folder / "valid.jsonl").read_text()
    (folder / "absent.jsonl").write_text(whole.replace("valid.jsonl-2.png", "nowhere.png"))
    (folder / "number.jsonl").write_text(whole + '{"image": "images/valid.jsonl-0.png", "caption": 3}\n')
    (folder / "answers.txt").write_text("yes\nno\n")
    for name, last in (("placed", 40), ("displaced", 60)):  # images of 48 x 40
        rows = [{**json.loads(line), "box": [0, 0, last if i == 2 else 9, 9]} for i, line in enumerate(whole.splitlines())]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "images" / "broken.jsonl-0.png").write_bytes(b"nothing")
    for image in (folder / "images").glob("ruins*"):
        image.write_bytes(b"nothing")
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


def run_config(data, save_dir, **options):
    """fairseq's options of a run: names with a dot are fairseq's own, the others the task's."""
    cfg = OmegaConf.structured(FairseqConfig())
    task = {name: value for name, value in options.items() if "." not in name}
    cfg.task = OmegaConf.structured(UnivalTaskConfig(**{"data": str(data), "num_codes": 0, "num_bins": 0, "patch_image_size": 32, **task}))
    given = {name: value for name, value in options.items() if "." in name}
    start = {"checkpoint.save_dir": str(save_dir), "dataset.batch_size": 2, "optimization.max_update": 9}
    for name, value in {**start, **given}.items():
        OmegaConf.update(cfg, name, value)
    return cfg


def begin(data, save_dir, criterion=None, **options):
    """What fairseq-train calls before its first update, in its order; returns the task, the model and the criterion."""
    cfg = run_config(data, save_dir, **options)
    task = CaptionTask.setup_task(cfg.task)
    model = task.build_model(model_config())
    built = task.build_criterion(criterion_config(**(criterion or {})))
    for split in [] if cfg.dataset.disable_validation else cfg.dataset.valid_subset.split(","):
        task.load_dataset(split, combine=False, epoch=1)
    task.load_dataset(cfg.dataset.train_subset, epoch=1, combine=True, data_selector=None, tpu=False)
    with metrics.aggregate("train"):
        task.begin_epoch(1, model)
    return task, model, built


def criterion_config(**options):
    cfg = OmegaConf.structured(LabelSmoothedConfig(**{"sentence_avg": False, **options}))
    cfg._name = "unival_label_smoothed"
    return cfg


WRONG = {
    "metric of no evaluation": (
        {"checkpoint.best_checkpoint_metric": "cider", "eval_metrics": "exact_match", **MAXIMIZE},
        "add cider to --eval-metrics",
    ),
    "mistyped metric": ({"checkpoint.best_checkpoint_metric": "lss"}, "did you mean 'loss'"),
    "mistyped metric that is not computed": (
        {"checkpoint.best_checkpoint_metric": "exact_mtach", **MAXIMIZE},
        "did you mean 'exact_match'. Then add exact_match to --eval-metrics, or choose from",
    ),
    "metric's family": ({"checkpoint.best_checkpoint_metric": "bleu", **MAXIMIZE}, "bleu1, bleu2, bleu3, bleu4"),
    "accuracy that is not counted": ({"checkpoint.best_checkpoint_metric": "accuracy", **MAXIMIZE}, "--report-accuracy"),
    "statistic of a metric": ({"checkpoint.best_checkpoint_metric": "_cider:cider_sum"}, "is not computed"),
    "lowest score": ({"checkpoint.best_checkpoint_metric": "cider"}, "add --maximize-best-checkpoint-metric"),
    "highest loss": (MAXIMIZE, "leave out --maximize-best-checkpoint-metric"),
    "unknown option of generation": ({"eval_args": '{"beem": 2}'}, "did you mean 'beam'"),
    "text for a number": ({"eval_args": '{"beam": "2"}'}, "--eval-args .*beam"),
    "number for a switch": ({"eval_args": '{"sampling": 1}'}, "--eval-args .*sampling"),
    "out of range": ({"eval_args": '{"beam": 0}'}, "--eval-args .*--beam 0"),
    "more answers than beams": ({"eval_args": '{"nbest": 9}'}, "--nbest 9"),
    "contradiction": ({"eval_args": '{"sampling_topk": 3}'}, "needs --sampling"),
    "no JSON": ({"eval_args": "beam=5"}, "is not JSON"),
    "no object": ({"eval_args": "[5]"}, "expected an object"),
    "eval args without a metric": ({"eval_args": '{"beem": 2}', "eval_metrics": ""}, "did you mean 'beam'"),
    "unknown metric": ({"eval_metrics": "cidre"}, "unknown metric 'cidre', did you mean 'cider'"),
    **{f"no {name}": ({f"{group}.{name}": 0}, f"--{name.replace('_', '-')} 0: must be at least 1") for name, group in COUNTS.items()},
    "no batch for an update": ({"optimization.update_freq": [2, 0]}, "--update-freq 0: must be at least 1"),
    **{
        f"negative {name}": ({f"optimization.{name}": -8}, f"--{name.replace('_', '-')} -8: must be at least 1, or 0")
        for name in ("max_update", "max_epoch")
    },
    **{
        f"{name} of nothing": ({name: 0}, f"--{name.replace('_', '-')} is 0")
        for name in ("patch_image_size", "patch_frame_size", "num_frames", "audio_sample_rate", "max_audio_seconds")
    },
    "no train table": ({"dataset.train_subset": "trian"}, "split 'trian'"),
    "no valid table": ({"dataset.valid_subset": "vaild"}, "split 'vaild'"),
    "no second valid table": ({"dataset.valid_subset": "valid,test"}, "split 'test'"),
    "one table two ways": ({"dataset.valid_subset": "valid,train"}, "both name 'train'"),
    "split named twice": ({"dataset.valid_subset": "valid,valid"}, "'valid' is named twice"),
    "split without name": ({"dataset.valid_subset": "valid,"}, "an empty name"),
    "tables to be joined": ({"dataset.combine_valid_subsets": True}, "not joined"),
    "no column": ({"dataset.valid_subset": "valid,mute"}, "'caption'"),
    "alternative's column": ({"instruction": ALTERNATIVES}, "'picture'"),
    "broken row to train on": ({"dataset.train_subset": "broken"}, "broken.jsonl, row 0.*column 'image'"),
    "broken row of the second split": ({"dataset.valid_subset": "valid,broken"}, "broken.jsonl, row 0"),
    "file that a late row names": ({"dataset.valid_subset": "valid,absent"}, "absent.jsonl, row 2.*column 'image'.*nowhere.png"),
    "no text in a late row": ({"dataset.valid_subset": "valid,number"}, "number.jsonl, row 3.*column 'caption'.*got a number"),
    "nothing left to skip": ({"dataset.train_subset": "ruins", "on_bad_sample": "skip"}, "3 rows none can be read.*ruins.jsonl, row 0"),
    "skip is for training": ({"dataset.valid_subset": "broken", "on_bad_sample": "skip"}, "broken.jsonl, row 0"),
    "box outside of a late image": (
        {"instruction": "[IMAGE:image] where? -> [BOX:box]", "num_bins": 10, "eval_metrics": "box_accuracy", **PLACED},
        r"displaced.jsonl, row 2 \(line 3\), column 'box': box 0,0,60,9 is not within its image, which has 48 x 40 pixels",
    ),
    "threshold of boxes": ({"eval_box_threshold": 50.0}, "^--eval-box-threshold 50: must be an intersection over union .IoU., above 0"),
    "answer outside the closed set": (
        {"instruction": CLOSED, "closed_set": "answers.txt", "eval_args": '{"no_repeat_ngram_size": 0}'},
        "column 'caption': .* is none of the 2 candidate answers",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_before_the_first_update(data, tmp_path, name):
    options, said = WRONG[name]
    if "closed_set" in options:
        options = {**options, "closed_set": str(data / options["closed_set"])}
    with pytest.raises(UserError, match=said) as caught:
        begin(data, tmp_path, **options)
    assert len(str(caught.value).split("\n  ")[0].splitlines()) == 1  # an instruction's error shows the place below


SCHEDULES = {  # by epochs alone, without --max-update
    "polynomial_decay": ({"total_num_update": 0.0}, "may need --max-update"),
    "cosine": ({}, "Either --max_update or --lr-period-updates must be set; it may need --max-update"),
    "tri_stage": ({"phase_ratio": (0.1, 0.4, 0.5)}, "may need --max-update"),
    "triangular": ({"max_lr": 0.1}, "triangular: max_lr must be more than lr$"),
    "unival_timed": ({}, "say when the run ends"),
    "unival_polynomial": ({"warmup_ratio": 6.0}, "--warmup-ratio 6: must be"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_cannot_be_used_is_named_before_the_model_is_built(data, tmp_path, name):
    options, said = SCHEDULES[name]
    cfg = run_config(data, tmp_path, **{"optimization.max_update": 0, "optimization.max_epoch": 3, "optimization.lr": [0.1]})
    cfg.lr_scheduler = OmegaConf.structured(REGISTRIES["lr_scheduler"]["dataclass_registry"][name](**options))
    cfg.lr_scheduler._name = name
    with pytest.raises(UserError, match=said) as caught:
        CaptionTask.setup_task(cfg.task)
    assert str(caught.value).startswith("--") and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in REGISTRIES["lr_scheduler"]["dataclass_registry"] if name != "pass_through"])
def test_every_schedule_passes_and_nothing_of_its_trial_is_left(data, tmp_path, name):
    needed = {"triangular": {"max_lr": 0.2}, "tri_stage": {"phase_ratio": (0.1, 0.4, 0.5)}}
    cfg = run_config(data, tmp_path, **{"optimization.max_update": 2, "optimization.lr": [0.1]})
    cfg.lr_scheduler = OmegaConf.structured(REGISTRIES["lr_scheduler"]["dataclass_registry"][name](**needed.get(name, {})))
    cfg.lr_scheduler._name = name
    before = OmegaConf.to_container(cfg, throw_on_missing=False)
    CaptionTask.setup_task(cfg.task)
    assert OmegaConf.to_container(cfg, throw_on_missing=False) == before


def test_one_table_for_several_splits_is_refused(data, tmp_path):
    tables = f"{data / 'train.jsonl'},{data / 'valid.jsonl'}"
    options = {"vocab_dir": str(data / "vocab"), "dataset.valid_subset": "valid,test"}
    with pytest.raises(UserError, match="is one table for all of them"):
        begin(tables, tmp_path, **options)


RIGHT = {
    "defaults": {},
    "best score": {"checkpoint.best_checkpoint_metric": "rouge_l", **MAXIMIZE},
    "without validation": {"dataset.disable_validation": True, "dataset.valid_subset": "nowhere"},
    "without metrics": {"eval_metrics": "", "checkpoint.best_checkpoint_metric": "ppl"},
    "other names": {"dataset.train_subset": "other", "dataset.valid_subset": "valid,train"},
    "broken rows are skipped": {"dataset.train_subset": "broken", "on_bad_sample": "skip"},
    "sampling": {"eval_args": '{"beam": 2, "nbest": 2, "sampling": true, "sampling_topk": 3}', "eval_print_samples": 5},
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_leaves_no_trace(data, tmp_path, caplog, name):
    """Modes, buffers, random generators, meters and the counts of rows are as without the checks."""
    caplog.set_level(logging.INFO)
    torch.manual_seed(3)
    task, model, criterion = begin(data, tmp_path, **RIGHT[name], skip_checks=True)
    assert "loss" not in caplog.text.split("checked before the first update: ")[1]
    task.checks = checks.TrainingChecks(task)
    task.checks.after_criterion(criterion)
    task.cfg.skip_checks = False
    caplog.clear()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.encoder.layers[0].eval()  # as frozen parts are
    modes = [part.training for part in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with metrics.aggregate("train") as meters:
        task.begin_epoch(1, model)
    assert "checked before the first update" in caplog.text and "generated" not in caplog.text
    assert modes == [part.training for part in model.modules()] and criterion.training
    assert torch.equal(states[0], torch.get_rng_state()) and random.getstate() == states[2]
    assert np.random.get_state()[1].tolist() == states[1] and not meters.get_smoothed_values()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    train = task.datasets[task.cfg.train_subset]
    assert train.epoch == 1
    assert task.checks is None  # once per process


def test_the_references_of_validation_are_read_once(data, tmp_path, monkeypatch):
    rows, slot_references = [], Stream.slot_references

    def counted(stream, slot, record, row):
        rows.append((stream.is_train, row))
        return slot_references(stream, slot, record, row)

    monkeypatch.setattr(Stream, "slot_references", counted)
    task, _, _ = begin(data, tmp_path)
    assert len(task.datasets["valid"]) == 3 and rows.count((False, 2)) == 1  # the others are tried as well
    assert task.evaluation.fitted["valid"].keys() == task.evaluation.metrics.keys()


def test_the_trial_restores_after_an_error():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2))
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="no"), untouched(model):
        model.eval()
        torch.rand(3), random.random(), np.random.rand()
        raise ValueError("no")
    assert model[0].training and model[1].training and torch.equal(state, torch.get_rng_state())


def test_skipped_checks_find_no_broken_row(data, tmp_path):
    begin(data, tmp_path, skip_checks=True, **{"dataset.train_subset": "broken"})


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if name not in ("meteor", "spice", "spider")])
def test_every_score_of_every_metric_can_choose_the_best_checkpoint(data, tmp_path, name):
    for key in METRICS[name].keys:  # noqa: SIM118  no dict
        cfg = run_config(data, tmp_path, eval_metrics=name, **{"checkpoint.best_checkpoint_metric": key, **MAXIMIZE})
        CaptionTask.setup_task(cfg.task).build_criterion(criterion_config())


def test_two_accuracies_are_not_logged_as_one(data, tmp_path):
    with pytest.raises(UserError, match="--report-accuracy logs the accuracy of tokens as accuracy, and so does --eval-metrics accuracy"):
        begin(data, tmp_path, {"report_accuracy": True}, **MAXIMIZE, eval_metrics="accuracy")


@pytest.mark.parametrize("key", ["loss", "nll_loss", "ppl", "accuracy"])
def test_every_score_of_the_criterion_is_logged(data, tmp_path, key):
    """What is said to be logged is: the trial compares the names with those of a real validation."""
    options = MAXIMIZE if key == "accuracy" else {}
    begin(data, tmp_path, {"report_accuracy": True}, **{"checkpoint.best_checkpoint_metric": key, **options}, eval_metrics="")


@pytest.mark.parametrize(
    ("now", "is_wrong"),
    [
        ({}, True),
        ({"checkpoint.best_checkpoint_metric": "cider", **MAXIMIZE}, False),
        ({"checkpoint.best_checkpoint_metric": "bleu4", **MAXIMIZE}, True),
        ({"checkpoint.best_checkpoint_metric": "cider"}, True),
        ({"checkpoint.reset_meters": True}, False),
        ({"checkpoint.reset_optimizer": True}, False),
        ({"checkpoint.finetune_from_model": "pretrained.pt"}, False),
        ({"dataset.disable_validation": True}, False),
    ],
)
def test_a_best_score_is_compared_with_its_own_kind(data, tmp_path, now, is_wrong):
    saved = {"best_checkpoint_metric": "cider", "maximize_best_checkpoint_metric": True}
    start = {"cfg": {"checkpoint": saved}, "extra_state": {"best": 0.25}}
    cfg = run_config(data, tmp_path, **now).task
    checks.check_best_so_far(cfg, {**start, "extra_state": {}})  # without validation so far
    if is_wrong:
        with pytest.raises(UserError, match=r"by --best-checkpoint-metric cider --maximize-best-checkpoint-metric \(so far 0.25\)"):
            checks.check_best_so_far(cfg, start)
    else:
        checks.check_best_so_far(cfg, start)


def test_options_without_effect_are_named(data, tmp_path, caplog):
    begin(data, tmp_path, **{"dataset.disable_validation": True, "checkpoint.best_checkpoint_metric": "cider", "checkpoint.patience": 3})
    assert "--best-checkpoint-metric has no effect" in caplog.text and "--patience has no effect" in caplog.text


@pytest.mark.parametrize(("metric", "missing"), [("meteor", "java"), ("spice", "java")])
def test_programs_of_metrics_are_looked_for(data, tmp_path, monkeypatch, metric, missing):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="needs Java"):
        CaptionTask.setup_task(run_config(data, tmp_path, eval_metrics=metric).task)


@pytest.mark.parametrize(
    ("slot", "package", "backend"),
    [
        ("VIDEO", "av", "pyav"),
        ("AUDIO", "av", "pyav"),
        ("VIDEO", "decord", "decord"),
        ("AUDIO", "decord", "decord"),
        ("AUDIO", "soundfile", "pyav"),
        ("AUDIO", "torchaudio", "pyav"),
    ],
)
def test_packages_for_media_are_looked_for(monkeypatch, caplog, slot, package, backend):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None if name == package else name)
    instructions = parse(f"[IMAGE:image] what? -> [TEXT:caption] ||| [{slot}:media] what? -> [TEXT:caption]", MODALITIES)
    checks.check_packages(instructions, MediaOptions(video_backend=backend))
    assert caplog.text.count("is not installed") == 1 and package in caplog.text and "pip install" in caplog.text


def test_training_is_the_same_with_and_without_the_trial(data, tmp_path):
    """Every bit of two updates; and the checkpoint has the size that was foretold."""
    states = []
    for flags in ([], ["--skip-checks"]):
        file = tmp_path / str(len(flags)) / "checkpoint_last.pt"
        assert runs.train(data, file.parent, "--batch-size", "2", "--max-update", "2", *flags) == 0
        states.append(torch.load(file, weights_only=True))
    for part in ("model", "last_optimizer_state"):
        assert_equal(states[0][part], states[1][part])
    estimated = disk.checkpoint_bytes(from_checkpoint(file).model, optimizer_state=True, ema=False)
    assert estimated == pytest.approx(file.stat().st_size, rel=0.05)


# Room for checkpoints ---------------------------------------------------------------------------------------------------------

EPOCHS = {"optimization.max_epoch": 10, "optimization.max_update": 0}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {"last": 1, "best": 1, "of epochs": 3}),  # 9 updates at 3 an epoch
        ({"optimization.update_freq": [2]}, {"last": 1, "best": 1, "of epochs": 4}),  # 2 an epoch
        ({"distributed_training.distributed_world_size": 4}, {"last": 1, "best": 1, "of epochs": 9}),
        (EPOCHS, {"last": 1, "best": 1, "of epochs": 10}),
        ({**EPOCHS, "checkpoint.save_interval": 3}, {"last": 1, "best": 1, "of epochs": 3}),
        ({**EPOCHS, "checkpoint.keep_last_epochs": 2}, {"last": 1, "best": 1, "of epochs": 2}),
        ({**EPOCHS, "checkpoint.save_interval_updates": 7}, {"last": 1, "best": 1, "of epochs": 10, "of updates": 4}),
        ({**EPOCHS, "checkpoint.save_interval_updates": 7, "checkpoint.keep_interval_updates": 1, "checkpoint.no_epoch_checkpoints": True},
         {"last": 1, "best": 1, "of updates": 1}),
        ({"checkpoint.no_epoch_checkpoints": True, "checkpoint.keep_best_checkpoints": 3}, {"last": 1, "best": 1, "best by score": 3}),
        ({"dataset.disable_validation": True, "checkpoint.no_last_checkpoints": True}, {"of epochs": 3}),
        ({"optimization.max_update": 0}, {"last": 1, "best": 1, "of epochs": math.inf}),
    ],
)  # fmt: skip
def test_how_many_checkpoints_are_kept(data, tmp_path, options, kept):
    assert disk.kept_checkpoints(run_config(data, tmp_path, **options).task, rows=5) == kept


def test_room_for_checkpoints(data, tmp_path, monkeypatch, caplog):
    """Enough: nothing. Not for all: a warning with numbers. Not for two and the copy: an error. What lies there counts."""
    model = torch.nn.Linear(1000, 1000, bias=False)  # 4 MB, 12 MB with Adam's state, 16 MB with averages
    usage = namedtuple("usage", "free")
    free = 0.0
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage(free))
    cfg = run_config(data, tmp_path / "new" / "folder", **EPOCHS).task
    free = 12e6 * 13
    assert "156.0 MB free for checkpoints of about 12.0 MB" in disk.check_space(cfg, model, rows=5)
    assert not caplog.text
    free -= 1
    disk.check_space(cfg, model, rows=5)
    assert "1 last, 1 best, 10 of epochs will be kept, 144.0 MB in all" in caplog.text and "--keep-last-epochs" in caplog.text
    free = 12e6 * 3
    disk.check_space(cfg, model, rows=5)
    free -= 1
    with pytest.raises(UserError, match="36.0 MB free for checkpoints of about 12.0 MB"):
        disk.check_space(cfg, model, rows=5)
    (tmp_path / "checkpoint_last.pt").write_bytes(b"0")
    cfg = run_config(data, tmp_path, **EPOCHS).task
    disk.check_space(cfg, model, rows=5)
    for name in ("last", "best"):  # they are replaced, but only by a file that is complete
        (tmp_path / f"checkpoint_{name}.pt").write_bytes(bytes(12_000_000))
    free = 12e6
    disk.check_space(cfg, model, rows=5)
    free -= 1
    with pytest.raises(UserError, match="12.0 MB free for checkpoints of about 12.0 MB"):
        disk.check_space(cfg, model, rows=5)
    for epoch, name in enumerate(("last", "best"), start=1):  # those of epochs are not replaced
        (tmp_path / f"checkpoint_{name}.pt").rename(tmp_path / f"checkpoint{epoch}.pt")
    free = 12e6 * 2
    with pytest.raises(UserError, match="24.0 MB free for checkpoints of about 12.0 MB"):
        disk.check_space(cfg, model, rows=5)
    for name, value in (("ema.store_ema", True), ("checkpoint.no_save_optimizer_state", True)):
        free = 4e6 * 6
        cfg = run_config(data, tmp_path, **EPOCHS, **{name: value}).task
        if name == "ema.store_ema":
            with pytest.raises(UserError, match="about 16.0 MB"):
                disk.check_space(cfg, model, rows=5)
        else:
            assert "about 4.0 MB" in disk.check_space(cfg, model, rows=5)
    free = 0
    assert disk.check_space(run_config(data, tmp_path, **{"checkpoint.no_save": True}).task, model, rows=5)


# Generation -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dataset.gen_subset": "test"}, "split 'test'"),
        ({"common_eval.model_overrides": "{'patch_image_size': 64}"}, "give --patch-image-size itself"),
        ({"common_eval.model_overrides": "{'instruction': 'x'}"}, "give --instruction itself"),
        ({"common_eval.model_overrides": "{patch"}, "expected a dict"),
    ],
)
def test_generation_refuses_before_it_loads_models(data, tmp_path, options, said):
    path = {"common_eval.path": str(tmp_path / "none.pt"), "dataset.gen_subset": "valid"}
    with pytest.raises(UserError, match="none.pt: no such checkpoint"):
        CaptionTask.setup_task(run_config(data, tmp_path, **path).task)
    with pytest.raises(UserError, match=said):
        CaptionTask.setup_task(run_config(data, tmp_path, **{**path, **options}).task)
