"""Read the size of a JPEG XL image from its header (ISO/IEC 18181-1). The plugin of Pillow would decode the file."""

from __future__ import annotations

from collections.abc import Iterator

BARE = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_HEAD = 64  # bytes; the sizes and flags that are read have at most 30
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_LENGTHS = (9, 13, 18, 30)


class _Bits:
    """Reads the bits of a codestream, starting with the lowest bit of each byte."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a JPEG XL image that ends in its header")
        bits = self._value & ((1 << count) - 1)
        self._value >>= count
        return bits

    def size(self) -> tuple[int, int]:
        """Read a SizeHeader, and return width and height."""
        small = self(1)
        height = 8 * (self(5) + 1) if small else 1 + self(_LENGTHS[self(2)])
        ratio = self(3)
        if ratio:
            over, under = _RATIOS[ratio - 1]
            return height * over // under, height
        return (8 * (self(5) + 1) if small else 1 + self(_LENGTHS[self(2)])), height


def jxl_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels, before the orientation is applied.

    Raises:
        ValueError: if the file is not a JPEG XL image, is animated, or has a preview.
    """
    bits = _Bits(_codestream(data))
    if bits(16) != int.from_bytes(BARE, "little"):
        raise ValueError("a JPEG XL image without a header")
    size = bits.size()
    if not bits(1) and bits(1):  # the metadata have further fields
        bits(3)  # orientation
        if bits(1):
            bits.size()
        if bits(1):
            raise ValueError("a JPEG XL image with a preview; save it without one")
        if bits(1):
            raise ValueError("an animated JPEG XL image; save its first frame")
    return size


def _codestream(data: bytes) -> bytes:
    """Return the first bytes of the codestream."""
    if not data.startswith(CONTAINER):
        return data[:_HEAD]
    for kind, start in _boxes(data):
        if kind == b"jxlc":
            return data[start : start + _HEAD]
        if kind == b"jxlp":
            return data[start + 4 : start + 4 + _HEAD]
    raise ValueError("a JPEG XL file without an image")


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Iterate over the boxes of a container: type and start of the content, up to a box with an invalid length."""
    at = 0
    while at + 8 <= len(data):
        length, head = int.from_bytes(data[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        yield data[at + 4 : at + 8], at + head
        if length < head:
            return
        at += length
