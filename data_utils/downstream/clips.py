"""Cut segments out of videos, with PyAV: each becomes a file of its own, which the stream reads as any other video."""

import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from unival.errors import UserError

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")
CRF = "20"  # x264's quality: hardly to be told from the source

log = logging.getLogger(__name__)
Segment = tuple[str, float, float]  # name of the file to write, from and to in seconds


def cut_all(videos: pathlib.Path, segments: Mapping[str, Sequence[Segment]], out: pathlib.Path, workers: int) -> list[str]:
    """Cut the segments of all videos that are there; segments that are there already stay.

    Args:
        videos: folder of the videos.
        segments: name of a video, without suffix -> its segments.
        out: folder for the segments.
        workers: processes.

    Returns:
        What could not be cut, a line for each video.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(videos, segments, out))
    failed = []
    with ProcessPoolExecutor(max(1, workers)) as pool:
        running = {pool.submit(cut, path, wanted, out): path for path, wanted in jobs}
        for done, future in enumerate(as_completed(running), start=1):
            if error := future.exception():
                failed.append(f"{running[future]}: {' '.join(str(error).split()) or type(error).__name__}")
            if done % 100 == 0 or done == len(running):
                log.info("videos cut: %d of %d", done, len(running))
    return failed


def _jobs(
    videos: pathlib.Path, segments: Mapping[str, Sequence[Segment]], out: pathlib.Path
) -> Iterator[tuple[pathlib.Path, list[Segment]]]:
    if not videos.is_dir():
        raise UserError(f"--videos {videos}: there is no such folder")
    names, have = {path.name for path in videos.iterdir()}, {path.name for path in out.iterdir()}
    for video, wanted in segments.items():
        missing = [segment for segment in dict.fromkeys(wanted) if segment[0] not in have]
        path = next((videos / f"{video}{suffix}" for suffix in SUFFIXES if f"{video}{suffix}" in names), None)
        if missing and path is not None:
            yield path, missing


def cut(path: pathlib.Path, segments: Sequence[Segment], out: pathlib.Path) -> None:
    """Cut segments out of one video, without its audio. A segment has at least one frame, that which is shown at its start."""
    for name, start, end in segments:
        partial = out / f".{os.getpid()}-{name}"
        try:
            _cut(path, start, end, partial)
            partial.replace(out / name)
        finally:
            partial.unlink(missing_ok=True)


def _cut(path: pathlib.Path, start: float, end: float, out: pathlib.Path) -> None:
    import av

    with av.open(str(path)) as source, av.open(str(out), "w", format="mp4") as target:
        video = source.streams.video[0]
        source.seek(round(max(start, 0.0) * av.time_base), backward=True)
        stream = target.add_stream("libx264", rate=video.average_rate or 25, options={"crf": CRF, "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the processes share the cores
        stream.width, stream.height = video.width // 2 * 2, video.height // 2 * 2  # 4:2:0 has even sides
        length, last, written = float(1 / (video.average_rate or 25)), None, 0
        for frame in source.decode(video):
            last = frame
            if frame.time is None or frame.time + length <= start:
                continue
            if frame.time >= end and written:
                break
            _encode(frame, stream, target)
            written += 1
        if not written and last is not None:  # the segment is said to start after the end
            _encode(last, stream, target)
        target.mux(stream.encode())


def _encode(frame: Any, stream: Any, target: Any) -> None:
    frame.pts = None  # one after the other, at the mean rate
    target.mux(stream.encode(frame.reformat(stream.width, stream.height, "yuv420p")))
