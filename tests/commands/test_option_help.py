"""The help and the page of options hold every option there is, as the dataclasses have it."""

import dataclasses
import pathlib
from typing import List  # noqa: UP035  fairseq knows no other

import pytest
from fairseq import options as fairseq_options
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import II

from unival.cli import main
from unival.commands import options
from unival.commands.fairseq import option_help
from unival.commands.fairseq.option_help import help_text

ROOT = pathlib.Path(__file__).resolve().parents[2]


def fields(config):
    """Names of a dataclass's options, worked out independently of the code under test."""
    linked = [f.name for f in dataclasses.fields(config) if str(f.default).startswith("${") and not f.metadata.get("help")]
    return [f.name for f in dataclasses.fields(config) if f.name not in ("_name", *linked)]


def names(config):
    return ["DATA" if name == "data" else "--" + name.replace("_", "-") for name in fields(config)]


def test_the_page_is_current():
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == options.page(), (
        "run: python -m unival.commands.options > docs/options.md"
    )


def test_page_and_help_hold_every_option():
    page = options.page()
    text = help_text("train", [])
    everything = [*options.our_tasks().values(), *options.our_models().values()]
    everything += [config for members in options.our_parts().values() for config in members.values()]
    assert len(options.our_tasks()) >= 2 and len(options.our_models()) >= 3
    for config in everything:
        for name in names(config):
            assert f"`{name}" in page and f"  {name}" in text, f"{name} of {config.__name__}"
    for arch in options.our_models():
        assert f"`--arch {arch}`" in page and arch in text


def test_help_says_what_the_parser_takes():
    """Names as fairseq's parser has them, so that nothing is shown that is refused."""
    parser = fairseq_options.get_training_parser()
    parsed = fairseq_options.parse_args_and_arch
    args = ["data", "--task", "unival_caption", "--arch", "unival_tiny", "--criterion", "unival_encouraging"]
    args += ["--lr-scheduler", "unival_timed"]
    parsed(parser, args)
    known = {name for action in parser._actions for name in action.option_strings}
    shown = [line.split()[0] for line in help_text("train", args).splitlines() if line.startswith("  --")]
    assert len(shown) > 100
    assert set(shown) - set(option_help.OWN_OPTIONS) <= known


def test_help_follows_what_is_chosen():
    tiny = help_text("train", ["--arch", "unival_tiny", "--criterion=unival_label_smoothed", "--optimizer", "adam"])
    assert "width of the encoder (default: 128)" in tiny and "width of the encoder (default: 768)" not in tiny
    assert "--label-smoothing" in tiny and "--log-end" not in tiny
    assert "--adam-betas" in tiny and "--adam-betas" not in help_text("train", [])
    assert tiny.index("--instruction") < tiny.index("--patch-image-size") < tiny.index("--eval-metrics")
    assert tiny.index("--eval-metrics") < tiny.index("--encoder-layers") < tiny.index("--max-update")


def test_all_of_fairseqs_options_on_request():
    brief, whole = help_text("generate", []), help_text("generate", ["--help-all"])
    assert "--beam" in brief and "--diverse-beam-groups" not in brief and "--diverse-beam-groups" in whole
    assert "--encoder-layers" not in whole  # a checkpoint brings its model's options


@pytest.mark.parametrize("command", ["train", "validate", "generate"])
def test_the_command_prints_it(capsys, command):
    assert main([command, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"usage: unival {command}") and "--instruction" in captured.out
    assert captured.err == ""


COLOURS = ChoiceEnum(["red", "green"])


@dataclasses.dataclass
class NewConfig(FairseqDataclass):
    new_size: int = dataclasses.field(default=7, metadata={"help": "a size | with a <bar>"})
    new_list: List[int] = dataclasses.field(default_factory=lambda: [1, 2], metadata={"help": "numbers"})  # noqa: UP006
    new_colour: COLOURS = dataclasses.field(default="red", metadata={"help": "a colour"})  # type: ignore[valid-type]
    new_switch: bool = dataclasses.field(default=True, metadata={"help": "do it"})
    new_link: int = II("common.seed")


NewConfig.__module__ = "unival.new"


def test_what_is_registered_later_appears_by_itself(monkeypatch):
    monkeypatch.setitem(TASK_DATACLASS_REGISTRY, "unival_new", NewConfig)
    lines = options.page().splitlines()
    assert "### Only `--task unival_new`" in lines
    assert "| `--new-size N` | a size \\| with a &lt;bar> (default: 7) |" in lines
    assert "| `--new-list LIST` | numbers (default: 1,2) |" in lines
    assert "| `--new-colour {red,green}` | a colour (default: red) |" in lines
    assert "| `--new-switch` | turns off: do it |" in lines
    assert not [line for line in lines if "new-link" in line]
    assert "--new-size" in help_text("train", ["--task", "unival_new"])


def test_every_option_of_ours_has_a_help_text():
    configs = [*options.our_tasks().values(), *options.our_models().values()]
    configs += [config for members in options.our_parts().values() for config in members.values()]
    assert [option.name for config in configs for option in options.options_of(config) if not option.help] == []
    assert {"unival_label_smoothed", "unival_encouraging"} <= set(CRITERION_REGISTRY)
