"""Photos and paintings of PACS as four simulated cameras would take them: objects under other sensors and light."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

Pixels = NDArray[np.uint8]


def _phone(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Sharpened and saturated."""
    return ImageEnhance.Color(image.filter(ImageFilter.UnsharpMask(2, 150))).enhance(1.5)


def _night(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Two stops darker, warm light, and noise that grows with the brightness."""
    light = (np.asarray(image) / 255.0) ** 2.2 * 0.25 * (1.15, 0.95, 0.6)
    noisy = light + generator.normal(size=light.shape) * np.sqrt(0.0001 + 0.004 * light)
    return _image(noisy.clip(0, 1) ** (1 / 2.2))


def _webcam(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """A third of the resolution, little contrast, cold light."""
    small = image.resize((image.width // 3, image.height // 3), Image.Resampling.BILINEAR)
    pixels = np.asarray(small.resize(image.size, Image.Resampling.BILINEAR)) / 255.0
    return _image((0.5 + 0.6 * (pixels - 0.5)) * (0.85, 0.95, 1.1))


def _infrared(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """One channel, mostly red, bright in the middle and dark at the border, as a camera trap takes it at night."""
    grey = np.asarray(image) @ (0.7, 0.25, 0.05) / 255.0
    y, x = np.mgrid[-1 : 1 : grey.shape[0] * 1j, -1 : 1 : grey.shape[1] * 1j]
    return _image(np.repeat((grey**0.8 * (1.2 - 0.55 * (x * x + y * y)))[..., None], 3, axis=2))


def _image(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.rint(255 * values.clip(0, 1)).astype(np.uint8))


CAMERAS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "infrared": _infrared,
    "night": _night,
    "phone": _phone,
    "webcam": _webcam,
}


def photograph(pixels: Pixels, camera: str, seed: int) -> Pixels:
    """Return an image [S, S, 3] as a camera takes it; the seed determines its noise."""
    return np.asarray(CAMERAS[camera](Image.fromarray(pixels), np.random.default_rng(seed)))
