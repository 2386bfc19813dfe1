"""The rules of the code base that a machine can watch: who imports whom, sizes, and what a library must not do."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from unival.cli import COMMANDS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "unival"

# Part of the package -> what it may import besides itself and LEAVES, which everybody may import.
# In short: tasks stand on generation and criterions, these on data and models, these on modalities, these on backbones; checkpoints
# stand on modalities, and models on checkpoints.
LEAVES = {"errors", "quiet_import", "text", "answers", "boxes", "instructions", "vocab", "vocab_files", "metrics"}
ALLOWED: dict[str, set[str]] = {
    "optim": set(),
    "backbones": set(),
    "modalities": {"backbones"},
    "checkpoints": {"modalities", "backbones"},
    "data": {"modalities", "backbones"},
    "models": {"checkpoints", "modalities", "backbones"},
    "generation": {"data", "models", "modalities", "backbones"},
    "criterions": {"data", "models", "modalities", "backbones"},
    "tasks": {"generation", "criterions", "optim", "data", "models", "checkpoints", "modalities", "backbones"},
}
# The top: the Python API, the command line and its commands; nothing below may import them.
TOP = {"__init__", "__main__", "hub", "cli", "commands", "console", "drawing"}
HEAVY = ("timm", "librosa", "decord", "av", "matplotlib", "pycocoevalcap", "torchaudio", "soundfile")

LIBRARY_LINES, FILE_LINES, FUNCTION_LINES, FILE_BYTES = 400, 600, 100, 500_000


def part_of(module: str) -> str:
    """`unival.data.table` -> `data`; `unival` itself -> `__init__`."""
    return (module.split(".") + ["__init__"])[1]


def imported_modules(source: str, module: str, is_package: bool) -> set[str]:
    """Every `unival…` module that a source imports, at its top or inside functions, absolutely or relatively."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from unival import cli` imports the module unival.cli, `from unival.data import Table` unival.data
            is_of_modules = name in ("unival", "unival.commands")
            found.update([f"{name}.{alias.name}" for alias in node.names] if is_of_modules else [name])
    return {name for name in found if name == "unival" or name.startswith("unival.")}


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """What a source of the package imports against the rule."""
    own = part_of(module)
    if own in TOP:
        return []
    if own in LEAVES:
        allowed = LEAVES
    elif own in ALLOWED:
        allowed = LEAVES | ALLOWED[own] | {own}
    else:
        return [f"{module}: {own} has no place in the import rule; add it here and to CONTRIBUTING.md"]
    parts = {name: part_of(name) for name in sorted(imported_modules(source, module, is_package))}
    return [f"{module} imports {name}" for name, part in parts.items() if part not in allowed]


def command_of(module: str) -> str:
    """`unival.commands.report.page` -> `unival.commands.report`: the module or package directly in `unival.commands`."""
    return ".".join(module.split(".")[:3])


def command_modules() -> set[str]:
    """Modules that run a command of `unival`, by the command line's own list and fairseq's."""
    return {module for module, _ in COMMANDS.values()} | {"unival.commands.fairseq"}


def other_commands(module: str, source: str, is_package: bool = False) -> list[str]:
    """The commands that a source imports, but for the one that it belongs to."""
    found = {command_of(name) for name in imported_modules(source, module, is_package)}
    return sorted(found & command_modules() - {command_of(module)})


