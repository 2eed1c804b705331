"""Further texts that teachers are queried for: styles, classes in styles, and everyday things."""

from __future__ import annotations

from pathlib import Path

from lab_parts.dataset import filled

TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a drawing of a {}",
    "a sketch of a {}",
    "a painting of a {}",
    "a cartoon of a {}",
)
MORE_STYLES = (
    "a pencil drawing of a {}",
    "a line drawing of a {}",
    "a black and white photo of a {}",
    "an icon of a {}",
    "a silhouette of a {}",
    "an emoji of a {}",
    "a blurry photo of a {}",
    "a dark photo of a {}",
    "a close-up of a {}",
    "a sculpture of a {}",
    "a toy {}",
    "an old picture of a {}",
    "a watercolour of a {}",
    "a comic of a {}",
)
STYLES = (
    "a photo", "a sketch", "a drawing", "a painting", "a cartoon", "an icon", "a line drawing", "a pencil drawing",
    "a black and white photo", "a blurry photo", "a dark photo", "a noisy photo", "a silhouette", "a watercolour",
    "an oil painting", "a comic", "an emoji", "a sculpture", "a close-up", "a photo at night", "a logo", "a picture",
)  # fmt: skip
THINGS = tuple((Path(__file__).parent / "things.txt").read_text().splitlines())


def bank(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Every text once: classes in all styles, styles alone, things by name and as photos of them."""
    named = [filled(template, name) for template in (*TEMPLATES, *MORE_STYLES) for name in classes]
    return tuple(dict.fromkeys([*named, *STYLES, *THINGS, *classes]))
