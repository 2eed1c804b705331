"""Tiles: drawings of one size with transparency, and their format on disk."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128  # pixels of a tile
MARGIN = 4  # pixels around a drawing
LARGEST = 30_000_000  # maximum number of pixels of a picture

Tile = NDArray[np.uint8]  # [SIDE, SIDE, 4], RGBA


def opened(source: Path | bytes) -> Image.Image | None:
    """Open a picture file in memory; return None if it is broken or larger than `LARGEST` pixels."""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            if image.width * image.height > LARGEST:
                return None
            image.load()
            return image.copy()
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def fitted(image: Image.Image) -> Tile | None:
    """Crop a drawing to what is not transparent and centre it in a tile; return None if it is empty."""
    rgba = image.convert("RGBA")
    box = rgba.getchannel("A").point(lambda value: 255 * (value > 8)).getbbox()
    if box is None:
        return None
    ink = rgba.crop(box)
    room = SIDE - 2 * MARGIN
    scale = room / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    tile = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    tile.paste(ink.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BICUBIC),
               ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))  # fmt: skip
    return np.asarray(tile, dtype=np.uint8)


def whole(image: Image.Image) -> Tile:
    """Return the centre square of an opaque picture as a tile."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGBA").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.uint8)


def looks_like_photo(image: Image.Image) -> bool:
    """Return whether few pixels have exactly the same colour, as in photographs and renderings."""
    pixels = np.asarray(image.convert("RGBA").resize((96, 96), Image.Resampling.NEAREST)).reshape(-1, 4)
    opaque = pixels[pixels[:, 3] > 200][:, :3]
    if len(opaque) < 200:
        return False
    return len(np.unique(opaque, axis=0)) > 0.45 * len(opaque)