def library() -> list[pathlib.Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def project_files() -> list[pathlib.Path]:
    """Everything that is or would be in git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in result.stdout.split("\0") if name and (ROOT / name).is_file()]


def project_sources() -> list[pathlib.Path]:
    return [path for path in project_files() if path.suffix == ".py"]


# Imports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", library(), ids=lambda path: module_name(path))
def test_import_rule(path):
    assert not violations(module_name(path), path.read_text(encoding="utf-8"), path.name == "__init__.py")


@pytest.mark.parametrize(
    "module, source, is_package, forbidden",
    [
        ("unival.backbones.resnet", "from unival.modalities.image import load", False, "unival.modalities.image"),
        ("unival.models.encoder", "import unival.data.table", False, "unival.data.table"),
        ("unival.data.stream", "def f():\n    from unival import tasks", False, "unival.tasks"),
        ("unival.metrics.cider", "from ..data.table import open_table", False, "unival.data.table"),
        ("unival.metrics", "from ..data import table", True, "unival.data"),
        ("unival.checkpoints.names.published", "from unival.models import Encoder", False, "unival.models"),
        ("unival.modalities.image", "from unival.checkpoints.files import read", False, "unival.checkpoints.files"),
        ("unival.criterions.label_smoothed", "from unival.tasks.base import UnivalTask", False, "unival.tasks.base"),
        ("unival.tasks.presets", "if x:\n    import unival.cli", False, "unival.cli"),
        ("unival.new.part", "", False, "add it here"),
    ],
)
def test_import_rule_finds_violations(module, source, is_package, forbidden):
    (found,) = violations(module, source, is_package)
    assert forbidden in found


@pytest.mark.parametrize(
    "module, source",
    [
        ("unival.models.encoder", "from unival.modalities.image import X\nfrom .layers import Y\nimport torch"),
        ("unival.tasks.presets", "from unival.generation.search import X\nfrom unival.errors import UserError"),
        ("unival.vocab", "from unival import errors"),
        ("unival.cli", "from unival.tasks import presets"),
        ("unival.commands.run", "from unival.hub import from_checkpoint"),
    ],
)
def test_import_rule_allows_what_stands_below(module, source):
    assert violations(module, source) == []


def test_commands_import_nothing_of_each_other():
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in library() if "commands" in path.parts}
    assert command_modules() <= {command_of(name) for name in sources}
    assert {name: found for name, text in sources.items() if (found := other_commands(name, text))} == {}


@pytest.mark.parametrize(
    "source", ["from unival.commands import run", "from unival.commands.report.page import html_page", "from . import run"]
)
def test_a_command_that_imports_another_is_found(source):
    assert len(other_commands("unival.commands.score", source)) == 1
    assert not other_commands("unival.commands.report.page", "from unival.commands.report.content import Report")


def test_every_module_of_the_commands_is_one():
    """What they share has other places: unival/console, or the part of the package that it is about."""
    found = {command_of(module_name(path)) for path in (PACKAGE / "commands").rglob("*.py")} - {"unival.commands"}
    assert found == command_modules() | {"unival.commands.options"}  # the latter makes docs/options.md


def test_folders_of_tests_are_packages():
    """Two files of one name in different folders, such as test_options.py, are otherwise one module to pytest."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def arguments_known(source: str) -> list[str]:
    """What a source names of the module `argparse`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "argparse"]
        elif isinstance(node, ast.ImportFrom) and node.module == "argparse":
            found += [f"argparse.{alias.name}" for alias in node.names]
    return found


def test_checkpoints_know_no_command_line():
    """But for the class of options in published files, which one module names."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (PACKAGE / "checkpoints").rglob("*.py")}
    assert {name: known for name, text in sources.items() if (known := arguments_known(text))} == {"namespace": ["argparse.Namespace"]}
    assert arguments_known("def f():\n    import argparse") == ["argparse"]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


# What a process has that an import should leave alone: printed as one line of Python.
STATE = """
import argparse, logging, multiprocessing, sys
def state():
    found = sys.modules["torch"].serialization.get_safe_globals() if "torch" in sys.modules else []
    allowed = [item for item in found if item is argparse.Namespace or isinstance(item, tuple)]  # others are torch's own
    method = multiprocessing.get_start_method(allow_none=True)
    return logging.root.level, list(logging.root.handlers), logging.root.manager.disable, method, allowed
before = state()
"""


def test_importing_the_package_imports_nothing_heavy():
    """Nor do the commands that need no model."""
    light = "import unival, unival.cli, unival.commands.score, unival.commands.train_vocab, unival.commands.report"
    heavy = ("torch", "fairseq", "torchvision", *HEAVY)
    assert run_python(f"{STATE}{light}; print([name for name in {heavy!r} if name in sys.modules], state() == before)") == (
        "[] True\n"
    )


def test_importing_the_python_api_leaves_the_process_as_it_was():
    """Logging, what ``torch.load`` takes, the start method of multiprocessing, standard error."""
    code = f"{STATE}import unival.hub; assert state() == before, (before, state()); from unival import from_checkpoint; "
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert set(ast.literal_eval(result.stdout)) <= {"torchaudio", "soundfile"}  # where fairseq finds them, it imports them


REGISTERED = """
from fairseq.tasks import TASK_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.criterions import CRITERION_REGISTRY
assert "unival_caption" in TASK_REGISTRY and "unival_tiny" in ARCH_MODEL_REGISTRY and "unival_label_smoothed" in CRITERION_REGISTRY
"""
AS_PLUGIN = f"""
from argparse import Namespace
from fairseq.utils import import_user_module
import_user_module(Namespace(user_dir={str(PACKAGE)!r}))
"""
ALLOWED_CLASSES = """
import argparse, torch
print(argparse.Namespace in torch.serialization.get_safe_globals())
"""


def test_fairseq_registers_the_plugin_in_any_order():
    """Loaded by fairseq alone, and after our own import, where fairseq imports nothing of a plugin itself."""
    assert run_python(AS_PLUGIN + REGISTERED + ALLOWED_CLASSES) == "True\n"
    assert run_python("import unival.tasks" + AS_PLUGIN + REGISTERED + ALLOWED_CLASSES) == "False\n"


# Sizes ----------------------------------------------------------------------------------------------------------


def test_no_file_is_too_long():
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in project_sources()}
    assert len(lengths) > 10
    limits = {path: LIBRARY_LINES if path.parts[0] == PACKAGE.name else FILE_LINES for path in lengths}
    assert {str(path): lines for path, lines in lengths.items() if lines > limits[path]} == {}


