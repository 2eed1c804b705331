"""Choose the share of the trained weights (WiSE-FT), and write the file of the package."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.train_offline_vendor.validate import Group, validate
from tools.train_offline_vendor.vocabulary import Vocabulary
from vl2v.teacher.offline.tower import DEVIATION, MEAN, ImageTower

if TYPE_CHECKING:
    from tools.train_offline_vendor.train import Training

SHARES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the trained weights; the rest are those of ImageNet
WITHIN = 0.5  # points of accuracy; of the shares within this distance of the best, the smallest is chosen
SIDES = (128,)  # pixels
SCALES = tuple(float(scale) for scale in range(8, 41, 2))
log = logging.getLogger("train")


def between(first: dict[str, Tensor], second: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Interpolate weights from `first` (share 0) to `second` (share 1); Wortsman et al., arXiv 2109.01903."""
    return {name: torch.lerp(first[name].float(), second[name].float(), share) for name in first}


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in half precision."""
    return {name: tensor.half().contiguous() for name, tensor in weights.items()}


def embedder(tower: ImageTower, side: int) -> Callable[[Tensor], Tensor]:
    """Return the function that `validate` requires, for images of `side` pixels."""

    def embed(images: Tensor) -> Tensor:
        if side != images.shape[-1]:
            images = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        return tower.embeddings(
            tower.features(((images - MEAN) / DEVIATION).contiguous(memory_format=torch.channels_last))
        )

    return embed


def logit_scale(tower: ImageTower, groups: dict[str, Group], vocabulary: Vocabulary, side: int) -> float:
    """Return the scale with the highest likelihood of the names of the validation drawings, in the form ``{}``."""
    index = vocabulary.index()
    embed, best = embedder(tower, side), {}
    for scale in SCALES:
        best[scale] = 0.0
    for group in groups.values():
        names = sorted({item.name for item in group.items})
        rows = torch.tensor([names.index(item.name) for item in group.items])
        with torch.inference_mode():
            embeddings = torch.cat([embed(part) for part in torch.split(group.images, 50)])
        cosines = embeddings @ vocabulary.embeddings[0][torch.tensor([index[name] for name in names])].T
        for scale in SCALES:
            best[scale] += float(F.cross_entropy(scale * cosines, rows))
    return min(best, key=lambda scale: best[scale])


def finish(work: Path, training: Training) -> None:
    """Choose the share on the validation drawings, and write the weights in half precision."""
    from safetensors.torch import save_file

    start = training.frozen.fresh_tower(training.start).state_dict()
    tower = training.averaged()
    trained = dict(training.average)
    tables = {}
    for side in SIDES:
        for share in SHARES:
            tower.load_state_dict(between(start, trained, share))
            table = validate(embedder(tower, side), training.validation, training.vocabulary)
            tables[side, share] = table
            log.info("side %d share %.1f: %s", side, share, json.dumps(table))
    best = max(table["overall"] for table in tables.values())
    share, side = min((share, side) for (side, share), table in tables.items() if table["overall"] >= best - WITHIN)
    weights = halved(between(start, trained, share))
    tower.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    scale = logit_scale(tower, training.validation, training.vocabulary, side)
    facts = {
        "steps": training.step,
        "share": share,
        "side": side,
        "logit_scale": scale,
        "validation": validate(embedder(tower, side), training.validation, training.vocabulary),
        "shares": {f"{size}/{part}": table["overall"] for (size, part), table in tables.items()},
    }
    metadata = {"side": str(side), "logit_scale": str(scale)}
    save_file(weights | {"text_mean": training.vocabulary.mean.float()}, work / "vendor.safetensors", metadata=metadata)
    (work / "vendor.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    log.info("chosen: %s", json.dumps(facts))
