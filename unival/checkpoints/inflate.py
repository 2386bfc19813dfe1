"""Inflate weights of an image network to the video network of the same shape (Carreira & Zisserman 2017, I3D, section 2.2)."""

import logging

from torch import Tensor

from unival.errors import UserError

logger = logging.getLogger(__name__)

CLASSIFIER = "fc."
COUNTER = "num_batches_tracked"
SHOWN = 5  # most keys of a kind in a message


def inflate(state_2d: dict[str, Tensor], shapes_3d: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Repeat 2-D kernels over time and divide by their length, so that a still video has the features of its image.

    This does not hold at the first and last frames, where the 3-D network sees padding of zeros.

    Args:
        state_2d: a ResNet or ResNeXt of torchvision or timm; its classifier is left out, which is logged.
        shapes_3d: key -> shape of the video network's state.

    Raises:
        UserError: keys or shapes do not fit; the first of them are named.
    """
    ignored = [key for key in state_2d if key.startswith(CLASSIFIER)]
    if ignored:
        logger.info("the image network's classifier is not used: %s", ", ".join(ignored))
    state = {key: value for key, value in state_2d.items() if key not in ignored and not key.endswith(COUNTER)}
    out, wrong = {}, []
    for key, shape in shapes_3d.items():
        if key in state:
            value = _over_time(state[key], shape)
            out[key] = value
            if tuple(value.shape) != tuple(shape):
                wrong.append(f"{key} is {tuple(state[key].shape)}, the video network's is {tuple(shape)}")
    problems = [
        *_listed("missing", [key for key in shapes_3d if key not in state]),
        *_listed("unexpected", [key for key in state if key not in shapes_3d]),
        *_listed("other shapes:", wrong),
    ]
    if problems:
        raise UserError(f"these image weights do not fit the video network: {'; '.join(problems)}")
    return out


def _over_time(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Convert a kernel ``out x in x height x width`` to ``out x in x time x height x width``; other tensors stay as they are."""
    if value.dim() != 4 or len(shape) != 5:
        return value
    length = shape[2]
    return value[:, :, None].repeat(1, 1, length, 1, 1) / length


def _listed(kind: str, keys: list[str]) -> list[str]:
    """The first keys of a kind, and the number of the others."""
    if not keys:
        return []
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{kind} {', '.join(keys[:SHOWN])}{more}"]
