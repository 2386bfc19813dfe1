"""What the distributions hold: only `unival*`, the console script, the supported Pythons, the extras, few needs."""

import email.message
import email.parser
import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> pathlib.Path:
    """A wheel and a source distribution, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("unival", "data_utils", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(distributions):
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel) -> email.message.Message:
    return email.parser.Parser().parsestr(wheel.read("unival-0.1.0.dist-info/METADATA").decode("utf-8"))


def requirements(metadata: email.message.Message, extra: str | None = None) -> dict[str, Requirement]:
    """Needs of the package itself, or those that an extra adds."""
    found = {}
    for text in metadata.get_all("Requires-Dist"):
        requirement = Requirement(text)
        belongs = requirement.marker is None if extra is None else f'extra == "{extra}"' in str(requirement.marker)
        if belongs:
            found[requirement.name.lower()] = requirement
    return found


def test_only_our_package_is_installed(wheel):
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert folders == {"unival", "unival-0.1.0.dist-info"}
    assert wheel.read("unival-0.1.0.dist-info/top_level.txt").decode().split() == ["unival"]


def test_every_module_is_installed(wheel):
    files = (path for ending in ("py", "html") for path in (ROOT / "unival").rglob(f"*.{ending}"))
    expected = {str(path.relative_to(ROOT)) for path in files}
    assert expected <= set(wheel.namelist()), "a folder of the package has no __init__.py, or setup.py does not name the template"


def test_source_distribution_can_be_built_from_itself(distributions):
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "LICENSE", "unival/errors.py"} <= names


def test_console_script(wheel):
    assert "unival = unival.cli:main" in wheel.read("unival-0.1.0.dist-info/entry_points.txt").decode()


def test_name_version_licence_and_pythons(metadata):
    assert (metadata["Name"], metadata["Version"]) == ("unival", "0.1.0")
    assert "Apache-2.0" in (metadata["License-Expression"] or metadata["License"])
    supported = SpecifierSet(metadata["Requires-Python"])
    assert all(f"3.{minor}.1" in supported for minor in (10, 11, 12, 13))
    assert "3.9.18" not in supported and "3.14.0" not in supported


def test_runtime_needs_are_few(metadata):
    expected = {
        "torch",
        "torchvision",
        "timm",
        "safetensors",
        "numpy",
        "omegaconf",
        "hydra-core",
        "fairseq-fixed",
        "tokenizers",
        "pillow",
        "jinja2",
    }
    assert set(requirements(metadata)) == expected
    assert str(requirements(metadata)["fairseq-fixed"].specifier) == "==0.12.3.1"


def test_extras(metadata):
    assert set(metadata.get_all("Provides-Extra")) == {"eval", "video", "audio", "decord", "log", "dev"}
    assert set(requirements(metadata, "eval")) == {"pycocoevalcap", "matplotlib"}
    assert set(requirements(metadata, "video")) == {"av"}
    assert set(requirements(metadata, "decord")) == {"av", "decord"}
    assert set(requirements(metadata, "audio")) == {"torchaudio", "soundfile", "av"}
    assert set(requirements(metadata, "log")) == {"tensorboard"}
    assert set(requirements(metadata, "dev")) == {"decord", "pytest", "ruff", "mypy", "build", "librosa", "scikit-video", "pytest-xdist"}


def constraints() -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line]


def test_constraints_pin_every_need_and_name_no_place(metadata):
    text = CONSTRAINTS.read_text(encoding="utf-8")
    assert not re.search(r"@|://|file:|^\s*-|\+cpu|\+cu\d", text, re.MULTILINE)
    pinned = {requirement.name.lower() for requirement in constraints()}
    needed = {**requirements(metadata), **requirements(metadata, "eval"), **requirements(metadata, "dev")}
    assert set(needed) <= pinned
    assert not [name for name in pinned if name.startswith(("nvidia", "cuda"))]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_agree_with_setup_on_every_python(metadata, python):
    everything = [requirements(metadata, extra) for extra in (None, "eval", "video", "audio", "log", "dev")]
    environment = {"python_version": python, "python_full_version": f"{python}.1"}
    chosen: dict[str, SpecifierSet] = {}
    for pin in constraints():
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name.lower() not in chosen, f"{pin.name} is pinned twice for Python {python}"
            chosen[pin.name.lower()] = pin.specifier
    for needs in everything:
        for name, need in needs.items():
            if name in chosen:
                (version,) = (specifier.version for specifier in chosen[name])
                assert version in need.specifier, (
                    f"{name}: constraints.txt has {version}, setup.py wants {need.specifier}"
                )


def test_installed_package_is_this_checkout():
    try:
        entry_points = importlib.metadata.distribution("unival").entry_points
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("unival is not installed in this environment")
    assert [(entry.name, entry.value) for entry in entry_points] == [("unival", "unival.cli:main")]
