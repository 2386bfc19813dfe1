"""Says how long the trainings of the example took, and which of them ended before all of their updates since the machine was too slow."""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence


def note(trainings: Sequence[Mapping], slower: float) -> str:
    """One or two sentences.

    Args:
        trainings: what `live.py --summary` wrote of each.
        slower: how many times its time each might take.
    """
    minutes = sum(made["seconds"] for made in trainings) / 60
    short = [f"{made['title']} {made['updates']} of {made['planned']}" for made in trainings if made["updates"] < made["planned"]]
    said = f"All trainings together took {minutes:.1f} minutes."
    if not short:
        return said
    return (
        f"{said} Too slow: of their updates {', '.join(short)} were made in the time allowed, and the scores are those of models that have "
        f"not finished. End other programs, or allow more time: SLOWER={2 * slower:g} bash run_scripts/pretrain/example.sh"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the note for what `live.py --summary` left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summaries", nargs="+", type=pathlib.Path, help="what live.py --summary wrote, a file for each training")
    parser.add_argument("--slower", type=float, required=True, help="how many times its time each might take")
    args = parser.parse_args(arguments)
    trainings = [json.loads(path.read_text(encoding="utf-8")) for path in args.summaries]
    sys.stdout.write(note(trainings, args.slower) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
