"""Read public weights of image, video and audio CNNs under the keys of our backbones.

Supported are ResNets of timm and torchvision, the 3-D networks of Hara et al. (2018) trained on Kinetics, PANNs (Kong et al. 2020), and
whole UnIVAL or OFA checkpoints, whose part for the modality is used.  All other keys of a file are left out, and logged with the reason.
"""

import pathlib
import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from unival.backbones.layouts import RESNETS, RESNETS3D
from unival.backbones.pann import PANNS
from unival.checkpoints import files
from unival.checkpoints.inflate import inflate as inflate_weights
from unival.checkpoints.summary import non_finite, type_name
from unival.errors import UserError, counted, flag
from unival.modalities import with_media
from unival.modalities.base import Network, Shapes

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHOWN = 8  # most keys in a message

MEDIA_PREFIX = "encoder.media."


def networks() -> dict[str, Network]:
    """The backbones: modality's name in lower case -> network."""
    return {name: media.network for name, media in with_media().items() if media.network is not None}


def parts() -> dict[str, tuple[str, ...]]:
    """Prefixes of the backbones in whole checkpoints: modality -> ours, published (UnIVAL and OFA), and others."""
    published = {name: media.published for name, media in with_media().items()}
    return {
        name: (f"{MEDIA_PREFIX}{name}.backbone.", *((f"encoder.embed_{name}s.", *theirs.parts) if theirs else ()))
        for name, theirs in published.items()
    }


COUNTER = ".num_batches_tracked"

# How networks are recognised: ours by the tables that build them, and some of others.
DEPTHS: dict[tuple[bool, tuple[int, ...]], str] = {  # (whether blocks are bottlenecks, blocks per stage) -> number in the name
    (layout.is_bottleneck, layout.blocks): re.findall(r"\d+", name)[-1] for name, layout in (RESNETS | RESNETS3D).items()
}
FAMILIES: dict[tuple[int, int, int], str] = {  # (kernel dimensions, groups, width of the first stage) -> name
    (2, 1, 64): "resnet{}",
    (2, 1, 128): "wide_resnet{}_2",
    (2, 32, 128): "resnext{}_32x4d",
    (3, 1, 64): "resnet3d{}",
    (3, 32, 128): "resnext3d{}",
}
AUDIO_NETWORKS: dict[tuple[int, int], str] = {(len(plan.channels), plan.kernel): name for name, plan in PANNS.items()}


def backbone_weights(
    path: str | pathlib.Path, kind: str, shapes: Shapes, inflate: bool = False
) -> tuple[dict[str, Tensor], list[str]]:
    """Read a backbone's weights from a public file.

    Args:
        path: a file (or sharded folder) that :func:`unival.checkpoints.files.read` takes.
        kind: a modality's name in lower case, such as ``image``.
        shapes: keys and shapes of the backbone to fill: ``{key: tuple(value.shape)}`` of its state dict.
        inflate: the file holds a 2-D network for a 3-D backbone: repeat its kernels over time.

    Returns:
        The complete state dict, which loads strictly, and lines for the log: what was left out and why.

    Raises:
        UserError: the file cannot be read or has no such backbone, or shapes, types or values are wrong.
    """
    network = networks()[kind]
    if inflate and not network.inflated:
        able = ", ".join(name for name, other in networks().items() if other.inflated)
        raise UserError(f"{path}: only a {able} backbone is inflated from a 2-D network, not one for {kind}")
    planar = next(name for name, media in with_media().items() if media.always)
    state, lines = _find(files.weights(files.read(path), path), planar if inflate else kind, str(path))
    state, left_out = _leave_out(state, network, shapes)
    lines += left_out
    expected = {key: _planar(shape) for key, shape in shapes.items()} if inflate else shapes
    problems = _problems(state, expected)
    if problems:
        shown = "; ".join(problems[:SHOWN]) + (f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else "")
        hint = _hint(shapes_of(state), kind, expected)
        raise UserError(f"{path}: does not fit the {kind} backbone ({counted(len(problems), 'key')}): {shown}{hint}")
    _check_values(state, str(path))
    if inflate:
        state = inflate_weights(state, dict(shapes))
        lines.append("2-D kernels repeated over time (inflation)")
    return _State(state), lines


class _State(OrderedDict[str, Tensor]):
    """A state dict whose metadata gives the current version of batch norm: to older versions torch adds counters, which ours lack."""

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__(state)
        names = [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]
        self._metadata = {name: {"version": 2} for name in names}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a state dict."""
    return {key: tuple(value.shape) for key, value in state.items()}


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """Name of the network in a file of weights (see :func:`looks_like`); None unless there is exactly one."""
    for network in networks().values():
        found = _prefixes(state, network.probes)
        if len(found) == 1:
            inner = {key[len(found[0]) :]: value for key, value in state.items() if key.startswith(found[0])}
            return looks_like(shapes_of(inner))
    return None


def _find(state: Mapping[str, Tensor], kind: str, path: str) -> tuple[dict[str, Tensor], list[str]]:
    """Find the backbone's weights, and remove the prefix of their keys."""
    places, probes = parts(), networks()[kind].probes
    prefix = next((part for part in places[kind] if any(key.startswith(part) for key in state)), None)
    if prefix is None:
        other = [k for k, prefixes in places.items() if any(key.startswith(prefixes) for key in state)]
        if other:
            raise UserError(f"{path}: is a whole checkpoint without a part for {kind}; it has {', '.join(other)}")
        found = _prefixes(state, probes)
        if not found:
            raise UserError(
                f"{path}: has no {kind} backbone: none of its keys is {' or '.join(probes)};"
                f" they are {_shorten(sorted(state))}"
            )
        if len(found) > 1:
            raise UserError(f"{path}: holds several networks ({', '.join(map(repr, found))}); save one of them by itself")
        prefix = found[0]
    inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    outside = sorted(key for key in state if not key.startswith(prefix))
    lines = [f"taken from {prefix}*"] if prefix else []
    if outside:
        lines.append(f"left out {counted(len(outside), 'key')} outside {prefix}*: {_shorten(outside)}")
    return inner, lines


