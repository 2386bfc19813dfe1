"""One rule for every setting, wherever a model is trained or used: the command line before the checkpoint before the defaults."""

import logging

import pytest
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from tests import golden, runs, tiny
from tests.tasks.test_task import config, task
from unival.cli import main
from unival.errors import UserError
from unival.hub import from_checkpoint
from unival.modalities.composed import TRAINING_ONLY, MediaOptions
from unival.models.config import FOLLOWING
from unival.tasks import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.presets import CAPTION, PRESETS
from unival.tasks.resume import Settings, read_settings, resolve, settings_of, settings_of_options, settings_of_state

# setting -> what the checkpoint was trained with, what is given otherwise
TABLE = {
    "instruction": ("[TEXT:q] -> [TEXT:a,closed_set]", "say [TEXT:q] -> [TEXT:a,closed_set]"),
    "closed_set": (["red", "green"], ["red", "blue", "green"]),
    "max_src_length": (60, 50),
    "max_tgt_length": (20, 10),
    "patch_image_size": (96, 64),
    "image_fit": ("published", "seen"),
    "image_backend": ("pil", "torchvision"),
    "imagenet_mean_and_std": (True, True),
    "patch_frame_size": (64, 32),
    "num_frames": (4, 2),
    "frame_fit": ("squash", "published"),
    "video_backend": ("decord", "pyav"),
    "frame_resize": ("pil", "torch"),
    "audio_sample_rate": (16000, 32000),
    "max_audio_seconds": (3.0, 2.0),
    "audio_filling": ("pad", "repeat"),
    "max_image_size": (512, 256),
    "code_image_size": (64, 32),
}
TABLE = {name: values for name, values in TABLE.items() if name in UnivalTaskConfig.__dataclass_fields__}  # those with an option
ENTRIES = ("resume", "restore", "finetune", "validate", "generate", "commands", "hub")
SIZES = {"num_codes": 3, "num_bins": 4}
TRAIN = ["--task", "unival", *runs.MODEL, "--optimizer", "adam", "--lr", "1e-3", "--criterion", "unival_label_smoothed"]


def flags(values):
    """Options of the command line."""
    given = {f"--{name.replace('_', '-')}": value for name, value in values.items()}
    return [part for name, value in given.items() for part in ([name] if value is True else [name, str(value)])]


class Place:
    """Tables without a vocabulary beside them, and a checkpoint that was trained with everything otherwise than by default."""

    def __init__(self, folder):
        self.data, self.out, self.vocab = folder / "data", folder / "out", folder / "vocab"
        self.data.mkdir()
        for split in ("train", "valid"):
            (self.data / f"{split}.jsonl").write_text('{"q": "a square", "a": "red"}\n' * 2)
        tiny.vocabulary(self.vocab, **SIZES)
        self.answers = [folder / "trained.txt", folder / "given.txt"]
        for column, file in enumerate(self.answers):
            file.write_text("\n".join(TABLE["closed_set"][column]))
        start = [*flags(self.values(0)), *flags(SIZES), "--vocab-dir", str(self.vocab)]
        assert self.train(self.out, *start) == 0
        self.path = self.out / "checkpoint_last.pt"
        self.answers[0].unlink()  # the checkpoint holds them
        self.vocab = self.vocab.rename(folder / "moved")  # likewise

    def values(self, column):
        return {**{name: values[column] for name, values in TABLE.items()}, "closed_set": self.answers[column]}

    def train(self, out, *more):
        return runs.train(self.data, out, "--task", "unival", "--batch-size", "2", "--max-update", "1", "--disable-validation", *more)

    def task(self, entry, *given, monkeypatch):
        """The task of an entry point, with its data set as that loads it."""
        if entry == "hub":
            return from_checkpoint(self.path).task
        if entry in ("resume", "restore", "finetune"):
            start = {"resume": "--save-dir", "restore": "--restore-file", "finetune": "--finetune-from-model"}
            place = self.out if entry == "resume" else self.path
            cfg = self.config(options.get_training_parser(), *TRAIN, start[entry], place, *given)
            return tasks.setup_task(cfg.task)
        named = ["--path", self.path, *given]
        if entry == "validate":
            parsed = self.parsed(options.get_validation_parser(), "--task", "unival", *named, suppress_defaults=True)
            _, saved, task = checkpoint_utils.load_model_ensemble_and_task([str(self.path)], arg_overrides=vars(parsed))
            task.load_dataset("valid", task_cfg=saved.task)
            return task
        if entry == "commands":
            cfgs = []
            monkeypatch.setattr("fairseq_cli.generate.main", cfgs.append)
            assert main(["generate", str(self.data), *runs.CPU, "--batch-size", "2", "--gen-subset", "valid", *map(str, named)]) == 0
            (cfg,) = cfgs
        else:
            cfg = self.config(options.get_generation_parser(), "--task", "unival", "--gen-subset", "valid", *named)
        task = tasks.setup_task(cfg.task)
        _, saved = checkpoint_utils.load_model_ensemble([str(self.path)], task=task)
        task.load_dataset("valid", task_cfg=saved.task)
        return task

    def parsed(self, parser, *arguments, **how):
        return options.parse_args_and_arch(parser, [str(self.data), *runs.CPU, *map(str, arguments)], **how)

    def config(self, parser, *arguments):
        return convert_namespace_to_omegaconf(self.parsed(parser, "--batch-size", "2", *arguments))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("resume"))


