"""From a file's bytes to pixels: the one way every part of vl2v decodes and resizes an image."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]
ImageLike = str | Path | bytes | Image.Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # a camera's MPO, a JPEG with a preview appended, opens as JPEG
MAX_PIXELS = 178_956_970  # Pillow's own bound on a decompression bomb: 0.5 GB of RGB

BOMB = "decompression bomb"


class UnreadableImageError(ValueError):
    """The bytes are not a usable image; the text says why in a few words."""


def decode(source: ImageLike) -> Image.Image:
    """Decode an image to upright RGB.

    EXIF orientation is applied; transparency is laid on white; 16-bit and palette images are converted.

    Args:
        source: a path, a file's bytes, or an image already open.

    Raises:
        UnreadableImageError: if it is empty, truncated, no image, of another format, or above `MAX_PIXELS`.
        OSError: if a path cannot be read at all.
    """
    if isinstance(source, Image.Image):
        return _upright_rgb(source)
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not data:
        raise UnreadableImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns at half of what it refuses; we refuse by our own bound
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImageError(f"{BOMB}: {image.width} x {image.height} pixels")
                return _upright_rgb(image)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(BOMB) from error
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not a JPEG, PNG, WebP, BMP or TIFF image") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for broken bytes
        raise UnreadableImageError(f"truncated or broken image ({error})") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        wide = np.asarray(image, dtype=np.float64)
        return Image.fromarray(np.clip(wide / 257.0, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Pixels:
    """Resize the whole image to `size` by `size` pixels, bilinear with antialiasing, as DomainBed's evaluation does.

    Returns:
        [size, size, 3] uint8, RGB.
    """
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
