"""Decode and resize images. Every part of vl2v uses these functions."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vl2v_runtime.colour import RangeError, Samples, to_srgb
from vl2v_runtime.fits import SQUASH, Fit
from vl2v_runtime.formats import FORMATS, READ, Format, alternatives, format_of, missing, named, what_is
from vl2v_runtime.jxl import jxl_size
from vl2v_runtime.quiet import quiet
from vl2v_runtime.regular import read_with_status
from vl2v_runtime.stripping import PNG, without_metadata

T = TypeVar("T")
Pixels = NDArray[np.uint8]
ImageLike = str | Path | bytes | Image.Image

DECODING = 3
"""Version of the decoded pixels, stored in pixel caches."""
RULES = 1
"""Version of the rules that accept or reject files, stored in the index of scanned files."""
MAX_PIXELS = 178_956_970  # limit of Pillow for decompression bombs: 0.5 GB of RGB
MAX_BYTES = 2**31  # of a file; images of `MAX_PIXELS` are smaller
ORIENTATION = 0x0112
PADDING = (124, 116, 104)  # the mean of ImageNet, which normalises to about zero
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

BOMB = "decompression bomb"


class UnreadableImageError(ValueError):
    """A file is not a usable image. The message states the reason."""


class MissingDecoderError(UnreadableImageError):
    """The format of an image needs a package that is not installed."""

    def __init__(self, form: Format) -> None:
        self.install = f"pip install {missing(form)}"
        super().__init__(f"a {form.title} image, which needs a decoder: {self.install}")


def decode(source: ImageLike, *, draft: bool = False) -> Image.Image:
    """Decode an image to upright sRGB.

    The EXIF orientation is applied unless it is broken. Transparent images are composited on white. Colours with an ICC
    profile are converted. 16-bit, float and palette images become 8-bit RGB. Decoding the result again does not change
    it.

    Args:
        source: a path, the bytes of a file, or an open image.
        draft: check the file as usual, but save work on pixels that are not used: JPEG files are decoded at an eighth
            of their size, which reads all of their data, and colours may not be converted.

    Raises:
        UnreadableImageError: if the file is empty, truncated, not an image, of an unsupported format, above
            `MAX_PIXELS`, or its white level is unknown; `MissingDecoderError` if a package must be installed.
        OSError: if a path cannot be read.
    """
    data = b""
    if not isinstance(source, Image.Image):
        data = source if isinstance(source, bytes) else read_file(source)
        if not data:
            raise UnreadableImageError("empty file")
    try:
        with quiet():
            if isinstance(source, Image.Image):
                return _upright_rgb(source)
            return _despite_metadata(partial(_opened, draft=draft), data)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(BOMB) from error
    except (UnreadableImageError, MemoryError):
        raise
    except RangeError as error:
        raise UnreadableImageError(str(error)) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_unknown(data)) from error
    except Exception as error:  # decoders raise many types for broken files
        reason = " ".join(str(error).split()) if format_of(data) != named("JXL") else "JPEG XL"  # gives no reason
        raise UnreadableImageError(f"truncated or broken image ({reason})") from error


def read_file(path: str | Path) -> bytes:
    """Read an image file. Named pipes, sockets and devices are rejected without waiting.

    Raises:
        UnreadableImageError: if the file is larger than `MAX_BYTES`.
        OSError: if it cannot be read, or is not a regular file.
    """
    return read_file_and_status(path)[0]


def read_file_and_status(path: str | Path) -> tuple[bytes, os.stat_result]:
    """Read an image file as `read_file` does, and return its status before reading as well."""
    try:
        return read_with_status(path, MAX_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise UnreadableImageError(f"{error.strerror}, above the limit for images") from error
        raise


def header(data: bytes, formats: tuple[str, ...] = FORMATS) -> tuple[str, int, int]:
    """Read the format, by its name in Pillow, the width and the height from the header of a file.

    Raises:
        Exception: of many types, if the file is not an image.
    """
    with quiet():
        return _despite_metadata(lambda file: _header(file, formats), data)


def _header(data: bytes, formats: tuple[str, ...]) -> tuple[str, int, int]:
    openers = _openers(data, formats)
    if openers[0] == "JXL":  # opening decodes it
        return "JXL", *_jxl_size(data)
    with Image.open(io.BytesIO(data), formats=openers) as image:
        return str(image.format), image.width, image.height


def _openers(data: bytes, formats: tuple[str, ...] = FORMATS) -> tuple[str, ...]:
    """Return the formats that Pillow should try. Those of plugins are only tried if the first bytes match."""
    form = format_of(data)
    if form is not None and form.name in formats and missing(form):
        raise MissingDecoderError(form)
    built_in = _built_in(formats)
    return (form.name, *built_in) if form is not None and form.module and form.name in formats else built_in


@cache
def _built_in(formats: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(form.name for form in READ if not form.module and form.name in formats)


def _jxl_size(data: bytes) -> tuple[int, int]:
    try:
        return jxl_size(data)
    except ValueError as error:
        raise UnreadableImageError(str(error)) from error


def _despite_metadata(read: Callable[[bytes], T], data: bytes) -> T:
    """Read a file. If that fails, try again without its metadata, which may be the only broken part."""
    try:
        return read(data)
    except (UnreadableImageError, RangeError, Image.DecompressionBombError, MemoryError):
        raise
    except Exception:
        plain = without_metadata(data)
        if plain == data:
            raise
        try:
            return read(plain)
        except (UnreadableImageError, RangeError):
            raise
        except Exception:  # report the error of the unchanged file
            pass
        raise


def _opened(data: bytes, draft: bool = False) -> Image.Image:
    openers = _openers(data)
    if openers[0] == "JXL":  # opening decodes it
        _check_size(*_jxl_size(data))
    with Image.open(io.BytesIO(data), formats=openers) as image:
        _check_size(image.width, image.height)
        if draft:
            if image.format == "JPEG":
                image.draft(None, (1, 1))
            if image.mode in ("L", "RGB") and not image.info.keys() & ("icc_profile", "transparency"):
                Samples.of(image)
                image.load()
                return Image.new("RGB", (1, 1))
        return _upright_rgb(image, data[24] if data.startswith(PNG) else 8)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{BOMB}: {width} x {height} pixels")


def _upright_rgb(image: Image.Image, png_bits: int = 8) -> Image.Image:
    samples = Samples.of(image)
    image.load()
    turn = TURNS.get(_orientation(image))
    info = image.info
    if turn is not None:
        image = image.transpose(turn)
        image.info = dict(info)
    return to_srgb(image, samples, png_bits)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the EXIF data are broken, or the decoder has applied it."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):  # that of the codestream is applied
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises many types for broken EXIF data
        return 1
    return value if isinstance(value, int) else 1


def _unknown(data: bytes) -> str:
    """Return why a file is not an image that Pillow can read."""
    kind = what_is(data[:64])
    if kind in FORMATS:
        return f"a {named(kind).title} file that is broken or not supported; save it as an 8-bit PNG or JPEG"
    return f"not a {alternatives()} image" + (f", but {kind}" if kind else "")


def square(image: Image.Image, size: int, fit: Fit = SQUASH) -> Pixels:
    """Resize an image to [size, size, 3] uint8 RGB, bilinear with antialiasing.

    Args:
        size: side length of the result.
        fit: ``squash`` resizes the whole image and ignores its aspect ratio, as the evaluation of DomainBed does.
            ``crop`` resizes the largest central square. ``pad`` preserves the aspect ratio and fills the rest with
            `PADDING`.
    """
    if fit == "crop" and image.width != image.height:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if fit == "pad" and image.width != image.height:
        width, height = (max(1, round(size * length / max(image.size))) for length in image.size)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        image = Image.new("RGB", (size, size), PADDING)
        image.paste(resized, ((size - width) // 2, (size - height) // 2))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


def small_jpeg(image: Image.Image, side: int, quality: int) -> bytes:
    """Return a thumbnail of an RGB image as a JPEG file whose longer side has at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
