#!/usr/bin/env bash
# Checks the whole project: ruff, mypy, then pytest.
#
#   bash tests/run.sh                 everything
#   bash tests/run.sh -m "not slow"   arguments go to pytest, and then only pytest runs
#
# Uses the active environment when it holds this checkout with its [eval,video,audio,dev] extras; else makes .venv (5 to 15 minutes,
# once, about 7 GB). PYTHON=python3.12 chooses the interpreter, UNIVAL_VENV=DIR the place of the environment.
source "$(dirname "${BASH_SOURCE[0]}")/../run_scripts/common.sh"

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  usage "${BASH_SOURCE[0]}"
  exit 0
fi

ensure_environment eval,video,audio,dev
cd "$UNIVAL_ROOT" || exit
if [ $# -eq 0 ]; then
  say "ruff and mypy (seconds), then pytest in two processes (about 10 minutes on two cores)."
  python -m ruff check .
  python -m mypy
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
  set -- -n 2 --dist loadfile # the tests of a file share what is slow to make
fi
exec python -m pytest "$@"
