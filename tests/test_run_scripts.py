"""The scripts that a person types: help, clear refusals, the environment made once, and every command of the README."""

import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch

from tests import runs, tiny
from unival.checkpoints.recovery import newest, saved_files
from unival.cli import build_parser

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMON, INSTALL = (ROOT / "run_scripts" / name for name in ("common.sh", "install.sh"))
RECIPES = sorted(path for path in (ROOT / "run_scripts").glob("*/*.sh") if path.parent.name not in ("pretrain", "merging"))
SCRATCH = [path for path in RECIPES if "\nrecipe scratch " in path.read_text(encoding="utf-8")]  # no model to start from
COMMANDS = [INSTALL, ROOT / "run_scripts" / "quickstart.sh", ROOT / "run_scripts" / "sampler.sh", ROOT / "tests" / "run.sh", *RECIPES]
COMMANDS += [path for name in ("merging", "pretrain") for path in sorted((ROOT / "run_scripts" / name).glob("*.sh"))]
SCRIPTS = [*COMMANDS, COMMON, *(ROOT / "run_scripts" / name for name in ("common_merging.sh", "rank.sh")), ROOT / ".ci" / "run"]
VARIABLES = {"DATA", "TRAIN", "VALID", "VOCAB", "CHECKPOINT", "OUT", "ANSWERS", "SPLIT", "METRICS", "SUBMISSION", "AREA", "MINUTES"}
VARIABLES |= {"TASK", "TASKS", "TARGETS", "MERGE", "ROUNDS", "SHARE", "OMP_NUM_THREADS", "TMPDIR", "SEED", "GPUS", "LAUNCHER", "NODES"}
VARIABLES |= {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX"}
VARIABLES |= {"UNIVAL_VENV", "SLOWER"}


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def needed(script: pathlib.Path) -> list[str]:
    """The variables that a recipe cannot do without."""
    return ["DATA", "OUT"] if script in SCRATCH else ["DATA", "CHECKPOINT", "OUT"]


NEEDED = [pytest.param(script, variable, id=f"{variable}-{name_of(script)}") for script in RECIPES for variable in needed(script)]
NAMED = [case for case in NEEDED if case.values[1] != "OUT"]  # of files and folders that must be there
NAMED += [pytest.param(script, "VOCAB", id=f"VOCAB-{name_of(script)}") for script in RECIPES if script not in SCRATCH]


def bash(*command: object, cwd: pathlib.Path, timeout: float = 120, **variables: object) -> subprocess.CompletedProcess:
    """Runs bash with no variable of the scripts but those given; the test's own interpreter is first in PATH."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.update({key: str(value) for key, value in variables.items()})
    words = ["bash", *map(str, command)]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_script_parses(script, tmp_path):
    result = bash("-n", script, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script", COMMANDS, ids=name_of)
def test_help_works_from_any_folder_and_leaves_nothing(script, tmp_path):
    result = bash(script, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"bash {name_of(script)}" in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", RECIPES, ids=name_of)
def test_help_of_a_recipe_names_every_variable_it_checks(script, tmp_path):
    shown = bash(script, "--help", cwd=tmp_path).stdout
    for variable in (*needed(script), "GPUS", *([] if script in SCRATCH else ["VOCAB"])):
        assert re.search(rf"^\s*{variable}\b.*\S", shown, re.MULTILINE), f"{variable} is not explained"


@pytest.fixture
def inputs(tmp_path):
    """Variables that pass every check of a recipe; the files are empty."""
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "data").mkdir()
    files = ["vocabulary/encoder.json", "vocabulary/vocab.bpe", "vocabulary/dict.txt", "model.pt"]
    files += [f"data/{split}.tsv" for split in ("train", "valid", "test")]
    (tmp_path / "data" / "answers.txt").write_text("yes\nno\n")
    for name in files:
        (tmp_path / name).touch()
    return {
        "DATA": tmp_path / "data",
        "VOCAB": tmp_path / "vocabulary",
        "CHECKPOINT": tmp_path / "model.pt",
        "OUT": tmp_path / "out",
        "GPUS": 0,
    }


@pytest.mark.parametrize("script, variable", NEEDED)
def test_unset_variable_is_one_line(script, variable, inputs, tmp_path):
    del inputs[variable]
    result = bash(script, cwd=tmp_path, **inputs)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and result.stderr.startswith(f"{variable} is not set: it names the")


@pytest.mark.parametrize("script, variable", NAMED)
def test_missing_input_is_one_line(script, variable, inputs, tmp_path):
    inputs[variable] = tmp_path / "elsewhere"
    result = bash(script, cwd=tmp_path, **inputs)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"{variable}={tmp_path / 'elsewhere'}: no such ")


@pytest.mark.parametrize("script", RECIPES, ids=name_of)
def test_incomplete_folder_names_the_missing_file(script, inputs, tmp_path):
    if script not in SCRATCH:
        (tmp_path / "vocabulary" / "vocab.bpe").unlink()
        result = bash(script, cwd=tmp_path, **inputs)
        assert result.returncode == 2 and "vocab.bpe is missing there" in result.stderr
        (tmp_path / "vocabulary" / "vocab.bpe").touch()
    for table in (tmp_path / "data").glob("*.tsv"):
        table.unlink()
    result = bash(script, cwd=tmp_path, **inputs)
    assert result.returncode == 2 and re.search(r"neither \w+\.tsv nor \w+\.jsonl is there", result.stderr)


def test_unknown_argument_of_the_quickstart_is_one_line(tmp_path):
    result = bash(ROOT / "run_scripts" / "quickstart.sh", "--fast", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "unknown argument --fast: known are --smoke, --shapes, --force, --help\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("minutes", ["0", "0.0", "six", "-1", "1m", ""])
def test_unusable_minutes_are_one_line(minutes, tmp_path):
    result = bash(ROOT / "run_scripts" / "quickstart.sh", cwd=tmp_path, MINUTES=minutes or "x")
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert result.stderr.startswith(f"MINUTES={minutes or 'x'}: give a number of minutes")


def test_a_full_disk_is_told_before_anything_is_made(tmp_path):
    (tmp_path / "bin").mkdir()
    df = tmp_path / "bin" / "df"
    df.write_text("#!/usr/bin/env bash\necho head; echo device 1 1 1000 1% /\n")
    df.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    script = f'PATH="{path}"; source "{ROOT / "run_scripts" / "quickstart.sh"}"'
    result = bash("-c", script, "bash", "--smoke", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("OUT=quickstart-smoke: less than 1 GB is free there")
    assert [file.name for file in tmp_path.iterdir()] == ["bin"]


RECORDER = """#!/usr/bin/env bash
printf '%s\\0' "$(basename "$0")" "$@" '' >>"$RECORDED"
"""


@pytest.fixture
def recorded(tmp_path):
    """Commands only note their arguments; the answer is a list of (command, arguments), of fairseq's commands (train, generate) by name."""
    programs = tmp_path / "recording" / "bin"
    programs.mkdir(parents=True)
    scripts = {"unival": RECORDER}
    scripts["python"] = f'#!/usr/bin/env bash\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n'
    for name, content in scripts.items():
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    log = tmp_path / "recorded"

    def run(script: pathlib.Path, *more: str, **variables: object) -> list[tuple[str, list[str]]]:
        result = bash(script, *more, cwd=tmp_path, timeout=600, VIRTUAL_ENV=programs.parent, RECORDED=log, **variables)
        assert result.returncode == 0, result.stdout + result.stderr
        calls = [call.split("\0") for call in log.read_text().split("\0\0") if call]
        log.unlink()
        return [(call[1], call[2:]) if call[1] in ("train", "generate") else (call[0], call[1:]) for call in calls]

    return run


@pytest.mark.parametrize("script", RECIPES, ids=name_of)
@pytest.mark.parametrize("endings", ["tsv", "jsonl"])
def test_recipe_parses_and_passes_arguments_on(script, endings, inputs, recorded):
    """What reaches fairseq and `unival` is what their parsers know; arguments of the command line come last and win."""
    from fairseq import options

    import unival.tasks  # noqa: F401  registers what the recipes name

    for table in inputs["DATA"].glob("*.tsv"):
        table.write_text("row\n" * 300)
        table.rename(table.with_suffix(f".{endings}"))
    vocabulary = inputs.pop("VOCAB") if endings == "jsonl" else inputs["VOCAB"]  # without one, that of the checkpoint
    for command, arguments in recorded(script, "--batch-size", "7", **inputs):
        if command == "unival":
            parsed = build_parser(arguments[0]).parse_args(arguments)
            tables = parsed.table if isinstance(parsed.table, list) else [parsed.table]
            assert all(pathlib.Path(table).is_file() for table in tables)
            continue
        is_training = command == "train"
        parser = options.get_training_parser() if is_training else options.get_generation_parser()
        parsed = options.parse_args_and_arch(parser, input_args=arguments)
        assert parsed.batch_size == 7
        own = inputs["OUT"] / "vocabulary"  # which a recipe from scratch has trained
        given = None if endings == "jsonl" else str(vocabulary)
        assert parsed.data == str(inputs["DATA"]) and parsed.vocab_dir == (str(own) if script in SCRATCH else given)
        if is_training:  # what starts over when it is started again would be --restore-file with --reset-…
            assert parsed.finetune_from_model == (None if script in SCRATCH else str(inputs["CHECKPOINT"]))
            assert parsed.restore_file == "checkpoint_last.pt"
            assert parsed.no_epoch_checkpoints and parsed.keep_best_checkpoints == 1  # whatever the number of epochs, a few files


RUN_SMALL = [*runs.MODEL, "--patch-image-size", "32", "--num-codes", "0", "--num-bins", "0", "--batch-size", "2", "--num-workers", "0"]
RUN_SMALL += ["--update-freq", "1", "--max-epoch", "99", "--save-interval-updates", "1", "--keep-interval-updates", "1"]
RUN_SMALL += ["--disable-validation"]


def test_a_recipe_that_is_killed_and_started_again_resumes(recorded, tmp_path):
    """Not from the checkpoint that it starts from, but from the last one of its own, with the same command; fairseq-train takes it, too."""
    script = ROOT / "run_scripts" / "caption_coco" / "train.sh"
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for split in ("train", "valid"):
        tiny.write_table(data, rows=4, name=f"{split}.jsonl")
    tiny.vocabulary(data / "vocab", num_codes=0, num_bins=0)
    settings = ("--num-frames", "5", "--max-audio-seconds", "3")  # which the recipe leaves open
    assert runs.train(data, tmp_path, *settings, "--batch-size", "4", "--max-update", "1", "--disable-validation") == 0
    start = tmp_path / "checkpoint_last.pt"
    inputs = {"DATA": data, "VOCAB": data / "vocab", "CHECKPOINT": start, "OUT": out, "GPUS": 0}
    ((_, arguments),) = recorded(script, *RUN_SMALL, **inputs)
    environment = {**os.environ, **{name: str(value) for name, value in inputs.items()}, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(
            ["bash", script, *RUN_SMALL], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        until = time.monotonic() + 300
        while not (out / "checkpoint_last.pt").exists() and first.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert f"starting from {start}" in (tmp_path / "first.log").read_text()
    saved = newest(saved_files(out)).updates
    plain = [sys.executable, "-m", "fairseq_cli.train", *arguments, "--max-update", str(saved + 1)]
    again = subprocess.run(plain, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    loaded = re.findall(r"Loaded checkpoint (\S+) \(epoch \d+ @ (\d+) updates\)", again.stdout + again.stderr)
    assert loaded == [(str(out / "checkpoint_last.pt"), str(saved))]
    ends = torch.load(out / "checkpoint_last.pt", weights_only=True)
    assert ends["optimizer_history"][-1]["num_updates"] == saved + 1
    media = ends["task_state"]["media"]
    assert (media["num_frames"], media["max_audio_seconds"], media["patch_image_size"]) == (5, 3.0, 32)


# Environment ----------------------------------------------------------------------------------------------------

STUB = """#!/usr/bin/env bash
# Stands for python: notes pip's arguments, makes "environments" with a copy of itself, says yes to every question.
here="$(cd "$(dirname "$0")" && pwd)"
case "${1:-}" in
  --version) echo "Python 3.11.0" ;;
  -) cat >/dev/null; [ -n "${2:-}" ] && [ ! -f "$STUB_STATE/installed" ] && exit 1; exit 0 ;;
  -m) shift
    if [ "$1" = venv ]; then mkdir -p "$2/bin"; cp "$here/$(basename "$0")" "$2/bin/python"; fi
    if [ "$1" = pip ]; then
      echo "$*" >>"$STUB_STATE/pip"
      if [ -n "${STUB_FAILS:-}" ] && [[ "$*" == *"$STUB_FAILS"* ]]; then echo "no space left"; exit 1; fi
      [[ "$*" == *" -e "* ]] && touch "$STUB_STATE/installed"
    fi ;;
esac
exit 0
"""


class Checkout:
    """A checkout with the real install.sh, a stub interpreter, and what pip was asked to do."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.root = folder / "checkout"
        (self.root / "run_scripts").mkdir(parents=True)
        shutil.copy(INSTALL, self.root / "run_scripts" / "install.sh")
        (self.root / "constraints.txt").write_text("torch==1\n")
        (self.root / "setup.py").write_text("setup()\n")
        self.state = folder / "state"
        self.state.mkdir()
        self.python = folder / "stub-python"
        self.python.write_text(STUB)
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()

    def ensure(self, extras: str, **variables: object) -> subprocess.CompletedProcess:
        script = f'source "{self.root}/run_scripts/install.sh"; ensure_environment "$1"; command -v python'
        settings = {"PYTHON": self.python, "STUB_STATE": self.state, **variables}
        return bash("-c", script, "bash", extras, cwd=self.elsewhere, **settings)

    def pip_calls(self) -> list[str]:
        log = self.state / "pip"
        calls = log.read_text().splitlines() if log.is_file() else []
        log.unlink(missing_ok=True)
        return calls


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_environment_is_made_in_the_right_order(checkout):
    result = checkout.ensure("eval")
    assert result.returncode == 0, result.stderr
    first, second, third = checkout.pip_calls()
    assert "torch" in first.split() and "numpy" in first.split() and "setuptools" in first.split()
    assert "fairseq" not in first and "--no-build-isolation" in second and second.endswith("fairseq-fixed==0.12.3.1")
    assert "--no-build-isolation" in third and third.endswith(f"-e {checkout.root}[eval]")
    assert all(f"-c {checkout.root}/constraints.txt" in call for call in (first, second, third))
    assert result.stdout.splitlines()[-1] == str(checkout.root / ".venv" / "bin" / "python")
    assert "3 minutes when the machine is idle" in result.stdout
    assert not list(checkout.elsewhere.iterdir())


def test_environment_is_not_made_twice(checkout):
    checkout.ensure("eval")
    checkout.pip_calls()
    result = checkout.ensure("eval")
    assert result.returncode == 0 and not checkout.pip_calls()
    assert result.stdout.splitlines() == [str(checkout.root / ".venv" / "bin" / "python")]


def test_environment_follows_new_versions_and_more_extras(checkout):
    checkout.ensure("eval")
    checkout.pip_calls()
    checkout.ensure("eval,dev")
    assert checkout.pip_calls()[-1].endswith("[dev,eval]")
    checkout.ensure("eval")
    assert not checkout.pip_calls(), "what is installed includes eval"
    (checkout.root / "constraints.txt").write_text("torch==2\n")
    checkout.ensure("eval")
    assert len(checkout.pip_calls()) == 3


def test_failed_step_shows_its_output_and_can_be_run_again(checkout):
    result = checkout.ensure("eval", STUB_FAILS="fairseq-fixed")
    assert result.returncode == 2
    assert "no space left" in result.stderr and "install.log" in result.stderr
    assert len(checkout.pip_calls()) == 2
    assert checkout.ensure("eval").returncode == 0
    assert len(checkout.pip_calls()) == 3


def with_programs(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """A folder that holds links to these programs and nothing else, to be the whole PATH."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, f"this test needs {name}"
        (folder / name).symlink_to(found)
    return folder


TOOLS = ["bash", "env", "cat", "cksum", "head", "sed", "sort", "tr", "paste", "df", "awk", "uname"]
TOOLS += ["dirname", "basename", "mkdir", "cp", "rm", "tail", "touch"]


class Machine:
    """A machine that has what the test puts there and nothing else; `ensure` makes the environment on it."""

    def __init__(self, checkout: Checkout, folder: pathlib.Path) -> None:
        self.checkout = checkout
        self.programs = with_programs(folder / "programs", *TOOLS)

    def add(self, name: str, content: str = "exit 0") -> pathlib.Path:
        program = self.programs / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/usr/bin/env bash\n{content}\n")
        program.chmod(0o755)
        return program

    def add_python(self, name: str = "python3.11", problem: str = "", version: str = "3.11") -> pathlib.Path:
        """An interpreter that makes environments, or says what keeps it from that."""
        wrong = f'echo "{problem}"; exit' if problem else f'exec "{self.checkout.python}" "$@"'
        return self.add(name, f'case "$1" in -c) echo {version}; exit ;; -) cat >/dev/null; {wrong} ;; *) {wrong} ;; esac')

    def ensure(self, **variables: object) -> subprocess.CompletedProcess:
        script = f'PATH="{self.programs}"; source "{self.checkout.root}/run_scripts/install.sh"; ensure_environment eval'
        return bash("-c", script, cwd=self.checkout.elsewhere, STUB_STATE=self.checkout.state, **variables)

    def complaints(self, **variables: object) -> list[str]:
        """The lines of a refusal that came before anything was made or downloaded."""
        result = self.ensure(**variables)
        assert result.returncode == 2, result.stdout + result.stderr
        assert not self.checkout.pip_calls() and not (self.checkout.root / ".venv").exists()
        first, *rest = result.stderr.splitlines()
        assert first == "This machine cannot make the environment yet; nothing was downloaded:"
        return rest


@pytest.fixture
def machine(checkout, tmp_path):
    return Machine(checkout, tmp_path)


def test_a_machine_that_has_everything_is_used(machine):
    machine.add("c++")
    machine.add_python()
    assert machine.ensure().returncode == 0 and len(machine.checkout.pip_calls()) == 3


MANAGERS = {
    "apt-get": ["Mend it with: sudo apt-get install build-essential python3.11-dev"],
    "dnf": ["Mend it with: sudo dnf install gcc-c++ python3.11-devel"],
    "brew": ["Mend it with: xcode-select --install && brew install python@3.12"],
    None: [
        "Install a C++ compiler (g++ or clang++) with this machine's package manager, or name one with CXX=",
        "Install the headers of python3.11 with this machine's package manager",
    ],
}


@pytest.mark.parametrize("manager", MANAGERS, ids=str)
def test_missing_compiler_and_headers_are_told_together_before_any_download(machine, manager):
    machine.add_python(problem="headers python3.11 has no headers (Python.h), against which fairseq is compiled")
    if manager:
        machine.add(manager)
    if manager == "brew":
        machine.add("uname", "echo Darwin")
    headers, compiler, *rest = machine.complaints()
    assert headers == "  - python3.11 has no headers (Python.h), against which fairseq is compiled"
    assert compiler == "  - there is no C++ compiler, and fairseq compiles small extensions"
    assert rest == MANAGERS[manager]


@pytest.mark.parametrize(
    "manager, known, mending",
    [
        ("apt-get", "python3.12", "Mend it with: sudo apt-get install python3.12 python3.12-venv python3.12-dev"),
        ("apt-get", "no-python", "Python 3.11 is to be had from python.org, pyenv or conda; name it with PYTHON="),
        ("dnf", "", "Mend it with: sudo dnf install python3.12 python3.12-devel"),
        ("brew", "", "Mend it with: brew install python@3.12"),
    ],
)
def test_no_usable_python_is_told_with_what_can_be_installed(machine, manager, known, mending):
    """Without any, with one that is too old, and with one that was named and does not run."""
    machine.add("c++")
    machine.add(manager)
    machine.add("apt-cache", f'[ "$2" = "{known}" ]')
    assert machine.complaints() == ["  - there is no Python here, and 3.10 to 3.13 is needed", mending]
    old = "python python3 is Python 3.8.1, and 3.10 to 3.13 is needed"
    machine.add_python("python3", problem=old, version="3.8")
    assert machine.complaints() == [f"  - {old.removeprefix('python ')}", mending]
    assert machine.complaints(PYTHON="no-such-python") == ["  - no-such-python does not run", mending]


def test_a_better_python_is_preferred(machine):
    """The first that can be used; the environment is made with it although others are found before."""
    machine.add("c++")
    machine.add_python("python3.11", problem="headers python3.11 has no headers (Python.h)")
    machine.add_python("python3.12", version="3.12")
    assert machine.ensure().returncode == 0 and len(machine.checkout.pip_calls()) == 3


def free_space(**free: int) -> str:
    """A `df` that knows how many GB are free: {first letters of a path: GB}, one file system each."""
    cases = "".join(f'*/{part}*) echo "device-{part} 1 1 $(({room} * 1048576)) 1% /" ;; ' for part, room in free.items())
    return f'echo "Filesystem blocks used available capacity mounted"; case "$2" in {cases} esac'


def test_a_full_disk_is_told_before_any_download(machine, tmp_path):
    machine.add("c++")
    machine.add_python()
    (tmp_path / "temporary").mkdir()
    places = {"TMPDIR": tmp_path / "temporary"}
    venv = machine.checkout.root / ".venv"
    machine.add("df", free_space(checkout=6, temporary=50))
    assert machine.complaints(**places) == [
        f"  - {venv} has 6 GB free, and 7 GB are needed (set UNIVAL_VENV to a larger place)"
    ]
    machine.add("df", free_space(checkout=50, temporary=2))
    (line,) = machine.complaints(**places)
    assert line.startswith(f"  - {tmp_path / 'temporary'} has 2 GB free, and 3 GB are needed while packages are downloaded")
    machine.add("df", 'echo head; echo "device 1 1 $((9 * 1048576)) 1% /"')
    assert machine.complaints(**places) == [
        f"  - {venv} has 9 GB free, and 10 GB are needed (set UNIVAL_VENV to a larger place)"
    ], "on one file system both have to fit"
    machine.add("df", free_space(checkout=7, temporary=3))
    assert machine.ensure(**places).returncode == 0


def test_real_interpreters_are_judged_by_themselves(tmp_path):
    """The check that runs inside the interpreter, on this one: it can make environments, as the one that runs the tests was made."""
    script = f'source "{INSTALL}"; python_problems "$1"; echo "checked"'
    result = bash("-c", script, "bash", sys.executable, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "checked" and "is Python" not in result.stdout
    old = tmp_path / "old"
    old.write_text(f'#!/usr/bin/env bash\nsed "s/sys.version_info\\[:2\\]/(3, 9)/" | exec "{sys.executable}" -\n')
    old.chmod(0o755)
    said = bash("-c", script, "bash", old, cwd=tmp_path).stdout
    assert re.match(r"python \S+ is Python 3\.\d+\.\d+, and 3\.10 to 3\.13 is needed\n", said)
    assert bash("-c", f'source "{INSTALL}"; free_gb "$1"', "bash", tmp_path / "not" / "there", cwd=tmp_path).stdout.split()[0].isdecimal()


def test_active_environment_without_the_package_is_not_used(checkout, tmp_path):
    """An active environment whose interpreter says no (nothing is installed yet) gives way to the checkout's own."""
    active = tmp_path / "active"
    (active / "bin").mkdir(parents=True)
    shutil.copy(checkout.python, active / "bin" / "python")
    result = checkout.ensure("eval", VIRTUAL_ENV=active)
    assert result.stdout.splitlines()[-1] == str(checkout.root / ".venv" / "bin" / "python")
    (checkout.state / "installed").touch()
    checkout.pip_calls()
    result = checkout.ensure("eval", VIRTUAL_ENV=active)
    assert result.stdout.splitlines() == [str(active / "bin" / "python")] and not checkout.pip_calls()


def test_the_installation_by_itself(checkout, tmp_path):
    """It says how to enter what it made, keeps what is there, leaves an active environment that has everything alone."""
    install, venv = checkout.root / "run_scripts" / "install.sh", checkout.root / ".venv"
    settings = {"PYTHON": checkout.python, "STUB_STATE": checkout.state}
    result = bash(install, cwd=checkout.elsewhere, **settings)
    assert result.returncode == 0, result.stderr
    assert checkout.pip_calls()[-1].endswith("[audio,eval,video]")
    assert result.stdout.splitlines()[-1] == f"The environment is ready. To work in it: source {venv}/bin/activate"
    bash(install, "dev", cwd=checkout.elsewhere, **settings)
    assert checkout.pip_calls()[-1].endswith("[audio,dev,eval,video]")
    result = bash(install, "eval", cwd=checkout.elsewhere, **settings, VIRTUAL_ENV=venv)
    assert result.stdout == f"The active environment, {venv}, has all of it.\n" and not checkout.pip_calls()


def test_the_installation_refuses_what_it_does_not_know(checkout):
    (extras,) = re.findall(r"extras_require=\{(.*?)\n    \}", (ROOT / "setup.py").read_text(encoding="utf-8"), flags=re.DOTALL)
    known = re.findall(r'^        "(\w+)": \[', extras, flags=re.MULTILINE)
    result = bash(checkout.root / "run_scripts" / "install.sh", "videos", cwd=checkout.elsewhere)
    assert result.returncode == 2 and result.stderr == f"unknown extra videos: there are {', '.join(known)}\n"
    result = bash(checkout.root / "run_scripts" / "install.sh", "eval", "dev", cwd=checkout.elsewhere)
    assert result.returncode == 2 and result.stderr.startswith("2 arguments: give the extras as one")


# The whole road --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quickstart_runs_from_any_folder_and_again(tmp_path):
    """Every step at a size that learns nothing: what is left to see is that the parts fit."""
    quickstart = ROOT / "run_scripts" / "quickstart.sh"
    if not (pathlib.Path(sys.prefix) / "bin" / "unival").is_file():
        pytest.skip("unival is not installed in this environment: bash tests/run.sh makes one")
    variables = {"VIRTUAL_ENV": sys.prefix, "MINUTES": 0.1, "OUT": "made here"}
    result = bash(quickstart, "--smoke", "--shapes", cwd=tmp_path, timeout=600, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"CIDEr, right pixels: \d", result.stdout) and "exactly right, unseen scenes: " in result.stdout
    assert "The data are drawn shapes" in result.stdout and "photograph" not in result.stdout
    assert re.search(r"threads for an update: 1: \S+ s.*; taken: \d", result.stdout)
    assert re.search(r"update \d+: validation CIDEr \S+ with the right pixels, \S+ with another image's", result.stdout)
    page = (tmp_path / "made here" / "report.html").read_text(encoding="utf-8")
    assert "<h1>What a small UnIVAL says about drawn shapes it has never seen</h1>" in page
    logged = (tmp_path / "made here" / "train.jsonl").read_text(encoding="utf-8")
    last = max(map(int, re.findall(r'num_updates": "(\d+)"', logged)))  # every second update is logged, and the last
    assert f'"last_update": "{last}"' in logged and f'"valid_swapped_num_updates": "{last}"' in logged, "ends with its decay"
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"made here/report.html", "made here/report.png", "made here/model/checkpoint_best.pt"} <= made
    assert {name.split("/")[0] for name in made} == {"made here"}, "nothing is left beside the folder"
    result = bash(quickstart, "--smoke", cwd=tmp_path, timeout=600, **variables)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, "other pictures are never replaced unasked"
    assert "--force" in result.stderr


# README ---------------------------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    """The lines of README.md's code blocks that call bash or python on a file of the repository."""
    readme = ROOT / "README.md"
    if not readme.is_file():
        return []
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.search(r"(^|\s)(bash|python)\s+[\w./-]+\.(sh|py)\b", line)]


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="README.md is not written yet")
def test_readme_has_the_two_commands():
    commands = " ".join(readme_commands())
    assert "bash run_scripts/quickstart.sh" in commands and "bash tests/run.sh" in commands


@pytest.mark.parametrize("command", readme_commands() or [pytest.param("", marks=pytest.mark.skip("no commands yet"))])
def test_readme_command_exists_and_its_flags_are_known(command, tmp_path):
    runner, script = re.search(r"(bash|python)\s+([\w./-]+\.(?:sh|py))\b", command).groups()
    path = ROOT / script
    assert path.is_file(), f"README.md names {script}, which does not exist"
    if script.startswith("tests/") or "=" in command.split(script)[0]:
        return
    flags = re.findall(r"\s(--[a-z][\w-]*)", command.split(script)[1])
    interpreter = ["bash"] if runner == "bash" else [sys.executable]
    shown = subprocess.run(
        [*interpreter, str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    for flag in flags:
        assert flag in shown.stdout, f"README.md passes {flag} to {script}, whose help does not know it"
