"""The initial projection: ridge regression, then Adam on cached features."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.train_offline_vendor.frozen import Frozen
from tools.train_offline_vendor.vocabulary import Vocabulary
from vl2v.teacher.offline.tower import DEVIATION, MEAN, ImageTower

if TYPE_CHECKING:
    from tools.train_offline_vendor.train import Sampler

BATCHES, SIZE = 250, 80  # batches of images whose features are cached: 20,000 images
STEPS, BATCH = 700, 256
FIRST = 1_000_000  # the sampler's steps from here on are not used in training
log = logging.getLogger("train")


def ridge(frozen: Frozen, vocabulary: Vocabulary, strength: float = 0.1) -> dict[str, Tensor]:
    """Return the linear map from each row of the classifier to the mean embedding of the texts of its class."""
    rows = frozen.classifier.weight - frozen.classifier.weight.mean(dim=0)
    wanted = F.normalize(vocabulary.imagenet @ vocabulary.embeddings[0], dim=1)
    gram = rows.T @ rows
    weight = torch.linalg.solve(gram + strength * gram.trace() / len(gram) * torch.eye(len(gram)), rows.T @ wanted)
    return {"weight": weight.T.contiguous(), "bias": torch.zeros(wanted.shape[1])}


def warm(cache: Path, sampler: Sampler, frozen: Frozen, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """Return the weights of the projection, fitted with the loss of training on a frozen network; saved in `cache`."""
    if cache.exists():
        saved: dict[str, Tensor] = torch.load(cache, weights_only=True)
        return saved
    features, wanted = _features(sampler, frozen)
    log.info("cached features of %d images", len(features))
    tower: ImageTower = frozen.fresh_tower(ridge(frozen, vocabulary))
    tower.map.requires_grad_(True)
    optimiser = torch.optim.AdamW(tower.map.parameters(), lr=1e-3, weight_decay=0.01)
    total = torch.zeros(())
    for step in range(STEPS):
        torch.manual_seed(step)
        rows = torch.randint(len(features), (BATCH,))
        dense = torch.zeros(BATCH, len(vocabulary.texts))
        for row, number in enumerate(rows.tolist()):
            dense[row] = wanted[number].to_dense()
        texts = vocabulary.embeddings[step % len(vocabulary.embeddings)]
        loss = -(dense * F.log_softmax(20.0 * tower.embeddings(features[rows]) @ texts.T, dim=1)).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (1 - step / STEPS)
        optimiser.step()
        total += loss.detach()
        if step % 100 == 99:
            log.info("map: step %d loss %.4f", step + 1, total / 100)
            total.zero_()
    result = {name: weights.detach().clone() for name, weights in tower.map.state_dict().items()}
    torch.save(result, cache)
    return result


def _features(sampler: Sampler, frozen: Frozen) -> tuple[Tensor, list[Tensor]]:
    """Return features [N, 1280] of augmented images and sparse targets [V].

    Targets are the names; those of photographs are mixed with the predictions of the frozen network.
    """
    features, wanted = [], []
    for batch in range(BATCHES):
        images, names, photo = sampler.named(SIZE, FIRST + batch, 128)
        states = frozen.early(((images - MEAN) / DEVIATION).contiguous(memory_format=torch.channels_last))
        _, meant = frozen.predictions(states)
        names[photo] = 0.6 * names[photo] + 0.4 * meant[photo] * (meant[photo] > 1e-3)
        features.append(frozen.late(states))
        wanted += [row.to_sparse() for row in names]
    return torch.cat(features), wanted
