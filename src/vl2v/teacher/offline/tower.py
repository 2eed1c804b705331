"""The image encoder of the offline teacher: EfficientNet-Lite2 without batch norm, and a map to the text space."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

FEATURES = 1280  # F, what the network's pooled features have
DIMENSION = 384  # D, of the shared space
MEAN = DEVIATION = 0.5  # of the network's inputs, all channels


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Multiply every batch norm's fixed statistics into the convolution before it, in place.

    Each convolution gets a bias and each batch norm is replaced by the activation it ends with. What `module` computes
    in eval mode stays the same up to rounding.

    Args:
        module: a network whose convolutions are each followed by their batch norm, as timm's EfficientNets.

    Returns:
        `module`.
    """
    children = list(module.named_children())
    for (_, convolution), (name, norm) in pairwise(children):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            fused = torch.nn.utils.fuse_conv_bn_eval(convolution.eval(), norm.eval())
            convolution.weight, convolution.bias = fused.weight, fused.bias
            setattr(module, name, getattr(norm, "act", nn.Identity()))
    for _, child in children:
        fold_batch_norms(child)
    return module


class ImageTower(nn.Module):
    """Images [B, 3, S, S], normalised by `MEAN` and `DEVIATION`, to vectors [B, 384] of length one.

    Args:
        network: timm's ``tf_efficientnet_lite2``; None makes one with random weights. Its batch norms are folded, its
            classifier is dropped.
    """

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        if network is None:
            import timm

            network = timm.create_model("tf_efficientnet_lite2", pretrained=False)
        folded = fold_batch_norms(network)
        self.stem = cast(nn.Module, folded.conv_stem)
        self.stem_act = cast(nn.Module, folded.bn1)
        self.stages = nn.ModuleList(cast(Sequence[nn.Module], folded.blocks))
        self.top = cast(nn.Module, folded.conv_head)
        self.top_act = cast(nn.Module, folded.bn2)
        self.map = nn.Linear(FEATURES, DIMENSION)

    def early(self, images: Tensor, stages: int) -> Tensor:
        """What the stem and the first `stages` stages make of images."""
        states: Tensor = self.stem_act(self.stem(images))
        for stage in self.stages[:stages]:
            states = stage(states)
        return states

    def late(self, states: Tensor, stages: int) -> Tensor:
        """Pooled features [B, 1280] of what `early` gave."""
        for stage in self.stages[stages:]:
            states = stage(states)
        return cast(Tensor, self.top_act(self.top(states)).mean(dim=(2, 3)))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features [B, 1280]."""
        return self.late(self.early(images, 0), 0)

    def vectors(self, features: Tensor) -> Tensor:
        """Unit vectors [B, 384] of pooled features."""
        return nn.functional.normalize(self.map(features), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors [B, 384]."""
        return self.vectors(self.features(images))
