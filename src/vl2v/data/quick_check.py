"""A fast check of plain JPEG and PNG files, which does not open them with Pillow."""

from __future__ import annotations

import zlib

from PIL import Image

from vl2v_runtime.stripping import PNG

SMALL = 2**16  # bytes; larger files gain little
LARGEST = 2**22  # pixels
JPEG = b"\xff\xd8\xff"
FRAMES = (0xC0, 0xC2)  # baseline and progressive
OTHERS = (0xC4, 0xDB, 0xDD, 0xFE)  # tables, restart interval, comment: the decoder rejects what Pillow rejects
SCAN, JFIF = 0xDA, 0xE0
MODES = {1: "L", 3: "RGB"}  # by number of components


def certainly_readable(data: bytes) -> bool:
    """Return whether an image file is certainly readable. The result for any other file is False.

    Only files without metadata that Pillow interprets are checked: a JPEG file of one or three components is decoded at
    an eighth of its size, which reads all of its data; the checksums, length and filters of a PNG file of 8-bit grey
    or RGB are compared.
    """
    if len(data) > SMALL:
        return False
    try:
        return _jpeg(data) if data.startswith(JPEG) else data.startswith(PNG) and _png(data)
    except Exception:  # of many types; `decode` states the reason
        return False


def _jpeg(data: bytes) -> bool:
    start = 2
    mode, size = "", (0, 0)
    while (marker := data[start + 1]) != SCAN:
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        content = data[start + 4 : start + 2 + length]
        if data[start] != 0xFF or len(content) != length - 2:
            return False
        if marker in FRAMES:
            if mode or length != 8 + 3 * content[5]:
                return False
            mode = MODES[content[5]]
            size = int.from_bytes(content[3:5], "big"), int.from_bytes(content[1:3], "big")
        elif marker == JFIF:
            if len(content) < 14 or not content.startswith(b"JFIF\0"):
                return False
        elif marker not in OTHERS:
            return False
        start += 2 + length
    if data[start] != 0xFF or not 0 < size[0] * size[1] <= LARGEST or min(size) < 8:
        return False
    Image.frombytes(mode, (-(-size[0] // 8), -(-size[1] // 8)), data, "jpeg", mode, "", 8, 0)
    return True


def _png(data: bytes) -> bool:
    parts: list[bytes] = []
    start, kind = len(PNG), b""
    width = height = channels = 0
    while kind != b"IEND":
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        kind, content = data[start + 4 : start + 8], data[start + 8 : end]
        if zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big") or end + 4 > len(data):
            return False
        if kind == b"IHDR" and start == len(PNG) and content[8:] in (b"\x08\0\0\0\0", b"\x08\x02\0\0\0"):
            width, height = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")
            channels = 3 if content[9] else 1
        elif kind == b"IDAT" and channels:
            parts.append(content)
        elif kind != b"IEND" or content:
            return False
        start = end + 4
    row = 1 + width * channels
    if not channels or not 0 < width * height <= LARGEST or start != len(data):
        return False
    inflater = zlib.decompressobj()
    pixels = inflater.decompress(b"".join(parts), row * height + 1)
    complete = inflater.eof and not inflater.unused_data and len(pixels) == row * height
    return complete and max(pixels[::row]) <= 4
