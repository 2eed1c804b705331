"""Pack requests within a vendor's limits on inputs, bytes and pixels, and reduce images if necessary."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from vl2v.errors import TeacherError
from vl2v.teacher.base import open_image
from vl2v_runtime.formats import LOSSY
from vl2v_runtime.imaging import header

T = TypeVar("T")

MEGA = 1_000_000
WEB_FORMATS = frozenset({"JPEG", "PNG", "WEBP"})
ITEM_OVERHEAD = 160  # bytes of JSON around one image: keys, quotes, the data URI's head


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and how fast requests may follow one another.

    Attributes:
        images: images a request.
        texts: texts a request.
        request_bytes: bytes of a request's body, base64 included.
        request_pixels: pixels of all images of a request; None for no limit.
        image_bytes: bytes of one image file, before base64.
        image_pixels: pixels of one image; None for no limit.
        formats: image formats taken, by Pillow's names.
        requests_per_minute: None for no limit.
        images_per_minute: None for no limit.
        tokens_per_minute: of text, estimated from its length; None for no limit.
        concurrency: requests under way at once.
    """

    images: int
    texts: int
    request_bytes: int = 20 * MEGA
    request_pixels: int | None = None
    image_bytes: int = 14 * MEGA
    image_pixels: int | None = None
    formats: frozenset[str] = WEB_FORMATS
    requests_per_minute: float | None = None
    images_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 4


@dataclass(frozen=True)
class Size:
    """What one input adds to a request."""

    bytes: int
    pixels: int = 0


def image_size(image: bytes) -> Size:
    """What an image adds to a request: its bytes as base64, and its pixels, read from its header.

    Raises:
        TeacherError: if it is no image.
    """
    _, width, height = _header(image)
    return Size(-(-len(image) // 3) * 4 + ITEM_OVERHEAD, width * height)


def text_size(text: str) -> Size:
    """What a text adds to a request, as JSON."""
    return Size(len(json.dumps(text)) + ITEM_OVERHEAD)


def pack(items: Iterable[T], size: Callable[[T], Size], most: int, limits: Limits) -> Iterator[list[T]]:
    """Fill requests in order: as many inputs as count, bytes and pixels allow, and always at least one.

    Args:
        items: what is to be sent; read lazily, at most one request ahead.
        size: what one of them adds.
        most: inputs a request.
        limits: the vendor's.
    """
    batch: list[T] = []
    total = Size(0)
    for item in items:
        more = size(item)
        grown = Size(total.bytes + more.bytes, total.pixels + more.pixels)
        heavy = grown.bytes > limits.request_bytes or grown.pixels > (limits.request_pixels or math.inf)
        if batch and (len(batch) >= most or heavy):
            yield batch
            batch, grown = [], more
        batch.append(item)
        total = grown
    if batch:
        yield batch


def fit_image(image: bytes, limits: Limits) -> bytes:
    """The image's own bytes where the vendor takes them; else a copy that changes no more than it has to.

    A format that is not taken becomes PNG, without loss, or JPEG if it is a lossy one. Too many pixels are scaled down.
    Too many bytes become a JPEG of quality 95, scaled down until it fits.

    Raises:
        TeacherError: if it is no image.
    """
    form, width, height = _header(image)
    most_bytes = min(limits.image_bytes, (limits.request_bytes - ITEM_OVERHEAD) // 4 * 3 - 2)
    pixels, most_pixels = width * height, limits.image_pixels or width * height
    if form in limits.formats and pixels <= most_pixels and len(image) <= most_bytes:
        return image
    picture = open_image(image)
    if pixels > most_pixels:
        picture = _scaled(picture, math.sqrt(most_pixels / pixels))
    lossless = _saved(picture, "PNG") if "PNG" in limits.formats and form not in LOSSY else b""
    if lossless and len(lossless) <= most_bytes:
        return lossless
    while len(smaller := _saved(picture, "JPEG")) > most_bytes:
        if min(picture.size) == 1:
            raise TeacherError(
                "An image cannot be reduced to the maximum size.", expected=f"{most_bytes} bytes", found="more"
            )
        picture = _scaled(picture, 0.8)
    return smaller


def _header(image: bytes) -> tuple[str, int, int]:
    try:
        return header(image)
    except Exception:  # Pillow raises many kinds for what is no image; decoding words them for people
        decoded = open_image(image)
        return "", decoded.width, decoded.height


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    size = (max(1, int(picture.width * factor)), max(1, int(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _saved(picture: Image.Image, form: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **({"quality": 95} if form == "JPEG" else {}))
    return out.getvalue()
