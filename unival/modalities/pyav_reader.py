"""Random access to the frames of a video by their number in presentation order, decoded with PyAV (FFmpeg).

Frame ``i`` is always the ``i``-th frame of a decoding from the start, or the file is refused. The packets listed by the container are
used for seeking only where they are reliable.
"""

import contextlib
import io
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from PIL import Image

from unival.errors import UserError, counted
from unival.modalities.pyav_index import Packet, is_trusted, may_lose_frames, packets_of, shown_times
from unival.modalities.pyav_pixels import pixels

INSTALL = {"video": 'pip install "unival[video]"', "audio": 'pip install "unival[audio]"'}
# Number of frames, and a function from frame number to image; numbers must be requested in ascending order.
Frames = tuple[int, Callable[[int], Image.Image]]

WITHOUT_INDEX = "mpegts"  # a container in which seeking is not exact
SKIPS = ("h264",)  # codecs whose frames say whether another one depends on them; those that say no need not be decoded
RECORDINGS = ("mpegts", "mpeg")  # containers of broadcasts, which may start between key frames
MAX_PIXELS = 2**26  # of a frame: 8192 x 8192
STILL = "cannot decode the video: it is an image (use an [IMAGE:…] slot)"
OPTIONS = {"protocol_whitelist": "none"}  # a playlist must not open files or addresses
# What PyAV raises for broken files, in addition to its own errors
BROKEN = (OSError, EOFError, ValueError, LookupError, ArithmeticError, AttributeError, MemoryError, NotImplementedError)


class WrongIndexError(Exception):
    """Decoding returned other frames than the packets predicted."""


@contextlib.contextmanager
def open_video(data: bytes) -> Iterator[Frames]:
    """Open a video of any format that FFmpeg reads.

    Args:
        data: bytes of the file.

    Yields:
        The number of frames, and a function from frame number (in ascending order) to image.

    Raises:
        UserError: the video, or later a requested frame, cannot be decoded.
    """
    with contextlib.closing(Video(data)) as video:
        with decoding(data, "video"):
            total = video.open()

        def frame(index: int) -> Image.Image:
            with decoding(data, "video"):
                return Image.fromarray(pixels(video.frame(index), video.uses_alpha))

        yield total, frame


@contextlib.contextmanager
def decoding(data: bytes, what: str) -> Iterator[None]:
    """Turn what PyAV raises for broken files, and a missing PyAV, into a UserError of one line; ``what`` is "video" or "audio"."""
    try:
        import av
    except (ImportError, OSError) as error:  # OSError: its libraries do not run on this machine
        raise UserError(f"decoding {what} needs the package av: {INSTALL[what]} ({error})") from error
    try:
        yield
    except UserError:
        raise
    except (av.FFmpegError, *BROKEN) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, av.error.InvalidDataError):
            reason = "it is damaged"
        raise UserError(f"cannot decode the {what} ({counted(len(data), 'byte')}): {reason}") from error


def open_container(data: bytes, what: str) -> Any:
    """Open bytes as a PyAV container; raises UserError if the format is unknown."""
    import av

    # Before version 19, PyAV fails on metadata that is not UTF-8 unless told otherwise; since then it has no such argument
    lenient: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        return av.open(io.BytesIO(data), options=OPTIONS, **lenient)
    except av.error.InvalidDataError as error:
        raise UserError(f"cannot decode the {what} ({counted(len(data), 'byte')}): unknown format, or truncated") from error


def video_stream(container: Any) -> Any:
    """Choose the video stream that the ffmpeg command chooses: the one with most pixels, with a bonus of 5 million for the default.

    Raises:
        UserError: there is no video stream, or only cover art.
    """
    from av.stream import Disposition

    if container.format.name.endswith("_pipe"):  # FFmpeg's image formats
        raise UserError(STILL)
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError("cannot decode the video: it has no video stream")
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise UserError("cannot decode the video: its codec is unknown")
    stream = max(streams, key=lambda one: one.width * one.height + 5_000_000 * bool(one.disposition & Disposition.default))
    check_size(stream)
    return stream


def check_size(frame: Any) -> None:
    """Raise UserError for frames that might not fit into memory."""
    if frame.width * frame.height > MAX_PIXELS:
        raise UserError(f"cannot decode the video: its frames have {frame.width} x {frame.height} pixels, more than {MAX_PIXELS}")


