"""Checks of an image file before it is decoded: bytes, format and claimed size."""

from __future__ import annotations

import binascii

from PIL import Image

from vl2v.web.faults import bad_image, too_large
from vl2v.web.limits import Limits
from vl2v_runtime import formats
from vl2v_runtime.imaging import UnreadableImageError, decode, header

FORMATS = ("JPEG", "PNG", "WEBP")
MORE = tuple(name for name in formats.FORMATS if name not in FORMATS)  # further formats that a student can read
DATA_URI = "Expected data:image/<type>;base64,<data>."
SCANS = 100  # a progressive JPEG has about ten; each takes few bytes and a pass over all pixels


def inspect(data: bytes, param: str | None, limits: Limits, more: tuple[str, ...] = ()) -> None:
    """Check the size and the format of an image file, reading only its headers.

    Args:
        param: position in the request, for the message.
        limits: `Limits.image_bytes` and `Limits.pixels` are used.
        more: accepted formats in addition to `FORMATS`, by their names in Pillow.

    Raises:
        ApiError: 413 for too many bytes or pixels, 400 for any other fault.
    """
    if len(data) > limits.image_bytes:
        message = f"Expected an image file of at most {limits.image_bytes} bytes."
        raise too_large(message, param, "image_too_large")
    width, height = _webp_size(data) if data[:4] == b"RIFF" else _size(data, param, (*FORMATS[:2], *more))
    if not width or not height:
        raise bad_image(_expected(more), param)
    if width * height > limits.pixels:
        message = f"Expected an image of at most {limits.pixels} pixels, found one of {width} x {height}."
        raise too_large(message, param, "image_too_many_pixels")
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > SCANS:
        raise bad_image(f"Expected a JPEG of at most {SCANS} scans.", param)


def from_base64(value: str, param: str | None, limits: Limits) -> bytes:
    """Decode an image file from base64 or from a data URI.

    Args:
        value: base64 or a data URI.
        param: position in the request, for the message.
        limits: `Limits.image_bytes` is used.

    Raises:
        ApiError: 413 for too many bytes, 400 for any other fault.
    """
    if value.startswith("data:"):
        head, comma, value = value.partition(",")
        if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
            raise bad_image(DATA_URI, param)
    if len(value) // 4 * 3 > (most := limits.image_bytes) + 2:
        raise too_large(f"Expected an image file of at most {most} bytes.", param, "image_too_large")
    try:
        return binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except ValueError:  # includes binascii.Error and UnicodeEncodeError
        raise bad_image("The image is not valid base64 (alphabet A-Za-z0-9+/, padded).", param, "bad_base64") from None


def first_broken(images: list[tuple[bytes, str]]) -> tuple[str, str] | None:
    """Decode images until one is unreadable; returns its (position in the request, message), or None."""
    for data, param in images:
        try:
            decode(data)
        except UnreadableImageError as error:
            return param, f"The image cannot be read: {error}."
    return None


def _expected(more: tuple[str, ...]) -> str:
    return f"Expected a {formats.alternatives(tuple(formats.named(name).title for name in (*FORMATS, *more)))} file."


def _size(data: bytes, param: str | None, accepted: tuple[str, ...]) -> tuple[int, int]:
    """Return width and height according to Pillow, which only reads the headers of these formats."""
    try:
        return header(data, accepted)[1:]
    except Image.DecompressionBombError:
        message = "Expected fewer pixels."
        raise too_large(message, param, "image_too_many_pixels") from None
    except MemoryError:
        raise
    except UnreadableImageError as error:
        raise bad_image(f"The image cannot be read: {error}.", param) from None
    except Exception:  # Pillow raises many types of exceptions for broken images
        raise bad_image(_expected(accepted[2:]), param) from None


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the first chunk of a WebP file (RFC 9649); (0, 0) if it is not WebP.

    Pillow is not used, because its WebP reader allocates the whole canvas before it returns the size.
    """
    kind, body = data[12:16], data[20:30]
    if data[8:12] != b"WEBP" or len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0
