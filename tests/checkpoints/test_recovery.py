"""What a stop while saving leaves in a run's folder, and from what the run goes on."""

import errno
import os
import pathlib
import shutil
from types import SimpleNamespace

import pytest
import torch

from unival.checkpoints.recovery import is_cut_short, look_at, mend, newest, replace_by_copy, saved_files
from unival.errors import UserError, counted
from unival.tasks.restore import restored_file

LAST, BEST = "checkpoint_last.pt", "checkpoint_best.pt"


def save(path, updates, score=None, best=None, minute=None):
    """A small checkpoint, written some minutes after the others."""
    state = {"model": {"weight": torch.full((500,), float(updates))}, "optimizer_history": [{"num_updates": updates}]}
    best = score if best is None else best
    state.update(task_state={"vocabulary": "x"}, extra_state={"val_loss": score, "best": best}, cfg={"model": {}})
    torch.save(state, path)
    os.utime(path, (0, 60 * (updates if minute is None else minute)))
    return path


def cut(path, share=0.6):
    """Leave the beginning of a file."""
    os.truncate(path, int(path.stat().st_size * share))
    return path


def counts(folder):
    """File name -> updates, None for what is not whole."""
    return {path.name: (found.updates if (found := look_at(path)) else None) for path in sorted(folder.glob("checkpoint*"))}


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.5, 0.9, 0.99])
def test_every_beginning_of_a_checkpoint_is_cut_short(tmp_path, share):
    path = save(tmp_path / LAST, 3)
    assert not is_cut_short(path) and look_at(path).updates == 3
    size = path.stat().st_size
    cut(path, share)
    assert is_cut_short(path) and look_at(path) is None
    with path.open("ab") as file:
        file.write(b"\0" * (size - path.stat().st_size))  # a file system that made room, but has not written yet
    assert is_cut_short(path)


def test_a_last_byte_that_is_missing_is_noticed(tmp_path):
    path = save(tmp_path / LAST, 3)
    os.truncate(path, path.stat().st_size - 1)
    assert is_cut_short(path)


def test_what_is_no_zip_file_is_left_to_the_reader(tmp_path):
    for name, content in (("a", b"<html>"), ("b", b"version https://git-lfs"), ("c", b"\x80\x02}q\x00.")):
        (tmp_path / name).write_bytes(content)
        assert not is_cut_short(tmp_path / name) and look_at(tmp_path / name) is None


def test_names_are_those_of_fairseq(tmp_path):
    ours = [LAST, BEST, "checkpoint3.pt", "checkpoint_2_150.pt", "checkpoint.best_cider_0.1237.pt", "checkpoint.best_loss_-0.1231.pt"]
    sharded = "checkpoint_last-a.pt"
    for name in [*ours, sharded, "checkpoint_last.pt.tmp", "checkpoint3.safetensors", "checkpoint_old.pt", "model.pt"]:
        (tmp_path / name).touch()
    assert [path.name for path in saved_files(tmp_path)] == sorted(ours)
    assert [path.name for path in saved_files(tmp_path, "-a")] == [sharded]


# name -> (files whole: updates and score; files cut short; what is whole afterwards)
STOPS = {
    "while the first file is written": ({}, ["checkpoint1.pt.tmp"], {}),
    "while a later file is written": ({LAST: (1, 0.5), BEST: (1, 0.5)}, [f"{BEST}.tmp"], {LAST: 1, BEST: 1}),
    "before any copy": ({"checkpoint1.pt": (4, 0.5)}, [], {LAST: 4, BEST: 4, "checkpoint1.pt": 4}),
    "during the copy to the best": (
        {"checkpoint_1_5.pt": (5, 0.7), LAST: (4, 0.6)},
        [BEST],
        {LAST: 5, BEST: 5, "checkpoint_1_5.pt": 5},
    ),
    "before the copy to the best": (
        {"checkpoint_1_5.pt": (5, 0.7), LAST: (4, 0.6), BEST: (4, 0.6)},
        [],
        {LAST: 5, BEST: 5, "checkpoint_1_5.pt": 5},
    ),
    "during the copy to one of the best": (
        {"checkpoint2.pt": (5, 0.7), LAST: (4, 0.6), BEST: (5, 0.7)},
        ["checkpoint.best_cider_0.7003.pt"],
        {LAST: 5, BEST: 5, "checkpoint2.pt": 5, "checkpoint.best_cider_0.7003.pt": 5},
    ),
    "during the copy to the last": (
        {"checkpoint2.pt": (6, 0.5), "checkpoint1.pt": (3, 0.6), BEST: (3, 0.6)},
        [LAST],
        {LAST: 6, BEST: 3, "checkpoint1.pt": 3, "checkpoint2.pt": 6},
    ),
    "during the copy of the best to the last": ({BEST: (3, 0.6)}, [LAST], {LAST: 3, BEST: 3}),
    "in a run without a last one": (
        {"checkpoint1.pt": (3, 0.5), "checkpoint2.pt": (6, None)},
        [],
        {LAST: 6, "checkpoint1.pt": 3, "checkpoint2.pt": 6},
    ),
    "between two savings": ({"checkpoint1.pt": (3, 0.5), LAST: (7, 0.4), BEST: (3, 0.5)}, [], {"checkpoint1.pt": 3, LAST: 7, BEST: 3}),
}


