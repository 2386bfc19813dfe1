"""Every recipe against the published run: each of its options is the published one, or among the differences that are explained here."""

import json
import pathlib
import re
from typing import Any

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from tests.test_run_scripts import RECIPES, ROOT, inputs, name_of, recorded  # noqa: F401  fixtures
from unival.checkpoints.published_options import task_options
from unival.tasks.presets import CAPTION, PRESETS

pytestmark = pytest.mark.filterwarnings("ignore")  # of Hydra's, about fairseq's way to call it

def recipe_name(script: pathlib.Path) -> str:
    return f"{script.parent.name}/{script.stem}" if script.parent.name in ("linear_only", "scst") else script.parent.name


PUBLISHED = json.loads((ROOT / "tests" / "golden" / "published_recipes.json").read_text(encoding="utf-8"))
PUBLISHED["nocaps"] = PUBLISHED["caption_coco"]  # trained on COCO, and evaluated as COCO is
PUBLISHED["okvqa"] = PUBLISHED["vizwiz"] = PUBLISHED["vqa"]  # our choice: nothing is published of their training
PUBLISHED["scst/refcoco"] = PUBLISHED["scst/refcocog"] = PUBLISHED["scst/refcocoplus"]
OWN = {"scst/caption_coco", "easy_vqa"}  # nothing is published of them
TRAINING = [path for path in RECIPES if path.name == "train.sh" or path.parent.name in ("linear_only", "scst")]
TRAINING = [path for path in TRAINING if recipe_name(path) not in OWN]
EVALUATION = [path for path in RECIPES if path.name == "eval.sh" and recipe_name(path) not in OWN]
TASKS = {"image": "caption", "video": "video_caption", "audio": "audio_caption"}  # the published names by medium

CRITERIONS = {
    "adjust_label_smoothed_encouraging_loss": "unival_encouraging",
    "adjust_label_smoothed_cross_entropy": "unival_label_smoothed",
    "refcoco_scst_reward_criterion": "unival_grounding_scst",
}
METRICS = {"score": "box_accuracy", "snli_score": "accuracy"}
# Options that have another name or form here: published option -> what ours must be.
OURS: dict[str, Any] = {
    "criterion": lambda value: ("criterion", CRITERIONS[value]),
    "best_checkpoint_metric": lambda value: ("best_checkpoint_metric", METRICS.get(value, value)),
    "uses_ema": lambda value: ("validate_with", "ema" if value else "model"),
    "lr_scheduler": lambda value: ("lr_scheduler", {"polynomial_decay": "unival_polynomial"}[value]),
    "freeze_encoder_embedding": lambda value: ("freeze_token_embeddings", value),
    "freeze_decoder_embedding": lambda value: ("freeze_token_embeddings", value),
    "hop_size": lambda value: ("audio_hop_size", value),
    "mel_bins": lambda value: ("audio_mel_bins", value),
}
# Published options without a counterpart in the recipes, and why they change no number.
WITHOUT = {
    "sample_patch_num": "784 patches at most: no input of these tasks has as many tokens",
    "drop_best_ratio": "has no effect in the original, whose loss ignores it; it would have one here",
    "drop_best_after": "likewise",
    "prompt_type": "part of the instruction",
    "scst_args": "length limits are those of validation",
    "acc_thresh": "box_accuracy takes 0.5 unless unival score --box-threshold says otherwise",
    "fixed_validation_seed": "validation draws nothing at random",
    "seed": "nor does evaluation",
}
# Published options of media that a recipe's task has not.
MEDIA_OPTIONS = {"patch_image_size": "image", "patch_frame_size": "video", "num_frames": "video", "hop_size": "audio", "mel_bins": "audio"}
# What fairseq's search does anyway; in the original it has to be asked for.
ALWAYS = {"stop_on_max_len": True}
# How the original generates where its --eval-args say nothing.
GENERATION = {"max_len_b": 200, "no_repeat_ngram_size": 0, "unnormalized": False, "temperature": 1.0}
IN_FLOAT32 = "evaluation computes in float32: --fp16 halves the time on a GPU and rounds"


