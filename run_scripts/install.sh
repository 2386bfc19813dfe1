#!/usr/bin/env bash
# Makes an environment with this checkout: checks what the machine has, makes .venv, installs torch, fairseq and the package.
#
#   bash run_scripts/install.sh              with everything that the recipes need (extras eval, video and audio)
#   bash run_scripts/install.sh eval,dev     with these extras: eval, video, audio, decord, log, dev; what is there already is kept
#
# An active environment that has all of it is used as it is, and so is .venv; otherwise it takes 5 to 15 minutes, once, and about 7 GB
# of disk. Nothing is downloaded before the machine has been checked. The other scripts call this by themselves.
#
# Variables: PYTHON (interpreter for a new environment, default: the best there is of 3.10 to 3.13), UNIVAL_VENV (place of the
# environment, default: .venv in the checkout), CXX (C++ compiler), TMPDIR (place of 3 GB of temporary files).

set -euo pipefail

UNIVAL_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
KNOWN_EXTRAS="eval video audio decord log dev" # of setup.py
SUPPORTED_PYTHONS="3.11 3.12 3.13 3.10"        # in the order in which they are tried
ENVIRONMENT_GB=7                               # of disk, with the GPU libraries that PyTorch brings on Linux
ENVIRONMENT_GB_ELSEWHERE=3
DOWNLOAD_GB=3 # of temporary files while packages are downloaded

# Messages -------------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }

die() {
  printf '%s\n' "$*" >&2
  exit 2
}

# usage FILE: prints the comment on top of a script (its lines from the second on, without the `# `) as its help.
usage() {
  awk 'NR > 1 { if ($0 !~ /^#/) exit; sub(/^# ?/, ""); print }' "$1"
}

# wants_help ARGS...: is --help or -h among them?
wants_help() {
  local argument
  for argument in "$@"; do
    case "$argument" in -h | --help) return 0 ;; esac
  done
  return 1
}

# Environment ----------------------------------------------------------------------------------------------------

# package_is_active PYTHON EXTRAS: does PYTHON see this checkout's unival, fairseq and what the extras promise?
# It runs from / so that the checkout is not found merely because it is the current directory.
package_is_active() {
  (cd / && "$1" - "$UNIVAL_ROOT" "$2" >/dev/null 2>&1) <<'PYTHON'
import importlib.util
import pathlib
import sys

root, extras = sys.argv[1], sys.argv[2].split(",")
needed = ["torch", "torchvision", "fairseq", "timm", "tokenizers", "PIL", "safetensors", "jinja2"]
needed += ["av"] if "video" in extras else []
needed += ["decord"] if "decord" in extras else []
needed += ["av", "soundfile", "torchaudio"] if "audio" in extras else []
needed += ["pycocoevalcap", "matplotlib"] if "eval" in extras else []
needed += ["decord", "pytest", "xdist", "ruff", "mypy", "librosa", "skvideo"] if "dev" in extras else []
found = importlib.util.find_spec("unival")
here = found is not None and found.origin and pathlib.Path(found.origin).resolve().parent == pathlib.Path(root) / "unival"
sys.exit(0 if here and all(importlib.util.find_spec(name) for name in needed) else 1)
PYTHON
}

# python_problems PYTHON: one word and one sentence a line for what keeps PYTHON from making the environment; nothing when it can.
python_problems() {
  "$1" - 2>/dev/null <<'PYTHON' || printf 'python %s does not run\n' "$1"
import importlib.util
import pathlib
import sys
import sysconfig

version = ".".join(map(str, sys.version_info[:3]))
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    print(f"python {sys.executable} is Python {version}, and 3.10 to 3.13 is needed")
    sys.exit()
if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
    print(f"venv {sys.executable} has no venv module")
if not (pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
    print(f"headers {sys.executable} has no headers (Python.h), against which fairseq is compiled")
PYTHON
}

# find_python: sets FOUND_PYTHON to the interpreter to build the environment with ($PYTHON decides when it is set) and PROBLEMS
# to what keeps it, or the best one there is, from that.
find_python() {
  local candidate found
  FOUND_PYTHON="${PYTHON:-}" PROBLEMS=""
  if [ -n "$FOUND_PYTHON" ]; then
    PROBLEMS="$(python_problems "$FOUND_PYTHON")"
    return
  fi
  for candidate in $(printf 'python%s ' $SUPPORTED_PYTHONS) python3 python; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    found="$(python_problems "$candidate")"
    if [ -z "$FOUND_PYTHON" ] || [ -z "$found" ]; then FOUND_PYTHON="$candidate" PROBLEMS="$found"; fi
    [ -n "$found" ] || return 0
  done
  [ -n "$FOUND_PYTHON" ] || PROBLEMS="python there is no Python here, and 3.10 to 3.13 is needed"
}

# free_gb FOLDER: whole GB free where FOLDER is or will be, and the device they are on.
free_gb() {
  local folder="$1"
  while [ ! -d "$folder" ]; do folder="$(dirname "$folder")"; done
  df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1048576), $1 }'
}

