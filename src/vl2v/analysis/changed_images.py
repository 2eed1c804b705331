"""Features of images and of changed copies, by a student and by its backbone before training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.data.image_changes import CHANGES, PARAMETERS
from vl2v.student.model import Student

CHUNK = 64
VIEWS = tuple(change for change in CHANGES if not change.partner)


@dataclass(frozen=True)
class Outputs:
    """Outputs of student and pretrained backbone for N images.

    Attributes:
        features: [N, F] features of the student's backbone.
        logits: [N, K] logits of the student, without temperature scaling.
        embeddings: [N, D] embeddings of the student; D is 0 without a text head.
        frozen: [N, G] features of the backbone before training; equal to `features` if it is not available.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    frozen: NDArray[np.float32]


@torch.no_grad()
def model_outputs(student: Student, frozen: nn.Module | None, pixels: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the outputs for uint8 pixels [N, 3, S, S] in batches."""
    student.eval()
    for chunk in chain.from_iterable(map(student.preprocess.parts, torch.split(pixels, CHUNK))):
        inputs = student.preprocess.normalise(chunk.to(student.device))
        features = student.backbone(inputs)
        projected = student.projection(features)
        embeddings = projected[:, :0] if student.head is None else student.embeddings(projected)
        before = features if frozen is None else frozen(inputs)
        yield tuple(part.float().cpu() for part in (features, student.logits(projected), embeddings, before))


def join_outputs(parts: list[tuple[Tensor, ...]], same: bool) -> Outputs:
    """Concatenate the outputs of batches; `same` if there was no frozen backbone."""
    features, logits, embeddings, frozen = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return Outputs(features, logits, embeddings, features if same else frozen)


def apply_change(pixels: Tensor, view: int, generator: np.random.Generator) -> Tensor:
    """Change images in one way, each with a random strength; return [N, 3, S, S] uint8.

    Args:
        pixels: [N, 3, S, S] uint8.
        view: number of the change, from 1 to the number of `VIEWS`.
    """
    draws = torch.from_numpy(generator.random((len(pixels), PARAMETERS), dtype=np.float32))
    return VIEWS[view - 1].of_pixels(pixels, draws)
