"""Pack inputs into requests within a vendor's limits on inputs, bytes and pixels, and reduce images if necessary."""

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
ITEM_OVERHEAD = 160  # bytes of JSON around one image: keys, quotes and the header of the data URI


@dataclass(frozen=True)
class Limits:
    """Limits on the size of requests and on their rate.

    Attributes:
        images: maximum number of images per request.
        texts: maximum number of texts per request.
        request_bytes: maximum size of a request body in bytes, including base64.
        request_pixels: maximum number of pixels per request; None for no limit.
        image_bytes: maximum size of an image file in bytes, before base64.
        image_pixels: maximum number of pixels per image; None for no limit.
        formats: accepted image formats, by their names in Pillow.
        requests_per_minute: maximum number of requests per minute; None for no limit.
        images_per_minute: maximum number of images per minute; None for no limit.
        tokens_per_minute: maximum number of text tokens per minute, estimated from the length; None for no limit.
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
    """The size that one input adds to a request."""

    bytes: int
    pixels: int = 0


def image_size(image: bytes) -> Size:
    """Return the size that an image adds to a request: base64 bytes, and pixels according to the file header.

    Raises:
        TeacherError: if the image is unreadable.
    """
    _, width, height = _header(image)
    return Size(-(-len(image) // 3) * 4 + ITEM_OVERHEAD, width * height)


def text_size(text: str) -> Size:
    """Return the size that a text adds to a request, as JSON."""
    return Size(len(json.dumps(text)) + ITEM_OVERHEAD)


def pack(items: Iterable[T], size: Callable[[T], Size], most: int, limits: Limits) -> Iterator[list[T]]:
    """Divide inputs into requests, in order, each as large as the limits allow and with at least one input.

    Args:
        items: the inputs; read lazily, at most one request ahead.
        size: returns the size of one input.
        most: maximum number of inputs per request.
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
    """Return the bytes of an image unchanged if the vendor accepts them, and otherwise a minimally changed copy.

    An unsupported lossless format is converted to PNG, and a lossy one to JPEG. An image with too many pixels is scaled
    down. An image with too many bytes is saved as JPEG with quality 95 and scaled down until it fits.

    Raises:
        TeacherError: if the image is unreadable.
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
                "An image cannot be reduced to the maximum size.",
                expected=f"{most_bytes} bytes",
                found="more",
                next_step="crop it, or leave it out",
            )
        picture = _scaled(picture, 0.8)
    return smaller


def _header(image: bytes) -> tuple[str, int, int]:
    try:
        return header(image)
    except Exception:  # Pillow raises many types of exceptions for broken images; `open_image` explains them
        decoded = open_image(image)
        return "", decoded.width, decoded.height


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    size = (max(1, int(picture.width * factor)), max(1, int(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _saved(picture: Image.Image, form: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **({"quality": 95} if form == "JPEG" else {}))
    return out.getvalue()
