"""How an image that is not square becomes the square that a student sees."""

from __future__ import annotations

from typing import Literal

Fit = Literal["squash", "crop", "pad"]

SQUASH: Fit = "squash"
RESIZES: dict[Fit, str] = {
    "squash": "square, bilinear, antialiased",
    "crop": "central square, bilinear, antialiased",
    "pad": "padded to a square, bilinear, antialiased",
}
"""The text of each in a file under `resize`. A version that does not know the fit refuses the file for its text."""


def check_fit(value: object, resize: object) -> Fit:
    """The fit that a file states, perhaps that of a stranger.

    Args:
        value: its name.
        resize: the text under `resize`, which must be that of the fit.

    Raises:
        ValueError: if the name is unknown, or the text is that of another fit.
    """
    for fit, text in RESIZES.items():
        if fit == value:
            if text != resize:
                raise ValueError(f"resize {str(resize)[:60]!r}; the fit {fit} has {text!r}")
            return fit
    raise ValueError(f"fit {str(value)[:40]!r}, expected {', '.join(RESIZES)}")