def _prefixes(state: Mapping[str, Tensor], probes: tuple[str, ...]) -> list[str]:
    """The prefixes with which a state dict has all of the keys ``probes``."""
    first = probes[0]
    candidates = [key[: -len(first)] for key in state if key == first or key.endswith("." + first)]
    return sorted(prefix for prefix in candidates if all(prefix + probe in state for probe in probes))


def _leave_out(state: dict[str, Tensor], network: Network, shapes: Shapes) -> tuple[dict[str, Tensor], list[str]]:
    """Drop keys that our backbones do not use, and rename the rest."""
    kept: dict[str, Tensor] = {}
    dropped: dict[str, list[str]] = {}
    stages = {match[0] for key in shapes if (match := re.match(r"layer\d+\.", key))}
    for key, value in state.items():
        stage = re.match(r"layer\d+\.", key)
        reason = next((text for start, text in network.left_out.items() if key.startswith(start)), None)
        if key in shapes:
            reason = None
        elif key.endswith(COUNTER):
            reason = "counters of batches are not used"
        elif stage and stages and stage[0] not in stages:
            reason = f"the backbone has {counted(len(stages), 'stage')}, {stage[0]}* is beyond them"
        if reason is None:
            kept[network.renamed.get(key, key)] = value
        else:
            dropped.setdefault(reason, []).append(key)
    return kept, [f"left out {_shorten(keys)}: {reason}" for reason, keys in dropped.items()]


def _planar(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a 3-D kernel without its time axis; other shapes are returned as they are."""
    return tuple(shape[:2] + shape[3:]) if len(shape) == 5 else tuple(shape)


def _problems(state: Mapping[str, Tensor], shapes: Shapes) -> list[str]:
    """Describe keys with wrong shapes, missing and unexpected keys; shapes come first, as they tell most."""
    found = [
        f"{key} is {tuple(state[key].shape)}, the backbone's is {tuple(shape)}"
        for key, shape in shapes.items()
        if key in state and tuple(state[key].shape) != tuple(shape)
    ]
    found += [f"missing {key}" for key in shapes if key not in state]
    return found + [f"unexpected {key}" for key in state if key not in shapes]


def looks_like(shapes: Shapes) -> str | None:
    """The name of a network by its keys and shapes: ``resnet101``, ``resnext3d50``, ``cnn14``, …; None if it is unknown.

    A network without its last stage (``layer4``) gets the name of the whole one.
    """
    audio = shapes.get("conv_block1.conv1.weight", ())
    if len(audio) == 4:
        return AUDIO_NETWORKS.get((len({key.split(".")[0] for key in shapes if key.startswith("conv_block")}), audio[-1]))
    kernel = shapes.get("layer1.0.conv2.weight", ())
    if len(kernel) < 4:
        return None
    found = {(int(m[1]), int(m[2])) for key in shapes if (m := re.match(r"layer(\d+)\.(\d+)\.", key))}
    blocks = tuple(sum(1 for stage, _ in found if stage == wanted) for wanted in sorted({stage for stage, _ in found}))
    bottleneck = "layer1.0.conv3.weight" in shapes
    family = FAMILIES.get((len(kernel) - 2, kernel[0] // kernel[1], kernel[0]))
    depth = next((depth for (kind, layers), depth in DEPTHS.items() if kind == bottleneck and layers[: len(blocks)] == blocks), None)
    return family.format(depth) if family and depth else None


def _hint(found: Shapes, kind: str, expected: Shapes) -> str:
    """Describe the network that a file seems to hold, and the option that takes it."""
    name, own = looks_like(found), looks_like(expected)
    dims, own_dims = len(found.get("conv1.weight", ())), len(expected.get("conv1.weight", ()))
    network = networks()[kind]
    if network.inflated and dims == 4 and own_dims == 5:
        return f" (a 2-D network{f', {name}' if name else ''}: {flag(network.inflated)} repeats its kernels over time)"
    if network.inflated and dims == 5 and own_dims == 4:
        return f" (a 3-D network: leave out {flag(network.inflated)})"
    filters = found.get("mel_filters", ())
    if len(filters) == 2 and filters != expected.get("mel_filters"):
        return f" (the file is for --audio-window-size {2 * (filters[0] - 1)} --audio-mel-bins {filters[1]})"
    if name is None or name == own:
        return ""
    if name not in network.choices:
        return f" (looks like a {name}: there is no such {kind} backbone here; choices are {', '.join(network.choices)})"
    return f" (looks like a {name}; the backbone is a {own}: choose with {flag(network.option)})"


def _check_values(state: Mapping[str, Tensor], path: str) -> None:
    """Refuse weights that are not of a floating-point type, and values that are not finite."""
    odd = [f"{key} ({type_name(value)})" for key, value in state.items() if value.dtype not in FLOATS and not key.endswith(COUNTER)]
    if odd:
        raise UserError(f"{path}: {counted(len(odd), 'key')} not of a floating-point type: {_shorten(odd)}")
    broken = non_finite(state)
    if broken:
        raise UserError(f"{path}: {counted(len(broken), 'key')} with values that are infinite or not a number: {_shorten(list(broken))}")


def _shorten(keys: list[str]) -> str:
    """The first keys, and the number of the others."""
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
