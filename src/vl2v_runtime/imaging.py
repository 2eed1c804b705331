"""From a file's bytes to pixels: the one way every part of vl2v decodes and resizes an image."""

from __future__ import annotations

import errno
import io
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
from vl2v_runtime.regular import read_regular
from vl2v_runtime.stripping import PNG, without_metadata

T = TypeVar("T")
Pixels = NDArray[np.uint8]
ImageLike = str | Path | bytes | Image.Image

DECODING = 3
"""Changes whenever the same file gives other pixels; caches of pixels carry it."""
JUDGING = 1
"""Changes whenever a file that was usable is refused, or the reverse; what is known of files carries it."""
MAX_PIXELS = 178_956_970  # Pillow's own bound on a decompression bomb: 0.5 GB of RGB
MAX_BYTES = 2**31  # of a file; no image of `MAX_PIXELS` needs as much
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
    """The bytes are not a usable image; the message states the reason."""


class MissingDecoderError(UnreadableImageError):
    """The image has a format that only a further package reads; the message has the command that installs it.

    Attributes:
        install: that command.
    """

    def __init__(self, form: Format) -> None:
        self.install = f"pip install {missing(form)}"
        super().__init__(f"a {form.title} image, which needs a decoder: {self.install}")


def decode(source: ImageLike, *, draft: bool = False) -> Image.Image:
    """Decode an image to upright sRGB.

    EXIF orientation is applied, and ignored if it is broken. Transparent images are composited on white. Colours with
    an ICC profile are converted. 16-bit, float and palette images become 8-bit RGB. The result can be decoded again
    without a change.

    Args:
        source: a path, a file's bytes, or an image already open.
        draft: refuse what is otherwise refused, but save the work of making pixels that are not used: JPEG files are
            decoded at an eighth of their size, which reads all of their data, and colours may not be converted.

    Raises:
        UnreadableImageError: if it is empty, truncated, no image, of another format, above `MAX_PIXELS`, or its values
            do not say what is white; `MissingDecoderError` if a package has to be installed first.
        OSError: if a path cannot be read at all.
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
    except Exception as error:  # Pillow's decoders raise many kinds for broken bytes
        reason = " ".join(str(error).split()) if format_of(data) != named("JXL") else "JPEG XL"  # which gives none
        raise UnreadableImageError(f"truncated or broken image ({reason})") from error


def read_file(path: str | Path) -> bytes:
    """The bytes of a regular file. Anything else is refused without waiting: a named pipe, a socket, a device.

    Raises:
        UnreadableImageError: if it is above `MAX_BYTES`.
        OSError: if it cannot be read, or is no regular file.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise UnreadableImageError(f"{error.strerror}, above the limit for images") from error
        raise


def header(data: bytes, formats: tuple[str, ...] = FORMATS) -> tuple[str, int, int]:
    """Format by Pillow's name, width and height, read from the file's header alone.

    Args:
        data: the file.
        formats: those that are expected.

    Raises:
        Exception: of many kinds, if it is no image.
    """
    with quiet():
        return _despite_metadata(lambda file: _header(file, formats), data)


def _header(data: bytes, formats: tuple[str, ...]) -> tuple[str, int, int]:
    openers = _openers(data, formats)
    if openers[0] == "JXL":  # opening decodes it
        return "JXL", *_jxl_size(data)
    with Image.open(io.BytesIO(data), formats=openers) as opened:
        return str(opened.format), opened.width, opened.height


def _openers(data: bytes, formats: tuple[str, ...] = FORMATS) -> tuple[str, ...]:
    """Those of the formats that Pillow tries: without a plugin's, unless the file's first bytes ask for it.

    Raises:
        MissingDecoderError: if they ask for one that is not installed.
    """
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
    """Read a file; where that fails, once more without its metadata, which may be all that is broken."""
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
        except Exception:  # the first fault is of the file as it is
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
    """EXIF orientation, 1 to 8; 1 where the block is broken, and where the format states it in another place."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):  # of the codestream, and already applied
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's reader of EXIF raises many kinds for broken bytes
        return 1
    return value if isinstance(value, int) else 1


def _unknown(data: bytes) -> str:
    """Why Pillow finds no image that it knows in these bytes."""
    found = what_is(data[:64])
    if found in FORMATS:
        return f"a {named(found).title} file that is broken or not supported; save it as an 8-bit PNG or JPEG"
    return f"not a {alternatives()} image" + (f", but {found}" if found else "")


def square(image: Image.Image, size: int, fit: Fit = SQUASH) -> Pixels:
    """Resize an image to `size` by `size` pixels, bilinear with antialiasing.

    Args:
        image: RGB.
        size: side length of the result.
        fit: ``squash`` resizes the whole image whatever its shape, as DomainBed's evaluation does. ``crop`` takes the
            largest central square. ``pad`` keeps the shape of the whole image and fills the rest with `PADDING`.

    Returns:
        [size, size, 3] uint8, RGB.
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
    """An RGB image for people to look at: a JPEG file whose longer side has `side` pixels at most."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
