"""Convert images of any mode to 8-bit sRGB: 16-bit and float values, transparency, ICC profiles."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
GREY = frozenset({"1", "L", "LA", "La"})
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # required colour space of a profile by mode
SAME = 2  # levels of 255: a profile that changes every colour by at most this is treated as sRGB
DARK = 4095 / 65535  # maximum of a 16-bit image that was probably written by a 12-bit camera

NOTE = "note"
"""Key of `Image.info` with a remark for the user on a decoded image."""
TOO_DARK = "16-bit values below 4096, as from a 12-bit camera: read as 16 bits, they are nearly black"


class RangeError(ValueError):
    """The white level of an image is unknown. The message states the values that were found."""


@dataclass(frozen=True)
class Samples:
    """Storage of the values of a grey image with more than 8 bits.

    Attributes:
        bits: bits per value, as stated in the file.
        kind: ``u`` for unsigned, ``i`` for signed integers, ``f`` for floats.
        inverted: whether 0 is white.
    """

    bits: int
    kind: str
    inverted: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> Samples:
        """Read the storage of an opened image, before it is loaded.

        Raises:
            RangeError: if it has signed 8-bit values, which Pillow reads as unsigned.
        """
        tags: Any = getattr(image, "tag_v2", {})
        if image.mode in ("L", "RGB") and 2 in tags.get(339, ()):
            raise RangeError("signed 8-bit values, whose white level is unknown; save it with unsigned values")
        if image.mode == "F":
            return cls(32, "f", tags.get(262) == 0)
        if image.mode == "I" and image.format != "PNG":  # some versions of Pillow open a 16-bit PNG as I
            bits = int(tags.get(258, (32,))[0])
            return cls(bits, "u" if tags.get(339, (2,))[0] == 1 else "i", tags.get(262) == 0)
        return cls(int(tags.get(258, (16,))[0]), "u", tags.get(262) == 0)


def to_srgb(image: Image.Image, samples: Samples, png_bits: int = 8) -> Image.Image:
    """Convert an image of any mode to 8-bit sRGB. Transparent images are composited on white.

    Args:
        image: a loaded, upright image.
        samples: storage of the values; ignored unless the image is grey with more than 8 bits.
        png_bits: bits per value of a PNG file; 8 for other formats.

    Returns:
        An RGB image. Its `info` is empty, except for a `NOTE` if there is one.

    Raises:
        RangeError: if it has floats or 32-bit integers in an unknown range.
    """
    profile = image.info.get("icc_profile")
    alpha: Image.Image | None = None
    note = ""
    if image.mode in DEEP:
        image, alpha, note = _eight_bits(image, samples)
    elif image.mode in ALPHA or "transparency" in image.info:
        rgba = _opaque_key(image, png_bits).convert("RGBA")
        alpha = rgba.getchannel("A")
        image = rgba.getchannel("R") if image.mode in GREY else rgba.convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    rgb = _by_profile(image, profile) if profile else image.convert("RGB")
    if alpha is not None:
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
    rgb.info = {NOTE: note} if note else {}
    return rgb


def _opaque_key(image: Image.Image, bits: int) -> Image.Image:
    """Convert the transparent colour of a PNG to 8 bits where Pillow leaves it at the bit depth of the file."""
    key = image.info.get("transparency")
    if image.mode == "RGB" and bits == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif image.mode == "L" and bits in (2, 4) and isinstance(key, int):
        image.info["transparency"] = key * (255 // (2**bits - 1))
    return image


def _eight_bits(image: Image.Image, samples: Samples) -> tuple[Image.Image, Image.Image | None, str]:
    """Return the image in 8 bits, its alpha channel if there is a transparent value, and a remark or an empty text."""
    values = np.asarray(image)
    key, note = image.info.get("transparency"), ""
    if samples.kind == "u" and samples.bits == 32:
        values = values.view(np.uint32)
    if samples.kind == "u" and samples.bits <= 16:
        white = float(2**samples.bits - 1) if samples.bits > 8 else 65535.0
        if samples.bits == 16 and values.size and not samples.inverted and 255 < values.max() <= DARK * white:
            note = TOO_DARK
        grey = np.clip(values / (white / 255.0), 0, 255).astype(np.uint8)
    else:
        white = _white(values, samples)
        grey = np.clip(np.rint(values.astype(np.float64) * (255.0 / white)), 0, 255).astype(np.uint8)
    alpha = None
    if isinstance(key, int):
        alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    return Image.fromarray(255 - grey if samples.inverted else grey), alpha, note


def _white(values: NDArray[Any], samples: Samples) -> float:
    """Infer the white level from the range of the values: 1 (floats only), 255, 65535, or the maximum of the type.

    The brightest value must exceed a quarter of the white level, unless it is the smallest candidate. Otherwise the
    image would be nearly black.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if samples.kind == "f":
        what, whites = "float", [1.0, 255.0, 65535.0]
    else:
        largest = float(2 ** (samples.bits - (samples.kind == "i")) - 1)
        what, whites = f"{samples.bits}-bit", [255.0, *([65535.0] if samples.bits > 16 else []), largest]
    if np.isfinite(low) and np.isfinite(high) and low >= 0:
        for i, white in enumerate(whites):
            if high <= white and (i == 0 or high > white / 4):
                return white
    expected = "0 to 1, 255 or 65535" if samples.kind == "f" else " or ".join(f"{white:.0f}" for white in whites)
    values_range = f"{what} values from {low:g} to {high:g}"
    raise RangeError(f"{values_range}, so the white level is unclear; expected {expected}; save it with 8 or 16 bits")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image to sRGB. Broken profiles, profiles for other modes, and sRGB profiles are ignored."""
    transform = _transform(profile, image.mode)
    if transform is None:
        return image.convert("RGB")
    converted = transform.apply(image)
    assert converted is not None
    return converted


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """Return the transform of a profile to sRGB; None if the profile is sRGB, broken or for another mode."""
    try:
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != SPACES.get(mode):
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        probe = _probe(mode)
        result = transform.apply(probe)
        assert result is not None
    except Exception:  # littleCMS raises many types for broken profiles, and Pillow may be built without it
        return None
    difference = np.asarray(result, np.int64) - np.asarray(probe.convert("RGB"), np.int64)
    return transform if np.abs(difference).max() > SAME else None


def _probe(mode: str) -> Image.Image:
    """Return an image with colours of the whole RGB cube, or with all grey levels."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 8).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3))
