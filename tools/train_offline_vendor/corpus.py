"""The gathered corpus: tiles in a memory map, and the sampling of a training step."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.train_offline_vendor.listing import Item
from tools.train_offline_vendor.sources import EMOJI_SETS
from tools.train_offline_vendor.tiles import SIDE

# The share of each kind of thing in training. Sets of icons have far more artifacts than creatures, and among artifacts
# more parts of offices and programs than vehicles or buildings.
SHARES = {
    "animal": 0.24, "person": 0.12, "plant": 0.08, "food": 0.08, "body": 0.07, "object": 0.02, "phenomenon": 0.03,
    "writing": 0.01, "vehicle": 0.06, "building": 0.06, "instrument": 0.05, "clothing": 0.03, "furniture": 0.02,
    "tool": 0.03, "weapon": 0.02, "artifact": 0.10,
}  # fmt: skip
ARTIFACTS = {
    "vehicle": "vehicle", "building": "building", "housing": "building", "home": "building", "instrument": "instrument",
    "clothing": "clothing", "garment": "clothing", "furniture": "furniture", "tool": "tool", "weapon": "weapon",
}  # fmt: skip
PHOTO, COLOUR = 5.0, 1.5  # weight of a photo and of a coloured drawing, relative to a drawing in one colour
# Sources that show things. What only other sets have is often a word of user interfaces ("flip", "hide").
PLAIN = frozenset((
    *EMOJI_SETS, "game-icons", "healthicons", "pinhead", "roentgen", "maki", "map", "osmic", "tuxpaint-stamps",
    "openclipart", "gcompris", "fluent-emoji-3d", "streamline-kameleon-color", "flat-color-icons",
))  # fmt: skip
DOUBTFUL = 0.2  # weight of a name that no plain source has
MOST = 0.008  # maximum probability of a name


def shared_kind(item: Item) -> str:
    """Return the key in `SHARES` of an item."""
    if item.kind != "artifact":
        return item.kind
    return next((kind for word, kind in ARTIFACTS.items() if word in item.texts), "artifact")


class Corpus:
    """N tiles and their items.

    Args:
        folder: ``<work>/corpus``, written by `gather`.
    """

    def __init__(self, folder: Path) -> None:
        lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
        self.items = [Item(**json.loads(line)) for line in lines]
        shape = (len(self.items), SIDE, SIDE, 4)
        self.tiles: NDArray[np.uint8] = np.memmap(folder / "tiles.raw", np.uint8, "r", shape=shape)
        self.backgrounds: NDArray[np.uint8] = np.load(folder / "backgrounds.npy", mmap_mode="r")

    def chances(self, photos: float = 1.0) -> NDArray[np.float64]:
        """Return the probability of each item, [N], with a factor for photographs; 0 for validation items.

        Within a kind, the probability of a name is proportional to the square root of the number of its tiles.
        """
        weights = np.zeros(len(self.items))
        counts = Counter((item.kind, item.name) for item in self.items if not item.validation)
        plain = {item.name for item in self.items if item.source in PLAIN}
        for number, item in enumerate(self.items):
            if not item.validation:
                style = photos * PHOTO if item.photo else 1.0 if item.mono else COLOUR
                weights[number] = style / counts[item.kind, item.name] ** 0.5
                weights[number] *= 1.0 if item.name in plain else DOUBTFUL
        for kind, share in SHARES.items():
            members = np.array([shared_kind(item) == kind for item in self.items])
            weights[members] *= share / max(weights[members].sum(), 1e-9)
        _, concept = np.unique([item.name for item in self.items], return_inverse=True)
        weights *= np.minimum(1.0, MOST / np.maximum(np.bincount(concept, weights), 1e-9))[concept]
        result: NDArray[np.float64] = weights / weights.sum()
        return result

    def batch(self, numbers: NDArray[np.int64]) -> Tensor:
        """Return tiles [B, 4, SIDE, SIDE] float32 in 0..1, colours multiplied by the transparency."""
        tiles = torch.from_numpy(self.tiles[np.asarray(numbers)]).permute(0, 3, 1, 2).float().div_(255)
        tiles[:, :3] *= tiles[:, 3:]
        return tiles

    def scenery(self, count: int, rng: np.random.Generator, side: int) -> Tensor:
        """Return random crops [count, 3, side, side] of the backgrounds, float32 in 0..1."""
        size = self.backgrounds.shape[1]
        crops = np.empty((count, side, side, 3), np.uint8)
        for row in range(count):
            picture = self.backgrounds[rng.integers(len(self.backgrounds))]
            top, left = rng.integers(0, size - side + 1, 2)
            crops[row] = picture[top : top + side, left : left + side]
            if rng.random() < 0.5:
                crops[row] = crops[row, :, ::-1]
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)
