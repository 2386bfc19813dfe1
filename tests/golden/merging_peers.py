"""Makes ``merging.json``: what mergekit and fusion-bench make of small state dicts, for tests/checkpoints/merging/test_peers.py.

Run in an environment that has both beside torch; nothing of the package or its tests imports them:
``pip install mergekit==0.1.5`` and ``pip install --no-deps fusion-bench==0.2.33``, of which single files are used.
"""

import contextlib
import importlib.machinery
import importlib.metadata
import importlib.util
import io
import json
import math
import pathlib
import sys
import types

import torch

SHAPES = {"layers.0.fc.weight": (6, 8), "layers.0.fc.bias": (8,)}
MODELS = 3


def values(number: int) -> dict[str, torch.Tensor]:
    """The state dict of the base (0) or a model, by a formula."""
    state = {}
    for place, (key, shape) in enumerate(SHAPES.items()):
        i = torch.arange(math.prod(shape), dtype=torch.float64)
        base = torch.sin(1.7 * i + place)
        state[key] = (base + (0.2 * torch.cos(i * (0.9 + number) + number) if number else 0)).float().reshape(shape)
    return state


def fisher(number: int) -> dict[str, torch.Tensor]:
    """Positive weights of every value."""
    return {key: (value.double().cos() ** 2 + 0.01).float() for key, value in values(number).items()}


def gram(number: int) -> torch.Tensor:
    """A Gram matrix of 8 inputs."""
    x = torch.sin(torch.arange(96, dtype=torch.float64).reshape(12, 8) * (0.31 + 0.2 * number))
    return x.T @ x + 0.1 * torch.eye(8, dtype=torch.float64)


class Anything:
    """Stands for what the functions that are called here do not use: base classes, decorators, context managers."""

    def __init__(self, *_):
        pass

    def __class_getitem__(cls, _):
        return cls

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class Stand(types.ModuleType):
    """Stands for the modules of fusion-bench that a single file of it imports: Lightning, Hydra and all models stay out."""

    __path__: list[str] = []

    def __getattr__(self, name):
        return type(name, (Anything,), {})


class Finder:
    """Finds every module of fusion-bench to be a stand-in."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] == "fusion_bench" else None

    def create_module(self, spec):
        return Stand(spec.name)

    def exec_module(self, module):
        pass


def single(folder: pathlib.Path, file: str):
    """Load one file of fusion-bench."""
    spec = importlib.util.spec_from_file_location(f"fusion_bench.{file.removesuffix('.py').replace('/', '.')}", folder / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    from mergekit.merge_methods.api import merge_state_dicts

    folder = pathlib.Path(importlib.util.find_spec("fusion_bench").submodule_search_locations[0]) / "method"
    sys.meta_path.insert(0, Finder())
    emr = single(folder, "emr_merging/utils.py")
    emr.state_dict_sum = lambda states: {key: sum(state[key] for state in states) for key in states[0]}
    merging_with_fisher_weights = single(folder, "fisher_merging/fisher_merging.py").merging_with_fisher_weights
    iso = single(folder, "isotropic_merging/iso_utils.py")
    regmean = single(folder, "regmean/regmean.py")
    masks_of = single(folder, "tall_mask/utils.py").generate_task_masks
    tsv = single(folder, "task_singular_vector/utils/TSVM_utils.py")
    ties_merging = single(folder, "ties_merging/ties_merging_utils.py").ties_merging

    base, models = values(0), [values(number + 1) for number in range(MODELS)]
    deltas = [{key: model[key] - base[key] for key in base} for model in models]

    def kit(name, count=MODELS, **parameters):
        states = {"base": base, **dict(enumerate(models[:count]))}
        return merge_state_dicts(states, name, parameters=parameters, base="base")

    def added(vector):
        return {key: base[key] + vector[key] for key in base}

    def flat(state):
        return torch.cat([value.reshape(-1) for value in state.values()])

    def back(vector):
        parts = vector.split([math.prod(shape) for shape in SHAPES.values()])
        return {key: part.reshape(shape) for (key, shape), part in zip(SHAPES.items(), parts, strict=True)}

    vectors = torch.stack([flat(delta) for delta in deltas])
    tall = masks_of(vectors, torch.stack([flat(m) for m in models]), flat(base), tall_mask_lambda=0.4)
    unified, masks, rescalers = emr.emr_merge([{"layers.0.fc.weight": d["layers.0.fc.weight"]} for d in deltas])
    params = {key: [model[key] for model in models] for key in base}
    weights = torch.ones(MODELS) / MODELS
    found = {
        "fusion-bench": {
            "ties": added(back(ties_merging(vectors, reset_thresh=0.5, merge_func="dis-mean"))),
            "isotropic": added(iso.iso_c(deltas, accelerator="cpu")),
            "isotropic_tasks": added(iso.iso_cts(deltas, 0.5, accelerator="cpu")),
            "singular_vectors": added(tsv.compute_and_sum_svd_mem_reduction(deltas, accelerator="cpu")),
            "tall": added(back(vectors.sum(0) * tall[1])),
            "consensus": added(back(0.4 * vectors.sum(0) * (tall.sum(0) >= 2))),
            "emr": {key: base[key] + rescalers[1] * unified[key] * masks[key][1] for key in unified},
            "fisher": merging_with_fisher_weights(params, [fisher(i + 1) for i in range(MODELS)], weights, False),
            "regmean": regmean.merging_with_regmean_weights(
                {key: [v.double() for v in value] for key, value in params.items()},
                [{"layers.0.fc": gram(i + 1)} for i in range(MODELS)],
                0.9,
            ),
        },
        "mergekit": {
            "ties": kit("ties", weight=1.0, density=0.5, normalize=True, rescale=False),
            "task_arithmetic": kit("task_arithmetic", weight=0.4, normalize=False, rescale=False),
            "breadcrumbs": kit("breadcrumbs", weight=0.3, density=0.5, gamma=0.1, normalize=False, rescale=False),
            "stock": kit("model_stock"),
            "slerp": kit("slerp", 1, t=0.3),
        },
    }
    versions = {name: importlib.metadata.version(name) for name in ("mergekit", "fusion-bench", "torch")}
    plain = {
        peer: {method: {key: value.double().flatten().tolist() for key, value in state.items()} for method, state in methods.items()}
        for peer, methods in found.items()
    }
    text = json.dumps({"made_by": "tests/golden/merging_peers.py", "versions": versions, **plain})
    pathlib.Path(__file__).with_name("merging.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        main()