def normal(value: Any) -> Any:
    """A value as it is compared: ``(0.9, 0.999)`` is written in several ways, counts of a list as one number."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return re.sub(r"\s", "", value) if isinstance(value, str) else value


def parsed(recorded, script, inputs, command):  # noqa: F811
    """The options that a recipe gives a command on 8 GPUs, with the defaults of those that it leaves open."""
    import unival.tasks  # noqa: F401  registers what the recipes name

    for table in inputs["DATA"].glob("*.tsv"):
        table.write_text("row\n")
    is_training = command == "train"
    gpus = PUBLISHED["gpus"] if is_training else 1
    (arguments,) = [given for name, given in recorded(script, **{**inputs, "GPUS": gpus}) if name == command]
    parser = options.get_training_parser() if is_training else options.get_generation_parser()
    return resolved(options.parse_args_and_arch(parser, input_args=arguments))


def resolved(namespace) -> dict[str, Any]:
    """All options of a run by name, defaults included; parts that can be chosen by the name of the choice."""
    run = OmegaConf.to_container(convert_namespace_to_omegaconf(namespace), resolve=True, throw_on_missing=False)
    found: dict[str, Any] = {}
    for part in run.values():
        found.update(part if isinstance(part, dict) else {})
    return {**found, **{part: run[part]["_name"] for part in ("criterion", "optimizer", "lr_scheduler", "task") if run[part]}}


@pytest.mark.parametrize("script", TRAINING, ids=name_of)
def test_training_is_the_published_one(script, inputs, recorded):  # noqa: F811
    published = PUBLISHED[recipe_name(script)]
    ours = parsed(recorded, script, inputs, "train")
    medium = ours["columns"].split(",")[1]
    different = {}
    for option, value in published["train"].items():
        if option in WITHOUT or MEDIA_OPTIONS.get(option, medium) != medium or option == "eval_args":
            continue
        name, expected = OURS.get(option, lambda value, option=option: (option, value))(value)
        if normal(ours[name]) != normal(expected):
            different[option] = (ours[name], expected)
    assert different == {}
    generation = {**GENERATION, **ALWAYS, **PRESETS[ours["task"]].generation, **json.loads(ours["eval_args"])}
    if "eval_args" in published["train"]:  # the original validates entailment by the scores of all answers
        assert generation == {**GENERATION, **ALWAYS, **published["train"]["eval_args"]}
    if medium == "image":
        assert ours["instruction"] is None, "the task's own"
    if "prompt" in published:
        instruction = ours["instruction"] or CAPTION
        assert instruction == f"[{medium.upper()}:{medium}] {published['prompt']} -> [TEXT:caption,no_punctuation,max_length=20]"
        assert instruction == task_options({"_name": TASKS[medium]}).get("instruction", CAPTION), "as in published files"
    elif ours["instruction"] is not None:
        assert ours["instruction"] == (PRESETS[ours["task"]].instruction or "").replace("[IMAGE:image]", f"[{medium.upper()}:{medium}]")


@pytest.mark.parametrize("script", EVALUATION, ids=name_of)
def test_evaluation_is_the_published_one(script, inputs, recorded):  # noqa: F811
    published = dict(PUBLISHED[script.parent.name].get("eval", {"beam": 5, "fp16": True, "batch_size": 16}))
    ours = parsed(recorded, script, inputs, "generate")
    assert published.pop("fp16", None) is not None and not ours["fp16"], IN_FLOAT32
    assert {name: value for name, value in published.items() if name not in WITHOUT and ours[name] != value} == {}
    of_the_checkpoint = ("instruction", "patch_image_size", "patch_frame_size", "num_frames", "frame_fit")
    of_the_checkpoint += ("audio_sample_rate", "max_audio_seconds", "audio_filling")
    assert {name: ours[name] for name in of_the_checkpoint if ours[name] is not None} == {}


def test_another_schedule_can_be_chosen(inputs, recorded):  # noqa: F811
    """One that has no ratio of warm-up, too."""
    folder = ROOT / "run_scripts" / "video_caption_msrvtt"
    for schedule in ("cosine", "unival_polynomial"):
        ((_, arguments),) = recorded(folder / "train.sh", "--lr-scheduler", schedule, "--max-epoch", "3", **inputs)
        assert ("--warmup-ratio" in arguments) == (schedule == "unival_polynomial")
        given = resolved(options.parse_args_and_arch(options.get_training_parser(), input_args=arguments))
        assert (given["lr_scheduler"], given["max_epoch"]) == (schedule, 3)


@pytest.mark.parametrize("script", TRAINING, ids=name_of)
def test_help_says_where_the_epochs_come_from(script):
    text = re.sub(r"\n# ", " ", pathlib.Path(script).read_text(encoding="utf-8"))
    assert re.search(rf"\b{PUBLISHED[recipe_name(script)]['train']['max_epoch']} epochs", text)
    if script.name == "train.sh":
        assert "as the published script has" in text
        assert "several references an epoch" in text or "caption" not in script.parent.name
