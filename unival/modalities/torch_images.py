"""Read image files as tensors: JPEGs decoded by torchvision, everything else by Pillow, all resized by torch.

Decoded pixels are the same bits as Pillow's. Resized ones differ by at most 1 of 255, since torch rounds the weights of its filter to 16
bits (few in 10 million differ by 2). Pillow also decodes what torchvision refuses, all JPEGs if torchvision has no decoder, and says what
is wrong with a file; libjpeg in torchvision notes damage that can be decoded on standard error.
"""

import contextlib

import numpy as np
import torch
from PIL import Image
from PIL import __version__ as pillow_version
from torch import Tensor
from torch.nn.functional import interpolate

from unival.modalities.pillow import decoded, decoding, open_scaled
from unival.modalities.pixels import orientation

# From here on Pillow resizes the height first where that shrinks more than twice as much as the width
HEIGHT_FIRST = int(pillow_version.split(".")[0]) >= 13


def has_decoder() -> bool:
    """Whether torchvision was built with image decoders; imports it, which is to be done before worker processes are forked."""
    import torchvision.io  # noqa: F401  registers its decoders with torch

    return hasattr(torch.ops.image, "decode_jpeg")


def read_square(data: bytes, side: int, least: int, published: bool, by_torchvision: bool) -> tuple[Tensor, tuple[int, int]]:
    """Read the first image of a file and resize it to a square by bicubic interpolation.

    Args:
        data: bytes of the file.
        side: pixels per side of the square.
        least: see :func:`unival.modalities.pillow.read_sized_image`.
        published: see there.
        by_torchvision: whether torchvision decodes JPEGs, see :func:`has_decoder`.

    Returns:
        ``3 x side x side`` pixels, uint8, and the width and height of the image.

    Raises:
        UserError: see there.
    """
    with decoding("image", data):
        file, full = open_scaled(data, least, published)
        is_plain = file.format == "JPEG" and file.mode in ("L", "RGB") and file.size == full
        if by_torchvision and is_plain and (published or orientation(file, decode=False) == 1):
            with contextlib.suppress(RuntimeError):  # Pillow says what is wrong with the file
                return resized(decode_jpeg(data), (side, side)), full
        image, size = decoded(file, data, full, published)
    return resized(as_tensor(image), (side, side)), size


def decode_jpeg(data: bytes) -> Tensor:
    """Decode a JPEG by torchvision: ``channels x height x width``, uint8, with 1 channel if it is grey, else 3.

    Raises:
        RuntimeError: it cannot be decoded.
    """
    import torchvision.io  # noqa: F401  a spawned worker process has not imported it yet

    return torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0)  # 0: channels as they are


def as_tensor(image: Image.Image) -> Tensor:
    """The pixels of Pillow's image in mode RGB or L: ``channels x height x width``."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def resized(pixels: Tensor, to: tuple[int, int]) -> Tensor:
    """Pixels ``c x height x width``, uint8, with 1 or 3 channels -> ``3 x height' x width'``, as Pillow's bicubic interpolation gives them.

    Channels that are last in memory, as decoders write them, stay there.

    Args:
        pixels: see above.
        to: width and height to resize to.
    """
    (height, width), (to_width, to_height) = pixels.shape[1:], to
    pixels = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # with strides by which torch sees that channels are last: it copies nothing
    if HEIGHT_FIRST and height > to_height and height - to_height > 2 * (width - to_width):
        pixels = interpolate(pixels, (to_height, width), mode="bicubic", antialias=True)
    return interpolate(pixels, (to_height, to_width), mode="bicubic", antialias=True)[0].expand(3, -1, -1)
