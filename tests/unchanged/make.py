"""Makes the record again: only ever run it on a commit that is known to be good, and say in the commit why the record may change.

    python -m tests.unchanged.make              everything but the stored checkpoint
    python -m tests.unchanged.make batches      one part: batches, losses, options, states, stored
    python -m tests.unchanged.make checkpoint   the stored checkpoint, and what becomes of it (never to follow a change of format)
"""

import json
import lzma
import pathlib
import sys
import tempfile
from typing import Any

import torch

from tests.unchanged import material, parts

PARTS = {
    "batches": lambda folder: {name: parts.batches(name) for name in material.TASKS},
    "losses": lambda folder: {name: parts.losses(name) for name in material.RUNS},
    "options": lambda folder: parts.all_options(),
    "states": lambda folder: parts.states(),
    "stored": parts.from_the_stored_run,
}


def write(name: str, found: Any) -> None:
    """One file per part, one line per entry."""
    entries = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in found.items())
    (material.HERE / f"{name}.json").write_text("{\n" + entries + "\n}\n")


def make_vocabulary() -> None:
    """A vocabulary of texts such as those of the tables."""
    from unival.vocab import train_vocabulary

    texts = [f" a {colour} {shape} above a circle" for colour in material.COLOURS for shape in material.SHAPES]
    train_vocabulary([*texts, " what does the image describe?", " the square is red"], 290, material.HERE / "vocab")


def make_checkpoint(folder: pathlib.Path) -> None:
    """The run that stops within its second epoch; its CNN is a formula, so that the file is small."""
    shapes = {key: shape for key, shape in parts.state_shapes(*material.NARROW, modalities="image").items() if ".backbone." in key}
    material.write_backbone(folder / "cnn.pt", {key.split(".backbone.")[1]: shape for key, shape in shapes.items()})
    flags = ["--image-backbone-weights", "cnn.pt", "--max-update", str(material.STOPPED_AFTER), "--save-dir", "stopped"]
    parts.run(*material.STOPPED, *flags)
    data = (folder / "stopped" / "checkpoint_last.pt").read_bytes()
    parts.STORED.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def main(names: list[str]) -> None:
    """Make the parts of these names, or all."""
    torch.set_num_threads(1)
    if not (material.HERE / "vocab").is_dir():
        make_vocabulary()
    with tempfile.TemporaryDirectory() as temporary:
        folder = material.write(pathlib.Path(temporary))
        with material.working_in(folder):
            if "checkpoint" in names:
                make_checkpoint(folder)
                names = ["stored"]
            for name in names or list(PARTS):
                write(name, PARTS[name](folder))


if __name__ == "__main__":
    main(sys.argv[1:])
