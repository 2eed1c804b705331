"""Accuracy on drawings and photographs that are not used for training. No image of a benchmark is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tools.train_offline_vendor.augment import as_lines
from tools.train_offline_vendor.corpus import Corpus
from tools.train_offline_vendor.listing import Item
from tools.train_offline_vendor.vocabulary import Vocabulary

SIDE = 128
MOST = 300  # maximum number of images of a group
OF_A_NAME = 3  # maximum number of images with one name in a group
WAYS = 7  # classes of the small random tasks whose expected accuracy is reported
FAMILIES = (
    ("photo", "rendering"), ("clip_art", "colour_emoji"), ("photo_as_lines", "colour_emoji_as_lines"),
    ("line_icon", "solid_icon"),
)  # fmt: skip
KINDS = ("animal", "plant", "food", "vehicle", "building", "clothing", "furniture", "weapon", "container", "person",
         "body part", "machine", "tool", "device")  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Images [N, 3, SIDE, SIDE] in 0..1 and their items."""

    images: Tensor
    items: list[Item]


def _style(item: Item) -> str:
    """Return the group of a validation item."""
    if item.source in ("iconoir", "lucide", "mingcute"):
        return "line_icon"
    if item.mono:
        return "solid_icon"
    if item.source.startswith("emojione"):
        return "colour_emoji"
    if item.source == "fluent-emoji-3d":
        return "rendering"
    return "photo" if item.photo else "clip_art"


def groups(corpus: Corpus, known: set[str], seed: int = 0) -> dict[str, Group]:
    """Return the validation images by style: drawings on white, photographs on scenery; the same for the same seed."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    chosen: dict[str, list[int]] = {}
    seen: dict[tuple[str, str], int] = {}
    for number in rng.permutation(len(corpus.items)):
        item = corpus.items[number]
        if not item.validation or item.name not in known:
            continue
        style = _style(item)
        seen[style, item.name] = seen.get((style, item.name), 0) + 1
        if seen[style, item.name] <= OF_A_NAME and len(chosen.setdefault(style, [])) < MOST:
            chosen[style].append(int(number))
    by_style = {}
    for style, numbers in sorted(chosen.items()):
        items = [corpus.items[number] for number in numbers]
        tiles = torch.nn.functional.interpolate(corpus.batch(np.array(numbers)), (112, 112), mode="area")
        tiles = torch.nn.functional.pad(tiles, (8, 8, 8, 8))
        ground = torch.ones(len(items), 3, SIDE, SIDE)
        if style == "photo":
            ground = corpus.scenery(len(items), rng, SIDE)
        by_style[style] = Group(_on(tiles, ground), items)
        if style in ("colour_emoji", "photo"):
            lines = as_lines(tiles, torch.tensor([item.photo for item in items]))
            by_style[f"{style}_as_lines"] = Group(_on(lines, torch.ones_like(ground)), items)
    return by_style


def _on(pictures: Tensor, ground: Tensor) -> Tensor:
    return (pictures[:, :3] + ground * (1 - pictures[:, 3:])).clamp(0, 1)


def _kind(item: Item) -> str | None:
    return item.kind if item.kind in ("person",) else next((kind for kind in KINDS if kind in item.texts), None)


def score(embeddings: Tensor, items: list[Item], vocabulary: Vocabulary, form: int) -> dict[str, float]:
    """Return the zero-shot accuracies in percent among all names, among kinds, and among 7 random names.

    Args:
        embeddings: [N, 384], rows of length one.
    """
    index = vocabulary.index()
    names = sorted({item.name for item in items})
    rows = torch.tensor([names.index(item.name) for item in items])
    cosines = embeddings @ vocabulary.embeddings[form][torch.tensor([index[name] for name in names])].T
    rank = (cosines > cosines.gather(1, rows[:, None])).sum(dim=1).float()  # 0 is best
    others = max(len(names) - 1, 1)
    kinds = [_kind(item) for item in items]
    known = [number for number, kind in enumerate(kinds) if kind is not None]
    answers = (embeddings[known] @ vocabulary.embeddings[form][torch.tensor([index[kind] for kind in KINDS])].T).argmax(
        dim=1
    )
    truth = torch.tensor([KINDS.index(kind) for kind in kinds if kind is not None])
    return {
        "name": 100 * float((rank == 0).float().mean()),
        "kind": 100 * float((answers == truth).float().mean()),
        "seven": 100 * float(((others - rank) / others).pow(WAYS - 1).mean()),
    }


def validate(embed: Callable[[Tensor], Tensor], found: dict[str, Group], vocabulary: Vocabulary) -> dict[str, float]:
    """All groups' accuracies, the mean of the forms ``{}`` and ``a photo of a {}``.

    Args:
        embed: images [B, 3, SIDE, SIDE] in 0..1 to unit vectors [B, 384].
        found: what `groups` gave.
        vocabulary: the texts.

    Returns:
        ``<group>/<measure>`` in percent, and ``overall``, the mean over `FAMILIES` of the means over their groups.
    """
    table: dict[str, float] = {}
    for style, group in found.items():
        with torch.inference_mode():
            embeddings = torch.cat([embed(part) for part in torch.split(group.images, 50)])
        tables = [score(embeddings, group.items, vocabulary, form) for form in (0, 1)]
        for measure in tables[0]:
            table[f"{style}/{measure}"] = round(sum(each[measure] for each in tables) / len(tables), 2)
    means = []
    for family in FAMILIES:
        values = [value for key, value in table.items() if key.split("/")[0] in family]
        means += [sum(values) / len(values)] if values else []
    table["overall"] = round(sum(means) / len(means), 3)
    return table
