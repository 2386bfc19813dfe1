"""docs/migration.md names options, columns and instructions as they are."""

import argparse
import pathlib
import re

from fairseq import options as fairseq_options

from unival.commands import score
from unival.tasks.presets import PRESETS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
TASKS = [preset for preset in PRESETS.values() if preset.name in ("unival_caption", "unival_vqa", "unival_grounding", "unival_entailment")]


def cells(section):
    """The rows of the tables of a section, each a list of cells."""
    text = re.split(r"^## ", PAGE, flags=re.M)
    (found,) = [part for part in text if part.startswith(section)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found.splitlines() if line.startswith("|")]


def test_options_exist():
    named = {option for row in cells("Options") for option in re.findall(r"--[a-z0-9-]+", row[-1])}
    named |= {option for row in cells("Tasks") if len(row) == 3 for option in re.findall(r"--[a-z0-9-]+", row[1])}
    known = set(re.findall(r"--[a-z0-9-]+", (ROOT / "docs" / "options.md").read_text(encoding="utf-8")))
    scoring = argparse.ArgumentParser()
    score.add_arguments(scoring)
    for parser in (fairseq_options.get_training_parser(), fairseq_options.get_generation_parser(), scoring):
        known |= {option for action in parser._actions for option in action.option_strings}
    assert len(named) > 30 and named - known == set()


def test_instructions_and_columns_are_those_of_the_tasks():
    (block,) = re.findall(r"```text\n(.*?)```", PAGE, flags=re.S)
    assert block.splitlines() == [preset.instruction for preset in TASKS]
    rows = {row[0].strip("`"): row[1:] for row in cells("Rows") if row[0].startswith("`")}
    for preset in TASKS:
        columns, numbers = rows.pop(preset.name)
        assert tuple(re.sub(r" \(.*?\)", "", columns).split(", ")) == preset.tsv_columns and numbers.strip("`") == preset.tsv_selected
        assert f"`--task {preset.name}" in PAGE and all(f"`{metric}`" in PAGE or metric in PAGE for metric in preset.metrics)
    assert not rows
