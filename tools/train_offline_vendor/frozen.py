"""The network pretrained on ImageNet: the start of training, and the reference for photographs."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from tools.train_offline_vendor.vocabulary import Vocabulary
from vl2v.pretrained.packaged import lite2_model
from vl2v.teacher.offline.tower import ImageTower

STAGES = 3  # the stem and the first stages are never trained


class Frozen:
    """EfficientNet-Lite2 with its classifier, never trained.

    Args:
        vocabulary: the texts; its ``imagenet`` contains the names of the classes.
    """

    stages = STAGES

    def __init__(self, vocabulary: Vocabulary) -> None:
        network = lite2_model()
        self.classifier = cast(nn.Linear, network.classifier).requires_grad_(False)
        self.tower = ImageTower(network).requires_grad_(False).to(memory_format=torch.channels_last)
        self._names = vocabulary.imagenet  # [1000, V]

    def fresh_tower(self, linear: dict[str, Tensor]) -> ImageTower:
        """Return a copy of the network with a given projection, in eval mode."""
        tower = copy.deepcopy(self.tower)
        tower.map.load_state_dict(linear)
        return tower

    def early(self, images: Tensor) -> Tensor:
        """Return the output of the first stages, computed in bfloat16, which is three times as fast."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            states = self.tower.early(images, self.stages)
        return states.float()

    def late(self, states: Tensor) -> Tensor:
        """Return the features [B, 1280] for an output of `early`."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = self.tower.late(states, self.stages)
        return features.float()

    def scores(self, features: Tensor) -> Tensor:
        """Return ImageNet logits [B, 1000] for features, with gradients."""
        return cast(Tensor, self.classifier(features))

    def predictions(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted probabilities of the classes [B, 1000] and of the texts [B, V]."""
        probabilities = self.scores(self.late(states)).softmax(dim=1)
        return probabilities, probabilities @ self._names
