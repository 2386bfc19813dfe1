"""Frames of videos by their number in presentation order, decoded with PyAV (FFmpeg).

What a container says of its frames is used only where it can be relied on: frame ``i`` is the ``i``-th of a decoding from the start, or
the file is refused.
"""

import contextlib
import io
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from PIL import Image

from unival.errors import UserError
from unival.modalities.pyav_index import Packet, is_trusted, may_lose_frames, packets_of, shown_times
from unival.modalities.pyav_pixels import pixels

INSTALL = {"video": 'pip install "unival[video]"', "sound": 'pip install "unival[audio]"'}
# How many frames there are, and the one with a number; numbers must be asked for in ascending order.
Frames = tuple[int, Callable[[int], Image.Image]]

WITHOUT_INDEX = "mpegts"  # in it seeking is a guess
RECORDINGS = ("mpegts", "mpeg")
MAX_PIXELS = 2**26  # of a frame: 8192 x 8192
STILL = "cannot decode the video: it is a picture (an [IMAGE:…] slot reads it)"
OPTIONS = {"protocol_whitelist": "none"}  # nothing but the bytes is read, whatever a playlist among them names
# What PyAV raises for broken files, beside its own errors
BROKEN = (OSError, EOFError, ValueError, LookupError, ArithmeticError, AttributeError, MemoryError, NotImplementedError)


class WrongIndexError(Exception):
    """Decoding gives other frames than the packets announced."""


@contextlib.contextmanager
def open_video(data: bytes) -> Iterator[Frames]:
    """Open a video of any format that FFmpeg knows.

    Raises:
        UserError: also when a frame is asked for that cannot be decoded.
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
    """Turn what PyAV raises for broken files, and its absence, into one line."""
    try:
        import av
    except (ImportError, OSError) as error:  # OSError: its libraries do not fit this machine
        raise UserError(f"{what}s need the package av: {INSTALL[what]} ({error})") from error
    try:
        yield
    except UserError:
        raise
    except (av.FFmpegError, *BROKEN) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, av.error.InvalidDataError):
            reason = "it is damaged"
        raise UserError(f"cannot decode the {what} ({len(data)} bytes): {reason}") from error


def open_container(data: bytes, what: str) -> Any:
    """PyAV's container of the bytes; a UserError if they are none."""
    import av

    try:
        return av.open(io.BytesIO(data), metadata_errors="ignore", options=OPTIONS)
    except av.error.InvalidDataError as error:
        raise UserError(f"cannot decode the {what} ({len(data)} bytes): it is in no known format, or cut off") from error


def video_stream(container: Any) -> Any:
    """The stream that FFmpeg's command shows: the first of those with most pixels, where being the default is worth 5 million.

    Raises:
        UserError: there is none, or only cover art.
    """
    from av.stream import Disposition

    if container.format.name.endswith("_pipe"):  # FFmpeg's readers of pictures
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
    """Refuse frames that would not fit into memory."""
    if frame.width * frame.height > MAX_PIXELS:
        raise UserError(f"cannot decode the video: its frames have {frame.width} x {frame.height} pixels, more than {MAX_PIXELS}")