@pytest.mark.parametrize("suffix", ["", "-a"])
@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_while_saving_is_mended(tmp_path, stop, suffix):
    whole, damaged, after = STOPS[stop]
    renamed = {name: name.replace(".pt", f"{suffix}.pt") for name in {*whole, *damaged, *after}}
    highest = max([score for _, score in whole.values() if score], default=None)
    for name, (updates, score) in whole.items():
        save(tmp_path / renamed[name], updates, score, highest)
    for name in damaged:
        cut(save(tmp_path / renamed[name], 9))
    before = counts(tmp_path)
    said = mend(tmp_path, suffix)
    assert counts(tmp_path) == {renamed[name]: updates for name, updates in after.items()}
    assert (said is None) == (before == counts(tmp_path) or stop == "while a later file is written")
    if said and after:
        resumed = after[LAST]
        assert "\n" not in said and str(tmp_path) in said and f"({counted(resumed, 'update')})" in said
        assert ("a new --save-dir starts afresh" in said) == (LAST not in {*whole, *damaged})  # it may have been removed on purpose
    assert mend(tmp_path, suffix) is None


def test_a_whole_last_checkpoint_gives_way_only_to_one_of_more_updates_written_later(tmp_path):
    """An earlier run's files in the folder, or a run whose optimizer was reset, must not win."""
    save(tmp_path / LAST, 10, minute=5)
    save(tmp_path / "checkpoint9.pt", 900, minute=1)
    save(tmp_path / "checkpoint_1_8.pt", 8, minute=9)
    assert mend(tmp_path) is None and look_at(tmp_path / LAST).updates == 10
    save(tmp_path / "checkpoint_1_12.pt", 12, minute=9)
    assert "of 10 updates" in mend(tmp_path) and look_at(tmp_path / LAST).updates == 12


def test_the_checkpoint_that_a_run_starts_from_is_not_the_runs_own(tmp_path):
    start = save(tmp_path / BEST, 900)
    assert mend(tmp_path, besides={start.resolve()}) is None and counts(tmp_path) == {BEST: 900}
    published = torch.load(start, weights_only=True)
    published["task_state"] = {}
    torch.save(published, tmp_path / "checkpoint7.pt")
    start.unlink()
    assert mend(tmp_path) is None and not (tmp_path / LAST).exists()


def test_damage_without_a_whole_checkpoint_is_an_error(tmp_path):
    cut(save(tmp_path / LAST, 3))
    cut(save(tmp_path / BEST, 3))
    with pytest.raises(UserError, match=rf"{tmp_path}: no whole checkpoint .*: {BEST}, {LAST} cut short.*--save-dir"):
        mend(tmp_path)
    (tmp_path / LAST).unlink()
    with pytest.raises(UserError, match="remove it or"):
        mend(tmp_path)


def test_other_damage_is_named_and_left(tmp_path):
    """A best checkpoint that nothing is left of; it is replaced when a better one comes."""
    save(tmp_path / LAST, 4, 0.3, best=0.5)
    cut(save(tmp_path / BEST, 3))
    assert mend(tmp_path) == f"{tmp_path}: {BEST} is cut short and of no use"
    save(tmp_path / LAST, 4, 0.5)
    assert f"{BEST} was cut short and is a copy of {LAST} now" in mend(tmp_path)
    assert look_at(tmp_path / BEST).updates == 4


def test_a_copy_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    source, target = save(tmp_path / "checkpoint1.pt", 3), save(tmp_path / LAST, 1)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_, **__):
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", fail)
        with pytest.raises(UserError, match=f"{LAST}: cannot be made a copy of checkpoint1.pt: No space left on device"):
            replace_by_copy(source, target)
    assert counts(tmp_path) == {LAST: 1, "checkpoint1.pt": 3}
    replace_by_copy(source, target)
    assert source.read_bytes() == target.read_bytes() and newest([source, target]).path == target


def options(folder, **changes):
    start = {"save_dir": str(folder), "restore_file": LAST, "checkpoint_suffix": "", "finetune_from_model": None}
    return SimpleNamespace(**{**start, "continue_once": None, **changes})


def test_where_training_starts_from(tmp_path, caplog):
    run, start = tmp_path / "run", save(tmp_path / "start.pt", 50)
    run.mkdir()
    assert restored_file(options(run)) is None
    assert restored_file(options(run, finetune_from_model=str(start))) == start
    assert restored_file(options(run, continue_once=str(start))) == start
    last = cut(save(run / LAST, 3))
    save(run / "checkpoint1.pt", 3)
    assert restored_file(options(run, finetune_from_model=str(start))) == last and look_at(last).updates == 3
    assert "checkpoint_last.pt is cut short, as after a stop while saving: resuming from checkpoint1.pt (3 updates)" in caplog.text
    cut(last)
    assert restored_file(options(run, restore_file=str(last))) == last and look_at(last).updates == 3
    caplog.clear()
    assert restored_file(options(run, restore_file=str(start))) == start
    assert f"starts again from --restore-file {start}; without that option it resumes from {last}" in caplog.text
    with pytest.raises(UserError, match="not both"):
        restored_file(options(run, restore_file=str(start), finetune_from_model=str(start)))


@pytest.mark.parametrize("option", ["restore_file", "finetune_from_model", "continue_once"])
def test_a_named_checkpoint_that_is_cut_short_names_the_whole_one_beside_it(tmp_path, option):
    start = cut(save(tmp_path / "checkpoint_best.pt", 50))
    flag = f"--{option.replace('_', '-')}"
    with pytest.raises(UserError, match=f"{flag} {start}: the file is cut short; copy or fetch it again"):
        restored_file(options(tmp_path / "run", **{option: str(start)}))
    save(tmp_path / "checkpoint5.pt", 40)
    with pytest.raises(UserError, match=r"the newest whole one there is checkpoint5.pt \(40 updates\)"):
        restored_file(options(tmp_path / "run", **{option: str(start)}))
    assert isinstance(start, pathlib.Path) and is_cut_short(start)  # nothing outside the run's folder is mended
