"""Says what to do when the quickstart's model has not learnt to look: how many updates there were, how many it takes, what to set."""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence


def advice(updates: int, seconds: float, minutes: float, factor: float, needed: int, command: str) -> str:
    """One or two sentences.

    Args:
        updates: that training made, in ``seconds``.
        minutes: that were planned; training took ``factor`` times these at most.
        needed: updates after which a model looks, as measured.
        command: to run again, with MINUTES=… before it.
    """
    each = seconds / max(1, updates)
    said = f"Training made {updates} updates in {seconds / 60:.1f} minutes ({each:.2g} s each); "
    if updates >= needed:
        return f"{said}{needed} are usually enough: try SEED=2 {command}, or longer: MINUTES={math.ceil(2 * minutes)} {command}"
    longer = max(math.ceil(2 * minutes), math.ceil(1.5 * needed * each / 60 / factor))
    return (
        f"{said}it takes about {needed} until a model looks. End other programs, or give it more time: "
        f"MINUTES={longer} {command} (that is {factor * longer:g} minutes of training at most)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the advice for what `live.py --training` left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summary", type=pathlib.Path, help="what live.py --summary wrote")
    parser.add_argument("--minutes", type=float, required=True, help="minutes that were planned")
    parser.add_argument("--factor", type=float, required=True, help="times these minutes are the most")
    parser.add_argument("--needed", type=int, required=True, help="updates after which a model looks")
    parser.add_argument("--command", required=True, help="what to run again")
    args = parser.parse_args(arguments)
    made: Mapping = json.loads(args.summary.read_text(encoding="utf-8"))
    sys.stdout.write(advice(made["updates"], made["seconds"], args.minutes, args.factor, args.needed, args.command) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