def test_no_function_is_too_long():
    long = []
    for path in project_sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_no_big_file_in_git():
    assert [str(path) for path in project_files() if path.stat().st_size > FILE_BYTES] == []


# Manners --------------------------------------------------------------------------------------------------------


def smells(source: str, is_library: bool) -> list[str]:
    """Bare excepts anywhere; print, sys.path and getattr with a default on a configuration in the library."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except")
        if not is_library:
            continue
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
            found.append(f"line {node.lineno}: sys.path")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "print":
                found.append(f"line {node.lineno}: print in the library")
            is_lenient = node.func.id == "getattr" and len(node.args) == 3
            if is_lenient and re.fullmatch(r"(\w+\.)*(cfg|args)", ast.unparse(node.args[0])):
                found.append(f"line {node.lineno}: getattr with a default on a configuration")
    return found


@pytest.mark.parametrize("path", project_sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_manners(path):
    is_library = PACKAGE in path.parents and path.name != "cli.py"
    assert smells(path.read_text(encoding="utf-8"), is_library) == []


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    x()\nexcept:\n    y()",
        "print(1)",
        "import sys\nsys.path.insert(0, 'x')",
        "getattr(self.cfg, 'lr', 1)",
    ],
)
def test_manners_finds_smells(source):
    assert len(smells(source, is_library=True)) == 1


# Modalities own themselves: elsewhere their names stand only where they are something else, too.
MODALITY_NAMES = {"TEXT", "IMAGE", "VIDEO", "AUDIO", "BOX", "CODE", "image", "video", "audio"}  # the last three also as keys
OTHER_MEANINGS = {
    "unival.instructions": {"TEXT"},  # the language's own: the modality of an instruction's plain words
    "unival.tasks.presets": {"image"},  # a column of the published tables
    "unival.metrics.submission": {"image"},  # a field of VizWiz's submissions
    "unival.commands.report": {"TEXT", "image"},  # how an argument is shown; the usual name of a column
    "unival.commands.options": {"TEXT"},  # how an argument is shown
    "unival.commands.train_vocab": {"TEXT"},  # likewise
}


def modality_names(source: str) -> set[str]:
    """Names of modalities that a source has as strings, or imports as descriptors."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return {node.value for node in nodes if isinstance(node, ast.Constant) and node.value in MODALITY_NAMES} | imported & MODALITY_NAMES


def test_nothing_switches_on_a_modality_outside_of_its_descriptor():
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in library()}
    found = {name: modality_names(text) for name, text in sources.items() if part_of(name) != "modalities"}
    assert {name: names for name, names in found.items() if names} == OTHER_MEANINGS
    assert {"IMAGE", "audio"} == modality_names("from unival.modalities.image import IMAGE\nif name == 'audio': ...")


def test_every_module_says_what_it_is_for():
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in library()}
    assert [name for name, text in sources.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


# Words that CONTRIBUTING.md rules out, and what the field says.
RULED_OUT = {
    r"sounds?": "audio",
    r"pictures?": "image",
    r"symbols?": "token",
    r"beginnings?": "start or prefix",
    r"stretch(es)?": "segment or span",
    r"filled up": "padded",
    r"(strings?|strung) together": "concatenated",
    r"key names?": "checkpoint keys",
    r"closed sets? of answers": "candidate answers",
}


def ruled_out_words(source: str) -> list[str]:
    """Words in docstrings, except in code between backticks, that have a better one."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, nodes)]
    prose = re.sub(r"``[^`]*``", "", "\n".join(texts))
    found = {word: re.search(rf"\b({word})\b", prose, flags=re.IGNORECASE) for word in RULED_OUT}
    return [f"{match[0]}: {RULED_OUT[word]}" for word, match in found.items() if match]


def test_docstrings_use_the_terms_of_the_field():
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in library()}
    found = {name: ruled_out_words(text) for name, text in sources.items()}
    assert {name: words for name, words in found.items() if words} == {}
    assert ruled_out_words('def f():\n    """The Beginning of ``symbols``."""') == ["Beginning: start or prefix"]


ABSOLUTE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|data|mnt|scratch|opt|Users)/")


def test_no_absolute_path_in_scripts_and_documents():
    found = []
    for path in project_files():
        if path.suffix in {".sh", ".md", ".toml", ".txt", ".cfg"} or path.parent.name == ".ci":
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [
                f"{path.relative_to(ROOT)}:{n} {line}" for n, line in enumerate(lines, 1) if ABSOLUTE.search(line)
            ]
    assert found == []


def test_absolute_path_is_recognised():
    assert ABSOLUTE.search("DATA=/home/me/coco") and not ABSOLUTE.search("unival/data/table.py")
