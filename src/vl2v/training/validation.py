"""Scores of a student on the validation images of the source domains, during training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.data.splits import Slots
from vl2v.evaluation.features import pass_through, scores
from vl2v.method.base import Method
from vl2v.method.evaluation import Score
from vl2v.student.backbones import Backbone
from vl2v.student.model import cosine_logits
from vl2v.training.data import TrainingData

ROWS = 4096  # batch size for projecting features


@dataclass(frozen=True)
class Validator:
    """Validation of one run; each process scores its share of the images.

    Args:
        data: validation images, their targets and the text head.
        backbone: f, for its preprocessing.
    """

    method: Method[Any]
    data: TrainingData
    backbone: Backbone
    projection: nn.Module
    accelerator: Accelerator

    @torch.no_grad()
    def of_features(self, features: NDArray[np.float32]) -> dict[str, Score]:
        """Return the scores by domain of the projection on cached features, [slots, F] float32."""
        return self._scores(partial(self._feature_logits, features))

    def of_images(self, model: nn.Module) -> dict[str, Score]:
        """Return the scores by domain of a model that maps normalised pixels to projected features."""
        return self._scores(partial(self._image_logits, model))

    def _scores(self, logits: Callable[[Slots], Iterator[Tensor]]) -> dict[str, Score]:
        return scores(logits, self.data.validation, len(self.data.head), self.accelerator)

    def _feature_logits(self, features: NDArray[np.float32], slots: Slots) -> Iterator[Tensor]:
        for start in range(0, len(slots), ROWS):
            part = torch.from_numpy(features[slots[start : start + ROWS]]).to(self.accelerator.device)
            yield self._logits(self.projection(part))

    def _image_logits(self, model: nn.Module, slots: Slots) -> Iterator[Tensor]:
        passed = pass_through(model, self.backbone.preprocess, self.data.pixels, slots, self.accelerator.device)
        return (self._logits(projected) for projected in passed)

    def _logits(self, projected: Tensor) -> Tensor:
        if self.method.classifier == "linear":
            return projected[:, : len(self.data.head)].float()
        head, scale = self.data.head.to(projected.device), self.data.logit_scale
        return cosine_logits(projected[:, : head.shape[1]].float(), head, scale * self.method.gain(self.projection))
