"""Write videos: animated WebP with Pillow, MP4 with PyAV if it is installed."""

import importlib.util
import pathlib

import numpy as np
from PIL import Image

from .errors import UserError

_WEBP_EFFORT = 2  # 0..6: a little larger than with 6, several times faster


def check_format(video_format: str) -> None:
    """Raise UserError if videos of this format cannot be written here."""
    if video_format == "mp4" and importlib.util.find_spec("av") is None:
        raise UserError("--video-format mp4: needs the package av (pip install av), or give --video-format webp")


def save(frames: np.ndarray, path: pathlib.Path, fps: int, quality: int) -> None:
    """Write ``frames`` (T x H x W x 3, uint8), at ``fps`` frames per second; the suffix of ``path`` selects the format.

    WebP merges equal consecutive frames into one of longer duration.
    """
    if path.suffix == ".mp4":
        _save_mp4(frames, path, fps, quality)
        return
    first, *others = (Image.fromarray(frame) for frame in frames)
    times = [round(1000 * number / fps) for number in range(len(frames) + 1)]
    durations = [end - start for start, end in zip(times[:-1], times[1:], strict=True)]  # ms, of each frame
    first.save(
        path, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=quality,
        method=_WEBP_EFFORT,
    )  # fmt: skip


def _save_mp4(frames: np.ndarray, path: pathlib.Path, fps: int, quality: int) -> None:
    import av

    height, width = frames.shape[1:3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on any machine
        # B-frames off: with them, libx264's output for the same frames changed from call to call
        crf = round(40 - 0.3 * quality)  # quality 100: 10, 92: 12
        stream.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "bframes=0"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def load(path: pathlib.Path) -> np.ndarray:
    """The frames of a video that ``save`` wrote: T x H x W x 3, uint8."""
    if path.suffix == ".mp4":
        import av

        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)
