"""The headers of H.264 slices: whether a stream has lost frames that others depend on (ITU-T H.264, 7.3 and 7.4.3)."""

from collections.abc import Iterable

WITH_CHROMA = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244)  # profile_idc whose SPS describes the chroma format
HEADER = 48  # bytes read of a unit, more than enough for what is read of it
IDR, SPS = 5, 7  # types of NAL units; slices of frames have types 1 to 5


class Bits:
    """Reads numbers from the bits of a NAL unit that follow its first byte."""

    def __init__(self, unit: bytes):
        data = unit[1:HEADER].replace(b"\0\0\3", b"\0\0")  # bytes that keep start codes out of the content
        self.bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
        self.at = 0

    def fixed(self, width: int) -> int:
        """The next ``width`` bits; raises ValueError past the end."""
        self.at += width
        return int(self.bits[self.at - width : self.at], 2)

    def golomb(self) -> int:
        """The next exponential Golomb code; raises ValueError past the end."""
        zeros = self.bits.index("1", self.at) - self.at
        self.at += zeros
        return self.fixed(zeros + 1) - 1


class Order:
    """Follows the frame numbers of a stream: every frame must continue those that later ones depend on."""

    def __init__(self) -> None:
        self.is_whole = True  # nothing is missing so far
        self.width = 0  # bits of frame numbers; 0: no SPS yet
        self.newest: int | None = None  # number of the last frame that others may depend on

    def add(self, units: Iterable[bytes]) -> None:
        """Add the NAL units of the next packet (their first :data:`HEADER` bytes), or of the stream's header."""
        try:
            for unit in units if self.is_whole else ():
                kind = unit[0] & 31
                if kind == SPS:
                    self.set_width(Bits(unit))
                elif 1 <= kind <= IDR:
                    self.is_whole = self.continues(unit[0], Bits(unit))
                    break  # the other slices of the frame have the same number
        except (ValueError, IndexError):
            self.is_whole = False

    def set_width(self, bits: Bits) -> None:
        """Read an SPS; raises ValueError for streams that are not followed: several widths, colour planes apart, scaling matrices."""
        profile = bits.fixed(24) >> 16
        bits.golomb()
        if profile in WITH_CHROMA:
            if bits.golomb() == 3 and bits.fixed(1):
                raise ValueError
            bits.golomb(), bits.golomb()  # depths of luma and chroma
            if bits.fixed(2) & 1:
                raise ValueError
        width = bits.golomb() + 4
        if self.width not in (0, width):
            raise ValueError
        self.width = width

    def continues(self, head: int, bits: Bits) -> bool:
        """Whether the slice is the first one of a frame whose number follows."""
        first = bits.golomb()
        bits.golomb(), bits.golomb()  # type, PPS
        number = bits.fixed(self.width)
        newest, is_reference = self.newest, head & 0x60
        if is_reference:
            self.newest = number
        if head & 31 == IDR:
            return first == 0 and number == 0
        return first == 0 and newest is not None and number == (newest + 1) % (1 << self.width)
