"""Ways to make an image square for a student."""

from __future__ import annotations

from typing import Literal

Fit = Literal["squash", "crop", "pad"]

SQUASH: Fit = "squash"
RESIZES: dict[Fit, str] = {
    "squash": "square, bilinear, antialiased",
    "crop": "central square, bilinear, antialiased",
    "pad": "padded to a square, bilinear, antialiased",
}
"""Value of `resize` in a file by fit. Versions that do not support a fit reject files with its text."""


def check_fit(value: object, resize: object) -> Fit:
    """Return the fit of a file from an untrusted source.

    Args:
        resize: text under `resize`, which must be that of the fit.

    Raises:
        ValueError: if the name is unknown, or the text is that of another fit.
    """
    for fit, text in RESIZES.items():
        if fit == value:
            if text != resize:
                raise ValueError(f"resize {str(resize)[:60]!r}; the fit {fit} has {text!r}")
            return fit
    raise ValueError(f"fit {str(value)[:40]!r}, expected {', '.join(RESIZES)}")