def decided(task):
    media = {name: value for name, value in vars(task.media).items() if name not in TRAINING_ONLY}
    found = {"instruction": task.instruction_text, "closed_set": task.answers, **media}
    return {name: value for name, value in found.items() if name in TABLE}


def test_the_table_has_every_setting():
    assert TABLE.keys() == Settings(media=vars(MediaOptions())).flat().keys() & UnivalTaskConfig.__dataclass_fields__.keys()


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_point_takes_over_what_the_checkpoint_was_trained_with(place, monkeypatch, caplog, entry):
    task = place.task(entry, monkeypatch=monkeypatch)
    assert decided(task) == {name: values[0] for name, values in TABLE.items()}
    assert {name: getattr(task.vocabulary, name) for name in SIZES} == SIZES and not caplog.records
    kept = torch.load(place.path, weights_only=True)["task_state"]
    assert task.state_dict() == kept  # and hands it on


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry != "hub"])
def test_every_entry_point_prefers_what_is_given_and_says_so(place, monkeypatch, caplog, entry):
    task = place.task(entry, *flags(place.values(1)), "--vocab-dir", place.vocab, monkeypatch=monkeypatch)
    assert decided(task) == {name: values[1] for name, values in TABLE.items()}
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    differ = {name for name, (trained, given) in TABLE.items() if trained != given}
    if entry in ("resume", "restore", "finetune"):
        differ.remove("instruction")  # what is trained now may be another task
    assert {line.split()[0].strip(":") for line in said if line.startswith("--")} == {f"--{name.replace('_', '-')}" for name in differ}
    assert len([line for line in said if line.startswith("--")]) == len(differ)


@pytest.mark.parametrize("entry", ENTRIES)
def test_another_vocabulary_is_refused_everywhere(place, monkeypatch, tmp_path, entry):
    tiny.train_vocabulary([" something else"], 260, tmp_path)
    with pytest.raises(UserError, match="another vocabulary"):
        if entry == "hub":
            from_checkpoint(place.path, vocab_dir=tmp_path)
        else:
            place.task(entry, "--vocab-dir", tmp_path, monkeypatch=monkeypatch)


def test_other_numbers_of_codes_and_bins_are_another_vocabulary(place, monkeypatch):
    assert from_checkpoint(place.path, vocab_dir=place.vocab).task.vocabulary.num_codes == SIZES["num_codes"]  # the checkpoint's
    with pytest.raises(UserError, match="another vocabulary"):
        place.task("generate", "--num-codes", "5", monkeypatch=monkeypatch)


def test_nothing_but_data_and_checkpoint_is_needed(place, tmp_path, capfd):
    """Neither task nor vocabulary; training goes on from a checkpoint's own vocabulary, and hands it on."""
    out = tmp_path / "out"
    assert place.train(out, "--finetune-from-model", str(place.path), *flags(SIZES)) == 0
    named = [str(place.data), *runs.CPU, "--batch-size", "2", "--path", str(out / "checkpoint_last.pt")]
    assert main(["generate", *named, "--gen-subset", "valid", "--max-len-b", "4"]) == 0
    said = [line.split("\t")[2] for line in capfd.readouterr().out.splitlines() if line.startswith("D-")]
    assert len(said) == 2 and set(said) <= set(TABLE["closed_set"][0])
    assert main(["validate", *named]) == 0
    assert "valid: loss" in capfd.readouterr().out
    outputs = from_checkpoint(out / "checkpoint_last.pt").run(TABLE["instruction"][0], [{"q": "a square"}] * 2)
    assert [output.text for output in outputs] == said
    assert main(["generate", str(place.data), "--batch-size", "2", "--path", str(tmp_path / "none.pt")]) == 1
    assert "none.pt: no such checkpoint" in capfd.readouterr().err


def test_a_checkpoint_is_read_once(place, monkeypatch):
    from unival.tasks import resume

    paths = []
    monkeypatch.setattr(resume, "read_for_fairseq", lambda path, read=resume.read_for_fairseq: paths.append(path) or read(path))
    resume._read_settings.cache_clear()
    place.task("commands", monkeypatch=monkeypatch)
    assert paths == [place.path]
    assert read_settings(place.path).settings.task == "unival" and len(paths) == 1


# The parts of the rule --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def test_where_nothing_is_known_the_defaults_hold(vocab):
    assert task(vocab).instruction_text == CAPTION and task(vocab).media == MediaOptions()
    assert task(vocab, UnivalTask).instruction_text == ""