class Video:
    """The bytes of a video, and how far they are decoded.

    Where decoding starts from the beginning the container is opened anew: not every one can go back.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.container: Any = None
        self.stream: Any = None
        self.codec = ""
        self.decoder: Any = None
        self.uses_alpha = True
        self.packets: list[Packet] = []
        self.times: list[int] = []  # pts of the frames, ascending, as long as the container is trusted
        self.keys: list[tuple[int, int | None]] = []  # pts and dts of the key frames that can be sought
        self.frames: Iterator[tuple[int, Any]] = iter(())  # the next ones, with their numbers
        self.given: tuple[int, Any] = (-1, None)  # the one found last

    def close(self) -> None:
        """Free the decoder and its frames."""
        self.frames, self.given = iter(()), (-1, None)
        if self.container is not None:
            self.container.close()
            self.container = None

    def reopen(self) -> None:
        """Be before the first packet."""
        self.close()
        self.container = open_container(self.data, "video")
        self.stream = video_stream(self.container)
        self.codec = self.stream.codec_context.codec.canonical_name
        self.decoder = decoder_of(self.stream)
        # Four bytes a pixel without compression: the fourth is of no use
        self.uses_alpha = (self.codec, self.container.format.name) != ("rawvideo", "avi")

    def open(self) -> int:
        """Number of frames."""
        self.reopen()
        container = self.container.format.name
        packets = self.packets = packets_of(self.container, self.stream)
        if is_trusted(packets, self.codec, container):
            self.times = sorted(shown_times(packets))
            if container != WITHOUT_INDEX:
                self.keys = sorted((packet.pts, packet.dts) for packet in packets if packet.is_key and packet.pts is not None)
            self.rewind()
            with contextlib.suppress(WrongIndexError):
                if not self.find(0).interlaced_frame:  # whose fields may have packets of their own
                    if may_lose_frames(packets):
                        self.verify()
                    return len(self.times)
        return self.count()

    def verify(self) -> None:
        """Decode all that is left.

        Raises:
            WrongIndexError: there are other frames than the packets announced.
        """
        self.find(len(self.times) - 1)
        if next(self.frames, None) is not None:
            raise WrongIndexError
        self.rewind()

    def count(self) -> int:
        """Number of frames of a decoding from the start; the index is not used any more."""
        self.times = []
        self.rewind()
        total = sum(1 for _ in self.frames)
        if not total:
            raise UserError(f"cannot decode the video ({len(self.data)} bytes): it has no frames")
        self.rewind()
        return total

    def frame(self, index: int) -> Any:
        """PyAV's frame with a number, which is not below that of the frame before."""
        if index == self.given[0]:
            return self.given[1]
        if self.times:
            with contextlib.suppress(WrongIndexError):
                self.seek(index)
                return self.find(index)
            self.rewind()
            with contextlib.suppress(WrongIndexError):
                return self.find(index)
            announced = len(self.times)
            if (total := self.count()) != announced:
                raise UserError(f"cannot decode the video: it announces {announced} frames and has {total}")
        return self.find(index)

    def find(self, index: int) -> Any:
        """Decode up to a frame.

        Raises:
            WrongIndexError: there is none, or what comes on the way is not what was announced.
        """
        for number, frame in self.frames:
            if number == index:
                self.given = number, frame
                return frame
        raise WrongIndexError

    def rewind(self) -> None:
        """Go on with the first frame."""
        self.reopen()
        self.frames = self.from_start()

    def from_start(self) -> Iterator[tuple[int, Any]]:
        """The frames from the first packet on."""
        is_recording = self.container.format.name in RECORDINGS
        for number, frame in enumerate(decoded(self.container.demux(self.stream), self.decoder, is_recording)):
            check_size(frame)
            if frame.is_corrupt:
                raise UserError(f"cannot decode the video ({len(self.data)} bytes): frame {number} is damaged")
            if self.times and frame.pts != self.times[min(number, len(self.times) - 1)]:
                raise WrongIndexError
            yield number, frame

    def seek(self, index: int) -> None:
        """Go on with the last key frame that is shown before a frame, if decoding has not come to it."""
        place = bisect_right(self.keys, self.times[index], key=lambda key: key[0]) - 1
        if place < 0 or bisect_left(self.times, self.keys[place][0]) <= self.given[0] + 1:
            return
        for time in self.keys[place]:  # by pts first: the other way round takes longer
            if time is None:
                continue
            self.container.seek(time, stream=self.stream)
            self.decoder.flush_buffers()
            packets = self.container.demux(self.stream)
            first = next(packets)
            if (first.pts, first.dts) in self.keys[: place + 1]:
                self.frames = self.from_key(first.pts, itertools.chain([first], packets))
                return

    def from_key(self, start: int, packets: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """The frames from a key frame on, which is shown at ``start``."""
        import av

        number = bisect_left(self.times, start)
        try:
            for frame in decoded(packets, self.decoder):
                if frame.pts is not None and frame.pts < start:
                    continue  # it is made from frames before the key frame
                if frame.is_corrupt or number == len(self.times) or frame.pts != self.times[number]:
                    raise WrongIndexError
                check_size(frame)
                yield number, frame
                number += 1
        except (av.FFmpegError, *BROKEN) as error:
            raise WrongIndexError from error


def decoder_of(stream: Any) -> Any:
    """PyAV's codec context for a stream; of VP8 and VP9 with transparency, only libvpx decodes that."""
    import av

    context = stream.codec_context
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.codec.canonical_name)
    if name and stream.metadata.get("alpha_mode") == "1":
        context = av.CodecContext.create(name, "r")
    context.thread_count = 1  # of each of the data workers
    context.options = {"max_pixels": str(MAX_PIXELS)}  # also where the size changes later
    return context


def decoded(packets: Iterable[Any], decoder: Any, is_recording: bool = False, may_skip: bool = False) -> Iterator[Any]:
    """The frames of packets, of which the last is empty and flushes the decoder.

    Recordings of what is broadcast start anywhere: what cannot be decoded before the first key frame is left out of them; with
    ``may_skip``, whatever cannot be decoded.
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