# disk_problems VENV: like python_problems, for the space that the environment and its download take.
disk_problems() {
  local venv="$1" temporary="${TMPDIR:-/tmp}" room device room_there device_there needed=$ENVIRONMENT_GB
  [ "$(uname -s)" = Linux ] || needed=$ENVIRONMENT_GB_ELSEWHERE
  [ ! -d "$venv"/lib/python3*/site-packages/torch ] || return 0 # most of it is there already
  read -r room device <<<"$(free_gb "$venv")"
  read -r room_there device_there <<<"$(free_gb "$temporary")"
  if [ "$device" = "$device_there" ]; then
    needed=$((needed + DOWNLOAD_GB))
  elif [ "$room_there" -lt "$DOWNLOAD_GB" ]; then
    say "disk $temporary has $room_there GB free, and $DOWNLOAD_GB GB are needed while packages are downloaded (set TMPDIR to a larger place)"
  fi
  [ "$room" -ge "$needed" ] ||
    say "disk $venv has $room GB free, and $needed GB are needed (set UNIVAL_VENV to a larger place)"
}

# mending KINDS PYTHON: the command that installs what is missing (compiler, headers, venv, python), by this machine's package manager.
mending() {
  local kind version packages="" manager="" commands="" candidate
  version="$("${2:-python3}" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" || true
  version="python${version:-3}"
  if command -v apt-get >/dev/null 2>&1; then
    manager="sudo apt-get install"
  elif command -v dnf >/dev/null 2>&1; then
    manager="sudo dnf install"
  elif command -v brew >/dev/null 2>&1; then
    manager="brew install"
  fi
  for kind in $1; do
    case "$kind:$manager" in
      disk:*) ;;
      compiler:*brew*) if [ "$(uname -s)" = Darwin ]; then commands="xcode-select --install"; else packages="$packages gcc"; fi ;;
      compiler:*apt*) packages="$packages build-essential" ;;
      compiler:*dnf*) packages="$packages gcc-c++" ;;
      headers:*apt*) packages="$packages $version-dev" ;;
      headers:*dnf*) packages="$packages $version-devel" ;;
      venv:*apt*) packages="$packages $version-venv" ;;
      venv:*dnf*) packages="$packages $version" ;;
      python:*apt*)
        for candidate in $(printf 'python%s ' $SUPPORTED_PYTHONS); do
          if apt-cache show "$candidate" >/dev/null 2>&1; then
            packages="$packages $candidate $candidate-venv $candidate-dev"
            break
          fi
        done
        ;;
      python:*dnf*) packages="$packages python3.12 python3.12-devel" ;;
      *:*brew*) packages="$packages python@3.12" ;;
    esac
  done
  [ -z "$packages" ] || commands="${commands:+$commands && }$manager$packages"
  [ -z "$commands" ] || say "Mend it with: $commands"
  for kind in $1; do
    case "$kind:$commands" in
      python:*python*) ;;
      python:*) say "Python 3.11 is to be had from python.org, pyenv or conda; name it with PYTHON=" ;;
      compiler:) say "Install a C++ compiler (g++ or clang++) with this machine's package manager, or name one with CXX=" ;;
      headers: | venv:) say "Install the $kind of $version with this machine's package manager" ;;
    esac
  done
}

# check_machine VENV: before anything is downloaded, ends with all that this machine lacks and the command that mends it; sets
# FOUND_PYTHON to the interpreter to use.
check_machine() {
  local venv="$1" problems kinds
  if [ -x "$venv/bin/python" ]; then
    FOUND_PYTHON="$venv/bin/python" PROBLEMS="$(python_problems "$venv/bin/python")"
  else
    find_python
  fi
  problems="$PROBLEMS"
  command -v "${CXX:-c++}" >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 ||
    problems="$problems
compiler there is no C++ compiler, and fairseq compiles small extensions"
  problems="$(printf '%s\n%s\n' "$problems" "$(disk_problems "$venv")" | sed '/^$/d')"
  [ -n "$problems" ] || return 0
  kinds="$(printf '%s\n' "$problems" | sed 's/ .*//' | sort -u | tr '\n' ' ')"
  say "This machine cannot make the environment yet; nothing was downloaded:" >&2
  printf '%s\n' "$problems" | sed 's/^[a-z]* /  - /' >&2
  mending "$kinds" "$FOUND_PYTHON" >&2
  exit 2
}