def test_a_switch_that_was_trained_without_is_refused():
    given, trained = ({"imagenet_mean_and_std": value} for value in (True, False))
    with pytest.raises(UserError, match="trained without --imagenet-mean-and-std"):
        resolve(Settings(media=given), Settings(media=trained), Settings())
    assert resolve(Settings(), Settings(media=given), Settings(media=trained)) == (Settings(media=given), [])


def test_the_instruction_of_a_checkpoint_is_known_however_training_got_it(vocab):
    """From the command line, from the task, from the checkpoint that it started from, or from a published task's name."""
    by_task = config()
    by_task._name = "unival_caption"
    assert settings_of_options(by_task).instruction == CAPTION
    assert settings_of_options({"_name": "unival", "instruction": "x"}).instruction == "x"
    assert settings_of_options({"_name": "unival"}).instruction is None
    taken_over = settings_of_state({"instruction": "[AUDIO:a] what? -> [TEXT:b]"}).over(settings_of_options(by_task))
    assert (taken_over.instruction, taken_over.task) == ("[AUDIO:a] what? -> [TEXT:b]", "unival_caption")
    for name, source in (("video_caption", "[VIDEO:video]"), ("audio_caption", "[AUDIO:audio]"), ("caption", "[IMAGE:image]")):
        published = settings_of_options(OmegaConf.create({"_name": name, "code_dict_size": 8192, "num_bins": 1000, "num_frames": 16}))
        medium = "image" if name == "caption" else "video"
        assert published.instruction == f"{source} what does the {medium} describe? -> [TEXT:caption,no_punctuation,max_length=20]"
        media = published.media
        assert (media["num_frames"], media["frame_fit"], media["image_fit"]) == (16, "published", "published")
        assert (published.num_codes, published.num_bins) == (8192, 1000)


@pytest.mark.parametrize("entry", ["resume", "finetune"])
def test_a_task_of_its_own_is_not_changed_by_what_it_starts_from(place, monkeypatch, entry):
    own = place.task(entry, "--task", "unival_caption", monkeypatch=monkeypatch)
    assert own.instruction_text == PRESETS["unival_caption"].instruction and own.media.patch_image_size == 96


def test_checkpoints_from_before_image_fit_keep_reading_images_as_they_were_trained(vocab):
    state = task(vocab).state_dict()
    assert state["media"]["image_fit"] == "seen"
    older = {**state, "media": {name: value for name, value in state["media"].items() if name != "image_fit"}}
    kept, loaded, changed, oldest = task(vocab), task(vocab), task(vocab, image_fit="seen"), task(vocab)
    kept.load_state_dict(state)
    loaded.load_state_dict(older)
    changed.load_state_dict(older)
    options = OmegaConf.to_container(oldest.cfg)
    oldest.learn(settings_of_options({name: value for name, value in options.items() if name != "image_fit"}))  # its task had no state
    found = [one.media.image_fit for one in (kept, loaded, changed, oldest)]
    assert found == ["seen", "published", "seen", "published"]


def test_checkpoints_from_before_it_was_kept_say_in_their_options_how_texts_were_cut():
    task = {"_name": "unival", "max_src_length": 80, "max_tgt_length": 20, "num_frames": None}
    media = settings_of({"cfg": {"task": task}, "task_state": {"media": {"num_frames": 4}}}).media
    assert [media[name] for name in ("max_src_length", "max_tgt_length", "num_frames")] == [80, 20, 4]
    assert settings_of({"cfg": golden.published_cfg()}).media["max_src_length"] == 128
    state = {"media": {"max_tgt_length": 7}}  # a run that took it over
    assert settings_of({"cfg": {"task": {"_name": "unival", "max_tgt_length": None}}, "task_state": state}).media["max_tgt_length"] == 7


def test_what_the_model_depends_on_is_as_its_options_say_where_the_tasks_are_older():
    values = {"audio_sample_rate": 16000, "code_image_size": 64, "imagenet_mean_and_std": True}
    assert values.keys() == set(FOLLOWING)
    older = {"task": {"_name": "unival", "num_frames": 2}, "model": {"_name": "unival", **values}}
    for state in ({}, {"media": {"num_frames": 2}}):
        media = MediaOptions(num_frames=2, image_fit="published", image_backend="pil", frame_resize="pil", **values)
        assert settings_of({"cfg": older, "task_state": state}).media == vars(media)
    assert settings_of({"cfg": older, "task_state": {"media": {"code_image_size": 32}}}).media["code_image_size"] == 32
    published = golden.published_cfg()
    published["model"].code_image_size, published["model"].sample_rate = 64, 16000
    del published["task"]["sample_rate"]
    media = settings_of({"cfg": published}).media
    assert (media["code_image_size"], media["audio_sample_rate"]) == (64, 16000)


def test_another_vocabulary_is_refused_by_a_task_that_exists_already(vocab, tmp_path):
    other = tiny.vocabulary(tmp_path, num_codes=3)
    with pytest.raises(UserError, match="another vocabulary"):
        task(vocab).load_state_dict(task(other).state_dict())
    task(vocab).load_state_dict(task(vocab).state_dict())
