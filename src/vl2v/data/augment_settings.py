"""The strengths of augmentation, as settings of a run; without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vl2v.strict import Fraction, Strict


class AugmentSettings(Strict):
    """How training images are varied; the defaults are the paper's, which knows neither `style` nor `corrupt`."""

    scale: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Least part of the image's area that a crop keeps."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    jitter: Fraction = 0.3
    """Strength of brightness, contrast, saturation and hue jitter; hue is limited to 0.5."""
    grayscale: Fraction = 0.1
    """Probability of losing the colour."""
    style: Fraction = 0.0
    """Part of the images whose style is changed: edges on white, posterised, other colours, another's amplitudes."""
    corrupt: Fraction = 0.0
    """Part of the images that are blurred, noisy, dark, rotated, solarised, compressed or of low resolution.

    An image gets a change of style or a corruption, never both; style + corrupt is at most 1."""
