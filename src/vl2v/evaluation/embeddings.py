"""Embeddings of a sample of images at every stage of a run, saved for the report."""

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
from vl2v.data.splits import Indices
from vl2v.evaluation.evaluation import judged
from vl2v.evaluation.features import pass_through
from vl2v.evaluation.judging import Part
from vl2v.planning.session import Session
from vl2v.writing import replacing

SAMPLE = 1000  # images; one pass of each through the frozen backbone
FEATURES = "frozen.npy"  # in the run's folder for work, from before the first step to the end


def sampled(session: Session, most: int = SAMPLE) -> NDArray[np.int64]:
    """Which of a run's validation and test images, in the order of `judge`: [n] rising, n at most `most`, seeded."""
    count = len(_places(session))
    generator = np.random.default_rng(stage_seed(session.config.seed, "embeddings"))
    return np.sort(generator.permutation(count)[:most]).astype(np.int64)


def keep_frozen_features(session: Session, work: Path, device: torch.device) -> None:
    """Pass the sample through the backbone while it is still the pretrained one; without effect if that was done.

    Args:
        session: the run's, before the first step, or before its state is read.
        work: the run's folder for what only training needs.
        device: where training will compute.
    """
    path, backbone = work / FEATURES, session.backbone
    if path.exists() or backbone is None:
        return
    places = _places(session)[sampled(session)]
    slots = session.cache.slots(session.task.digests[places])
    module = backbone.module.to(device)
    rows = [batch.cpu() for batch in pass_through(module, backbone.preprocess, session.cache.map(), slots, device)]
    work.mkdir(parents=True, exist_ok=True)
    with replacing(path) as fresh, fresh.open("wb") as handle:
        np.save(handle, torch.cat(rows).numpy() if rows else np.zeros((0, backbone.features), np.float32))


def keep_embeddings(session: Session, projection: nn.Module, parts: Sequence[Part], work: Path, out: Path) -> None:
    """Write the sample's vectors; what the method does not have is absent.

    Args:
        session: the run's.
        projection: P after training; the same as after Align where Distill does not train it.
        parts: the saved student's answers.
        work: where `keep_frozen_features` wrote.
        out: a .npz, of ``classes`` [K] text; ``path``, ``domain``, ``role`` [N] text and ``label`` [N] int64; and, in
            float16 and of length one but for the first, ``features`` [N, F] of the frozen backbone, ``aligned`` [N, D]
            of P on them, ``distilled`` [N, D] of the student, ``teacher`` [N, D] as bought, ``texts`` [K, D].
    """
    chosen, method = sampled(session), session.method
    columns: dict[str, NDArray[Any]] = {
        "classes": np.array(session.task.names),
        "path": np.concatenate([np.array(part.paths) for part in parts])[chosen],
        "domain": np.concatenate([np.full(len(part.labels), part.domain) for part in parts])[chosen],
        "role": np.concatenate([np.full(len(part.labels), part.role) for part in parts])[chosen],
        "label": np.concatenate([part.labels for part in parts])[chosen],
    }
    if (work / FEATURES).exists():
        features = torch.from_numpy(np.load(work / FEATURES))
        columns["features"] = _half(features)
        aligned = method.classifier == "cosine" and not method.trains_layer and session.config.first_stage_steps > 0
        if aligned and isinstance(projection, nn.Linear):
            columns["aligned"] = _directions(method.kept(projection.cpu())(features))
    embeddings = [part.embeddings for part in parts if part.embeddings is not None]
    if len(embeddings) == len(parts):
        columns["distilled"] = _half(torch.from_numpy(np.concatenate(embeddings)[chosen]))
    if session.config.teacher.zero_shot or not session.labelled:
        vectors = session.vectors_of(_places(session)[chosen])
        columns["teacher"] = _directions(torch.from_numpy(np.asarray(vectors)))
    if columns.keys() & {"distilled", "teacher"}:
        columns["texts"] = _directions(session.head())
    with replacing(out) as fresh, fresh.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **columns)


def _places(session: Session) -> Indices:
    """Positions in the task of all validation and test images, in the order of `judge`."""
    every = [places for _, _, places in judged(session.split)]
    return np.concatenate(every) if every else np.zeros(0, np.int64)


@torch.no_grad()
def _directions(rows: Tensor) -> NDArray[np.float16]:
    return _half(F.normalize(rows.float(), dim=-1))


@torch.no_grad()
def _half(rows: Tensor) -> NDArray[np.float16]:
    limit = torch.finfo(torch.float16).max
    found: NDArray[np.float16] = rows.detach().clamp(-limit, limit).half().numpy()
    return found
