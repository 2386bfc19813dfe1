"""Images as numpy arrays and tensors, as the Python API takes them."""

import numpy as np
from PIL import Image
from torch import Tensor

from unival.errors import UserError
from unival.modalities.pillow import as_file

CHANNELS = (1, 3, 4)


def image_file(value: np.ndarray | Tensor) -> bytes:
    """Convert an array or a tensor to bytes of PNG.

    Args:
        value: ``height x width``, ``height x width x channels`` or (tensors only) ``channels x height x width``, with 1, 3 or 4
            channels (RGB and alpha), of uint8, uint16, bool or floats from 0 to 1.

    Raises:
        UserError: it is not such an image.
    """
    return as_file(as_image(channels_last(value) if isinstance(value, Tensor) else value))


def channels_last(value: Tensor) -> np.ndarray:
    """Convert a tensor to an array with channels last."""
    value = value.detach().cpu()
    if value.is_floating_point():
        value = value.float()  # numpy has no bfloat16
    is_first = value.dim() == 3 and (value.size(0) in (1, 3) or (value.size(0) == 4 and value.size(2) not in CHANNELS))
    return (value.permute(1, 2, 0) if is_first else value).numpy()


def as_image(pixels: np.ndarray) -> Image.Image:
    """Convert an array of any byte order to an 8-bit image."""
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in CHANNELS)
    is_float = np.issubdtype(pixels.dtype, np.floating)
    if not (is_float or pixels.dtype in (np.uint8, np.uint16, np.bool_)) or not is_image or not pixels.size:
        shape = " x ".join(map(str, pixels.shape))
        raise UserError(
            f"an array of {pixels.dtype}, {shape}, is not an image: expected uint8, uint16, bool or floats from 0 to 1, as h x w, h x w x 3"
            " (or 4, with alpha) or (tensors) 3 x h x w"
        )
    if is_float and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise UserError(
            f"an array of {pixels.dtype} from {pixels.min():g} to {pixels.max():g} is not an image: floats must be 0 to 1, or give uint8"
        )
    if pixels.dtype != np.uint8:
        white = 2**16 - 1 if pixels.dtype == np.uint16 else 1
        pixels = np.round(pixels.astype(np.float64) * (255 / white)).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
