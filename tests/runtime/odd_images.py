"""Odd image files, each with its expected picture."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

SIZE = (24, 18)
D50 = (0.9642, 1.0, 0.8249)
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
ROTATED_6 = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def colours() -> Image.Image:
    """Return large areas of strong colours, which JPEG changes little."""
    values = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for i, colour in enumerate(
        [(240, 220, 190), (200, 40, 30), (20, 60, 170), (10, 120, 40), (0, 0, 0), (255, 255, 255)]
    ):
        values[:, 4 * i : 4 * i + 4] = colour
    return Image.fromarray(values)


def greys() -> Image.Image:
    """Return a ramp of all greys from 0 to 255."""
    count = SIZE[0] * SIZE[1]
    return Image.fromarray((np.arange(count) * 255 // (count - 1)).astype(np.uint8).reshape(SIZE[1], SIZE[0]))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png(size: tuple[int, int], bits: int, colour: int, rows: Sequence[bytes], extra: bytes = b"") -> bytes:
    """A PNG of given depth and colour type; `extra` are chunks before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


def tiff(
    values: NDArray[Any], *, photometric: int = 1, kind: int = 1, bits: int = 0, order: str = "<", extra: bytes = b""
) -> bytes:
    """An uncompressed TIFF of one strip; `kind` is its SampleFormat, `extra` are further 12-byte entries of its IFD."""
    height, width = values.shape[:2]
    bands = 1 if values.ndim == 2 else values.shape[2]
    data = (
        values.astype(values.dtype.newbyteorder(">" if order == ">" else "<")).tobytes()
        if not bits
        else values.tobytes()
    )
    bits = bits or values.dtype.itemsize * 8
    if bits < 8 or bits == 12:
        width = width * 8 // bits
    at = 8 + len(data)
    shorts = struct.pack(f"{order}{bands}H", *[bits] * bands) + struct.pack(f"{order}{bands}H", *[kind] * bands)
    where = [at, at + 2 * bands]
    entries = []
    for tag, form, count, value in [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, bands, bits if bands == 1 else where[0]), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, bands), (278, 3, 1, height), (279, 4, 1, len(data)),
        (339, 3, bands, kind if bands == 1 else where[1]),
    ]:  # fmt: skip
        field = struct.pack(f"{order}HH", value, 0) if form == 3 and count == 1 else struct.pack(f"{order}I", value)
        entries.append(struct.pack(f"{order}HHI", tag, form, count) + field)
    entries += [extra[i : i + 12] for i in range(0, len(extra), 12)]
    entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2])[0])
    ifd = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}I", at + len(shorts)) + data + shorts + ifd


def profile(space: bytes, curve: float, primaries: Sequence[Sequence[float]] = ()) -> bytes:
    """A minimal ICC v2 profile: of a display with three primaries, or of greys (``GRAY``)."""

    def xyz(value: Sequence[float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in value)

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256)) + b"\0\0"
    text = b"made up"
    name = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)
    tags = [(b"desc", name), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", xyz(D50))]
    if primaries:
        tags += [(b"rXYZ", xyz(primaries[0])), (b"gXYZ", xyz(primaries[1])), (b"bXYZ", xyz(primaries[2]))]
        tags += [(b"rTRC", gamma), (b"gTRC", gamma), (b"bTRC", gamma)]
    else:
        tags += [(b"kTRC", gamma)]
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for tag, data in tags:
        data += b"\0" * (-len(data) % 4)
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">IIII", at + len(body), 0, 0x02100000, 0x6D6E7472) + space + b"XYZ "
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + xyz(D50)[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def stored_in(image: Image.Image, icc: bytes, mode: str = "RGB") -> Image.Image:
    """Return the pixels that show the sRGB `image` under the profile."""
    source = ImageCms.createProfile("sRGB")
    made = ImageCms.profileToProfile(image, source, ImageCms.ImageCmsProfile(io.BytesIO(icc)), outputMode=mode)
    assert made is not None
    made.info = {}  # a writer would add the profile itself
    return made


def broken_exif() -> dict[str, bytes]:
    """Return unusable EXIF blocks, without the prefix ``Exif\\0\\0``."""
    complete = ROTATED_6
    return {
        "text": b"This is not a TIFF header",
        "nothing": b"",
        "head": b"II*\0",
        "no order": b"XX*\0\x08\0\0\0\x01\0",
        "offset beyond the end": b"II*\0\xff\xff\xff\x7f",
        "offset onto itself": b"II*\0\0\0\0\0",
        "cut entry": complete[:16],
        "many entries": b"II*\0\x08\0\0\0\xff\xff\x13" + complete[11:],
        "orientation as text": complete[:12] + b"\x02\0\x02\0\0\x006\0\0\0\0\0\0\0",
        "orientation 9": complete[:18] + b"\x09\0\0\0\0\0\0\0",
        "orientation as a fraction": complete[:12] + b"\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8),
        "unknown type": complete[:12] + b"\xff\0" + complete[14:],
        "doubled head": b"Exif\0\0" + b"Exif\0\0" + b"XX",
    }
