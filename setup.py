"""Packaging of unival: only the package `unival` is installed; data preparation and run scripts stay where they are.

Install torch first, then fairseq-fixed with `--no-build-isolation` (it compiles against the torch that is there), then
this package; `run_scripts/install.sh` does the three steps in this order, with the versions of constraints.txt.
"""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent
README = ROOT / "README.md"

setup(
    name="unival",
    version="0.1.0",
    description="Unified model for image, video, audio and language tasks: a fairseq plugin",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["unival", "unival.*"]),
    package_data={"unival": ["commands/report/*.html", "drawing/*.html", "drawing/style.css"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "timm>=1.0.9",
        "numpy>=1.26",
        "omegaconf>=2.1,<2.4",
        "hydra-core>=1.3,<1.4",
        "fairseq-fixed==0.12.3.1",
        "tokenizers>=0.20",
        "Pillow>=10",
        "jinja2>=3.1",
        "safetensors>=0.4",
    ],
    extras_require={
        "eval": ["pycocoevalcap>=1.2", "matplotlib>=3.8"],
        "video": ["av>=17"],
        "audio": ["torchaudio>=2.6", "soundfile>=0.12", "av>=17"],
        "decord": ["decord>=0.6", "av>=17"],
        "log": ["tensorboard>=2.15"],
        "dev": [
            *("decord>=0.6", "librosa>=0.10", "scikit-video>=1.1.11"),
            *("pytest>=8", "pytest-xdist>=3.6", "ruff>=0.8", "mypy>=1.11", "build>=1.2"),
        ],
    },
    entry_points={"console_scripts": ["unival = unival.cli:main"]},
)