class Video:
    """A video that is being decoded.

    To decode from the start again, the container is opened again, because not every format can seek to the start, and a decoder keeps
    what it knows of earlier frames. After the packets were listed, a seek that leads to the first of them does the same in less time.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.container: Any = None
        self.stream: Any = None
        self.codec = ""
        self.decoder: Any = None
        self.uses_alpha = True
        self.packets: list[Packet] = []
        self.times: list[int] = []  # pts of the frames, ascending; empty if the packets are not trusted
        self.keys: list[tuple[int, int | None]] = []  # pts and dts of the key frames to seek to
        self.frames: Iterator[tuple[int, Any]] = iter(())  # the next frames, with their numbers
        self.given: tuple[int, Any] = (-1, None)  # number and frame returned last
        self.skips = False  # whether frames that no other one depends on are not decoded before the requested one
        self.origin = 0  # number of a frame; decoding was started at the key frame to seek to for it
        self.sought = 0  # pts of the requested frame, if ``skips``
        self.skipped: set[int] = set()  # pts of the frames that the decoder was allowed to skip
        self.is_unused = True  # whether nothing was decoded since the container was opened

    def close(self) -> None:
        """Free the decoder and its frames."""
        self.frames, self.given = iter(()), (-1, None)
        if self.container is not None:
            self.container.close()
            self.container = None

    def reopen(self) -> None:
        """Open the container again, before its first packet."""
        self.close()
        self.is_unused = True
        self.container = open_container(self.data, "video")
        self.stream = video_stream(self.container)
        self.codec = self.stream.codec_context.codec.canonical_name
        # What a decoder puts in place of a damaged or missing frame depends on the frames before it, also on those that it could skip
        self.decoder = decoder_of(self.stream, is_strict=self.skips)
        # Uncompressed AVI with four bytes per pixel: the fourth is padding, not alpha
        self.uses_alpha = (self.codec, self.container.format.name) != ("rawvideo", "avi")

    def open(self) -> int:
        """Open the video and return its number of frames."""
        self.reopen()
        container = self.container.format.name
        packets = self.packets = packets_of(self.container, self.stream)
        if is_trusted(packets, self.codec, container):
            self.times = sorted(shown_times(packets))
            if container != WITHOUT_INDEX:
                self.keys = sorted((packet.pts, packet.dts) for packet in packets if packet.is_key and packet.pts is not None)
            may_lose = may_lose_frames(packets)
            # A strict decoder may refuse what depends on frames before a key frame
            is_closed = packets[-1].continues and all(packet.is_entry for packet in packets if packet.is_key)
            for skips in (True, False) if self.codec in SKIPS and is_closed and not may_lose else (False,):
                self.skips = skips
                self.rewind()
                with contextlib.suppress(WrongIndexError):
                    if self.find(0).interlaced_frame:  # interlaced video may have one packet per field
                        break
                    if may_lose:
                        self.verify()
                    return len(self.times)
        return self.count()

    def verify(self) -> None:
        """Decode all remaining frames and compare them with the packets.

        Raises:
            WrongIndexError: there are other frames than the packets predicted.
        """
        self.find(len(self.times) - 1)
        if next(self.frames, None) is not None:
            raise WrongIndexError
        self.rewind()

    def count(self) -> int:
        """Count the frames by decoding from the start; the packets are not trusted from here on."""
        self.times, self.skips = [], False
        self.rewind()
        total = sum(1 for _ in self.frames)
        if not total:
            raise UserError(f"cannot decode the video ({counted(len(self.data), 'byte')}): it has no frames")
        self.rewind()
        return total

    def frame(self, index: int) -> Any:
        """PyAV's frame number ``index``, which must not be below that of the previous call."""
        if index == self.given[0]:
            return self.given[1]
        if self.times:
            with contextlib.suppress(WrongIndexError):
                self.seek(index)
                return self.find(index)
            if self.skips:  # once more from the same key frame, with all frames
                self.skips, origin = False, self.origin
                self.rewind()
                with contextlib.suppress(WrongIndexError):
                    self.seek(origin)
                    return self.find(index)
            self.rewind()
            with contextlib.suppress(WrongIndexError):
                return self.find(index)
            announced = len(self.times)
            if (total := self.count()) != announced:
                raise UserError(f"cannot decode the video: expected {announced} frames by its packets, got {total}")
        return self.find(index)

    def find(self, index: int) -> Any:
        """Decode up to frame number ``index`` and return it.

        Raises:
            WrongIndexError: there is no such frame, or a frame on the way differs from what the packets predicted.
        """
        self.sought = self.times[index] if self.skips else 0
        for number, frame in self.frames:
            if number == index:
                self.given = number, frame
                return frame
            if number > index:
                break  # the requested frame was left out
        raise WrongIndexError

    def rewind(self) -> None:
        """Continue with the first frame."""
        packets = self.from_first() if self.is_unused and self.keys else None
        if packets is None:
            self.reopen()
            packets = self.container.demux(self.stream)
        self.is_unused = False
        self.skipped, self.origin = set(), 0
        self.frames = self.from_start(packets)

    def from_first(self) -> Iterator[Any] | None:
        """Packets from the first one on, for a decoder that was not used yet; None where a seek does not lead to it."""
        import av

        with contextlib.suppress(av.FFmpegError):
            found = self.seek_key(0)
            if found is not None and (found[0].pts, found[0].dts) == (self.packets[0].pts, self.packets[0].dts):
                self.decoder = decoder_of(self.stream, is_strict=self.skips)
                return found[1]
        return None

    def from_start(self, packets: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers, from the first packet on."""
        import av

        is_recording, number = self.container.format.name in RECORDINGS, 0
        try:
            for frame in decoded(self.needed(packets), self.decoder, is_recording):
                check_size(frame)
                number = self.number_of(frame, number)
                if frame.is_corrupt:
                    raise UserError(f"cannot decode the video ({counted(len(self.data), 'byte')}): frame {number} is damaged")
                if self.times and frame.pts != self.times[min(number, len(self.times) - 1)]:
                    raise WrongIndexError
                yield number, frame
                number += 1
        except (av.FFmpegError, UserError, *BROKEN) as error:
            if self.skips:  # the decoder is strict
                raise WrongIndexError from error
            raise

    def seek(self, index: int) -> None:
        """Continue with the last key frame at or before frame ``index``, unless decoding is already past it."""
        place = bisect_right(self.keys, self.times[index], key=lambda key: key[0]) - 1
        if place < 0 or bisect_left(self.times, self.keys[place][0]) <= self.given[0] + 1:
            return
        found = self.seek_key(place)
        self.decoder.flush_buffers()
        if found is not None:
            self.origin = index
            self.frames = self.from_key(found[0].pts, found[1])

    def seek_key(self, place: int) -> tuple[Any, Iterator[Any]] | None:
        """Go to one of the key frames, or to one before it: its packet, and the packets from there on; None if that failed."""
        for time in self.keys[place]:  # pts first, which is faster
            if time is None:
                continue
            self.container.seek(time, stream=self.stream)
            packets = self.container.demux(self.stream)
            first = next(packets)
            if (first.pts, first.dts) in self.keys[: place + 1]:
                return first, itertools.chain([first], packets)
        return None

    def from_key(self, start: int, packets: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers, from the key frame with pts ``start`` on."""
        import av

        number = bisect_left(self.times, start)
        try:
            for frame in decoded(self.needed(packets), self.decoder):
                if frame.pts is not None and frame.pts < start:
                    continue  # depends on frames before the key frame
                number = self.number_of(frame, number)
                if frame.is_corrupt or number == len(self.times) or frame.pts != self.times[number]:
                    raise WrongIndexError
                check_size(frame)
                yield number, frame
                number += 1
        except (av.FFmpegError, *BROKEN) as error:
            raise WrongIndexError from error

    def number_of(self, frame: Any, least: int) -> int:
        """The number of a decoded frame: ``least``, or more where frames before it were skipped.

        Raises:
            WrongIndexError: it is interlaced, so that there may be two packets for it, and frames were skipped.
        """
        if self.skipped and frame.interlaced_frame:
            raise WrongIndexError
        while least < len(self.times) and self.times[least] in self.skipped and self.times[least] != frame.pts:
            least += 1
        return least

    def needed(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Packets; before each, the decoder is told whether it may skip a frame that no other one depends on.

        Only frames that are shown before one that was decoded earlier are skipped: some containers store the order of decoding as times.
        """
        newest, is_told = -math.inf, None  # whether the decoder was told that it may skip
        for packet in packets:
            if self.skips:
                may_skip = packet.pts is not None and packet.pts < min(newest, self.sought)
                if may_skip != is_told:
                    self.decoder.skip_frame, is_told = "NONREF" if may_skip else "DEFAULT", may_skip
                if may_skip:
                    self.skipped.add(packet.pts)
                elif packet.pts is not None:
                    newest = max(newest, packet.pts)
            yield packet


def decoder_of(stream: Any, is_strict: bool = False) -> Any:
    """PyAV's codec context for a stream; libvpx for VP8 and VP9 with transparency, which only libvpx decodes.

    A strict one raises where it would repair a damaged frame.
    """
    import av

    context = stream.codec_context
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.codec.canonical_name)
    if name and stream.metadata.get("alpha_mode") == "1":
        context = av.CodecContext.create(name, "r")
    context.thread_count = 1  # per data worker
    context.options = {"max_pixels": str(MAX_PIXELS)}  # holds also when the size changes within the video
    if is_strict:
        context.options |= {"err_detect": "explode"}
    return context


def decoded(packets: Iterable[Any], decoder: Any, is_recording: bool = False, may_skip: bool = False) -> Iterator[Any]:
    """Decode packets.

    Args:
        packets: PyAV's packets; the last one is empty and flushes the decoder.
        decoder: PyAV's codec context.
        is_recording: skip packets before the first key frame that cannot be decoded: broadcasts are recorded from any frame on.
        may_skip: skip all packets that cannot be decoded.

    Yields:
        PyAV's frames.
    """
    import av

    for packet in packets:
        is_recording = is_recording and not packet.is_keyframe
        try:
            frames = decoder.decode(packet)
        except av.error.InvalidDataError:
            if not (is_recording or may_skip):
                raise
            continue
        yield from frames
