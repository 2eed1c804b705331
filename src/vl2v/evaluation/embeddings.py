"""Embeddings of a sample of images after every stage of a run, for the embedding maps of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.data.batches import stage_seed
from vl2v.data.splits import SplitPositions
from vl2v.evaluation.features import pass_through
from vl2v.evaluation.split import DomainPredictions, EvaluationDomain
from vl2v.origin import ORIGIN
from vl2v.planning.plan import RunPlan
from vl2v.purchase import BoughtEmbeddings
from vl2v.writing import atomic_write

SAMPLE = 1000  # images; each passes through the frozen backbone once
FEATURES = "frozen.npy"  # temporary file of a run, from before the first step to the end


def sampled(domains: Sequence[EvaluationDomain | DomainPredictions], seed: int, most: int = SAMPLE) -> SplitPositions:
    """Return the split positions of a seeded sample of the evaluated images, ascending, at most `most`."""
    count = sum(len(part) for part in domains)
    generator = np.random.default_rng(stage_seed(seed, "embeddings"))
    return np.sort(generator.permutation(count)[:most]).astype(np.int64)


def save_frozen_features(plan: RunPlan, domains: Sequence[EvaluationDomain], work: Path, device: torch.device) -> None:
    """Compute the features of the sample with the pretrained backbone. Existing features are not computed again.

    Args:
        plan: plan of the run. Its backbone still has the pretrained weights.
        work: folder of the run for temporary files.
    """
    path, backbone = work / FEATURES, plan.student_backbone
    if path.exists():
        return
    slots = np.concatenate([np.zeros(0, np.int64), *(part.slots for part in domains)])
    slots = slots[sampled(domains, plan.config.seed)]
    module = backbone.module.to(device)
    rows = [batch.cpu() for batch in pass_through(module, backbone.preprocess, plan.pixels.map(), slots, device)]
    work.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as fresh, fresh.open("wb") as handle:
        np.save(handle, torch.cat(rows).numpy() if rows else np.zeros((0, backbone.features), np.float32))


def save_embeddings(
    plan: RunPlan,
    bought: BoughtEmbeddings,
    projection: nn.Module,
    parts: Sequence[DomainPredictions],
    work: Path,
    out: Path,
    origin: str,
) -> None:
    """Write the embeddings of the sample to an .npz file.

    The arrays are ``origin`` (that of the student), ``classes`` [K], ``path``, ``domain`` and ``role`` [N] of text,
    ``label`` [N] int64, and, in float16, ``features`` [N, F] of the frozen backbone, ``aligned`` [N, D], the projection
    of these features, ``distilled`` [N, D] of the student, ``teacher`` [N, D], and ``texts`` [K, D]. Rows of embeddings
    have length one. Arrays that the method does not have are omitted.

    Args:
        projection: projection after training. It is the one after Align if Distill does not train it.
        work: the folder that was passed to `save_frozen_features`.
        origin: see `vl2v.origin`.
    """
    rows, method = sampled(parts, plan.config.seed), plan.method
    columns: dict[str, NDArray[Any]] = {
        ORIGIN: np.array(origin),
        "classes": np.array(plan.dataset.names),
        "path": np.concatenate([np.array(part.paths) for part in parts])[rows],
        "domain": np.concatenate([np.full(len(part.labels), part.domain) for part in parts])[rows],
        "role": np.concatenate([np.full(len(part.labels), part.role) for part in parts])[rows],
        "label": np.concatenate([part.labels for part in parts])[rows],
    }
    if (work / FEATURES).exists():
        features = torch.from_numpy(np.load(work / FEATURES))
        columns["features"] = _half(features)
        aligned = method.classifier == "cosine" and not method.trains_layer and plan.config.first_stage_steps > 0
        if aligned and isinstance(projection, nn.Linear):
            columns["aligned"] = _directions(method.saved_layer(projection.cpu())(features))
    embeddings = [part.embeddings for part in parts if part.embeddings is not None]
    if len(embeddings) == len(parts):
        columns["distilled"] = _half(torch.from_numpy(np.concatenate(embeddings)[rows]))
    if bought.evaluation is not None:
        columns["teacher"] = _directions(torch.from_numpy(bought.evaluation[rows]))
    if columns.keys() & {"distilled", "teacher"}:
        columns["texts"] = _directions(bought.head)
    with atomic_write(out) as fresh, fresh.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **columns)


@torch.no_grad()
def _directions(rows: Tensor) -> NDArray[np.float16]:
    return _half(F.normalize(rows.float(), dim=-1))


@torch.no_grad()
def _half(rows: Tensor) -> NDArray[np.float16]:
    limit = torch.finfo(torch.float16).max
    halves: NDArray[np.float16] = rows.detach().clamp(-limit, limit).half().numpy()
    return halves
