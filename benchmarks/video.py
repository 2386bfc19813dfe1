"""Time of 8 of 300 frames of a video, by PyAV and by decord.

    python benchmarks/video.py [--rounds 5]

Both read the same clips in turns, in one process: H.264 of 640 x 480 with a key frame every 250 and every 30 frames, and HEVC of
1280 x 720.  Processor time, the medians of the rounds; a ratio below 1 says that PyAV is faster.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction

import av
import decord
import numpy as np
from PIL import Image

from unival.modalities.decord_reader import as_file
from unival.modalities.video import frame_indices, open_frames

FRAMES, COUNT = 300, 8
CLIPS = {
    "H.264 640x480, keyint 250": ("libx264", 640, 480, {"preset": "veryfast", "x264-params": "keyint=250:log=-1"}),
    "H.264 640x480, keyint 30": ("libx264", 640, 480, {"preset": "veryfast", "x264-params": "keyint=30:log=-1"}),
    "HEVC 1280x720": ("libx265", 1280, 720, {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=0"}),
}


def clip(codec: str, width: int, height: int, options: dict[str, str]) -> bytes:
    """A clip of clouds that drift, with some noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
    clouds = np.asarray(av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(width, height).to_ndarray(format="rgb24"))
    noise = rng.integers(0, 12, (2, height, width, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(FRAMES):
            pixels = np.roll(clouds, (i, 3 * i), (0, 1)) // 2 + noise[i % 2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def by_pyav(data: bytes) -> None:
    """Read the frames that evaluation takes."""
    with open_frames(data) as (total, frame):
        for i in frame_indices(total, COUNT, None):
            frame(i)
    assert total == FRAMES, total


def by_decord(data: bytes) -> None:
    """The same with decord alone, without looking whether it may be relied on."""
    with as_file(data) as path:
        reader = decord.VideoReader(path, num_threads=1)
        for i in frame_indices(len(reader), COUNT, None):
            Image.fromarray(reader.get_batch([i]).asnumpy()[0])


def seconds(read: Callable[[bytes], None], data: bytes) -> float:
    """Processor time."""
    start = time.process_time()
    read(data)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often every clip is read by each")
    rounds = parser.parse_args().rounds
    sys.stdout.write(f"{'clip':28}{'PyAV':>10}{'decord':>10}{'ratio':>8}\n")
    for name, how in CLIPS.items():
        data = clip(*how)
        times = [(seconds(by_pyav, data), seconds(by_decord, data)) for _ in range(rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(a / b for a, b in times)
        sys.stdout.write(f"{name:28}{1000 * ours:>7.0f} ms{1000 * theirs:>7.0f} ms{ratio:>8.2f}\n")


if __name__ == "__main__":
    main()