# step TITLE LOG COMMAND...: runs COMMAND with its output in LOG, says how long it took, shows the end of LOG when it fails.
step() {
  local title="$1" log="$2" start=$SECONDS
  shift 2
  say "  $title"
  if ! "$@" >>"$log" 2>&1; then
    tail -n 25 "$log" >&2
    die "This step failed: $title The whole output is in $log; the command can simply be run again."
  fi
  say "    done in $((SECONDS - start)) s"
}

# installed_extras STAMP FINGERPRINT: the extras that STAMP says are installed, empty when it belongs to other versions.
installed_extras() {
  if [ -f "$1" ] && [ "$(head -n 1 "$1")" = "$2" ]; then sed -n 2p "$1"; fi
}

# with_extras A B: the comma-separated union of two comma-separated lists, sorted.
with_extras() {
  printf '%s\n' "$1,$2" | tr ',' '\n' | sed '/^$/d' | sort -u | paste -s -d , -
}

# install_package VENV EXTRAS: torch first, fairseq-fixed against that torch, then this package.
install_package() {
  local python="$1/bin/python" log="$1/install.log" pins="$UNIVAL_ROOT/constraints.txt"
  : >"$log"
  step "1 of 3: torch, torchvision and build tools (several GB on Linux; 1 to 10 minutes, as the network is)." "$log" \
    "$python" -m pip install -c "$pins" --upgrade pip setuptools wheel numpy cython torch torchvision
  step "2 of 3: fairseq-fixed, compiled here against that torch (3 minutes when the machine is idle, 12 when it is busy)." "$log" \
    "$python" -m pip install -c "$pins" --no-build-isolation "fairseq-fixed==0.12.3.1"
  step "3 of 3: unival[$2] (about 1 minute)." "$log" \
    "$python" -m pip install -c "$pins" --no-build-isolation --config-settings editable_mode=compat -e "${UNIVAL_ROOT}[$2]"
}

# ensure_environment EXTRAS: afterwards `python`, `unival` and `fairseq-*` are those of an environment with this checkout
# and EXTRAS ("eval", "eval,dev"). An active environment that has them is used; else .venv in the checkout (or $UNIVAL_VENV).
ensure_environment() {
  local extras="$1" active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" venv="${UNIVAL_VENV:-$UNIVAL_ROOT/.venv}" fingerprint stamp present
  if [ -n "$active" ] && package_is_active "$active/bin/python" "$extras"; then
    export PATH="$active/bin:$PATH"
    return
  fi
  stamp="$venv/.unival-installed"
  fingerprint="$(cat "$UNIVAL_ROOT/constraints.txt" "$UNIVAL_ROOT/setup.py" | cksum)"
  present="$(installed_extras "$stamp" "$fingerprint")"
  if [ "$(with_extras "$present" "$extras")" != "$present" ] || ! package_is_active "$venv/bin/python" ""; then
    extras="$(with_extras "$present" "$extras")"
    check_machine "$venv"
    if [ ! -x "$venv/bin/python" ]; then
      say "Making the environment $venv with $("$FOUND_PYTHON" --version 2>&1): 5 to 15 minutes, once."
      "$FOUND_PYTHON" -m venv "$venv"
    else
      say "Installing into $venv (what is there already is kept):"
    fi
    rm -f "$stamp"
    install_package "$venv" "$extras"
    printf '%s\n%s\n' "$fingerprint" "$extras" >"$stamp"
  fi
  export VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH"
}

# The command ----------------------------------------------------------------------------------------------------

# run_install ARGS...: what `bash run_scripts/install.sh` does.
run_install() {
  local extras="${1:-eval,video,audio}" extra active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
  if wants_help "$@"; then usage "${BASH_SOURCE[0]}"; return; fi
  [ $# -le 1 ] || die "$# arguments: give the extras as one, with commas between them (see --help)"
  for extra in ${extras//,/ }; do
    case " $KNOWN_EXTRAS " in *" $extra "*) ;; *) die "unknown extra $extra: there are ${KNOWN_EXTRAS// /, }" ;; esac
  done
  ensure_environment "$extras"
  if [ -n "$active" ] && [ "$active" = "${VIRTUAL_ENV:-$active}" ]; then
    say "The active environment, $active, has all of it."
  else
    say "The environment is ready. To work in it: source $VIRTUAL_ENV/bin/activate"
  fi
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then run_install "$@"; fi
