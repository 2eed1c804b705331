"""Remove the metadata of image files, to read images whose metadata are broken."""

from __future__ import annotations

import struct
import zlib

PNG = b"\x89PNG\r\n\x1a\n"
PNG_NEEDED = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})  # ancillary chunks that affect the pixels
PNG_OPTIONAL = frozenset({b"iCCP"})  # not removed if the checksum is correct
WEBP_NEEDED = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
WEBP_METADATA_FLAGS = 0b1100  # of VP8X: EXIF and XMP
TIFF_NEEDED = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332}
    | {338, 339, 347, *range(512, 522), 529, 530, 531, 532, 34675}
)


def without_metadata(data: bytes) -> bytes:
    """Remove EXIF, XMP, texts and previews from an image file, but not its ICC profile.

    Parts that cannot be parsed are not changed, so a truncated file stays truncated.

    Args:
        data: bytes of a JPEG, PNG, WebP or TIFF file. Other files are returned unchanged.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(PNG):
        return _png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(data)
    return data


def _jpeg(data: bytes) -> bytes:
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA or marker == 0x01 or 0xD0 <= marker <= 0xD9:  # the scan, or a marker without a segment
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        application = 0xE1 <= marker <= 0xEF and marker != 0xEE  # the Adobe segment states the colour space
        profile = marker == 0xE2 and data[at + 4 : at + 16] == b"ICC_PROFILE\0"
        if not (application or marker == 0xFE) or profile:
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])


def _png(data: bytes) -> bytes:
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        right = zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if not kind[0] & 0x20 or kind in PNG_NEEDED or (kind in PNG_OPTIONAL and right):
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])


def _webp(data: bytes) -> bytes:
    parts, at = [], 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        chunk = data[at:end]
        if kind == b"VP8X" and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & ~WEBP_METADATA_FLAGS]) + chunk[9:]
        if kind in WEBP_NEEDED:
            parts.append(chunk)
        at = end
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(data: bytes) -> bytes:
    """Move the required entries to the start of the directory, so that all offsets stay valid."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4) if len(data) >= 8 else (0,)
    if not 8 <= start <= len(data) - 2:
        return data
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    needed = [e for e in entries if len(e) == 12 and struct.unpack(f"{order}H", e[:2])[0] in TIFF_NEEDED]
    directory = struct.pack(f"{order}H", len(needed)) + b"".join(needed) + bytes(4)  # no second image
    return data[:start] + directory + data[start + len(directory) :]
