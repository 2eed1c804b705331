"""The image encoder of the offline teacher: EfficientNet-Lite2 without batch norm, and a linear map to D dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

FEATURES = 1280  # F, the number of pooled features of the network
DIMENSION = 384  # D, the dimension of the embedding space
MEAN = DEVIATION = 0.5  # normalisation of the inputs, for all channels


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution before it, in place, as in timm's EfficientNets. Return `module`.

    Each convolution gets a bias, and each batch norm is replaced by its activation. The output of `module` in eval mode
    remains the same up to rounding.
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
    """A network that maps images to unit embeddings.

    The input is [B, 3, S, S], normalised by `MEAN` and `DEVIATION`; the output is [B, 384].

    Args:
        network: timm's ``tf_efficientnet_lite2``, whose batch norms are folded and whose classifier is removed; None
            creates one with random weights.
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
        """Return the output of the stem and the first `stages` stages for images."""
        states: Tensor = self.stem_act(self.stem(images))
        for stage in self.stages[:stages]:
            states = stage(states)
        return states

    def late(self, states: Tensor, stages: int) -> Tensor:
        """Return pooled features [B, 1280] for the output of `early`."""
        for stage in self.stages[stages:]:
            states = stage(states)
        return cast(Tensor, self.top_act(self.top(states)).mean(dim=(2, 3)))

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features [B, 1280] for images."""
        return self.late(self.early(images, 0), 0)

    def embeddings(self, features: Tensor) -> Tensor:
        """Return unit embeddings [B, 384] for pooled features."""
        return nn.functional.normalize(self.map(features), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Return unit embeddings [B, 384] for images."""
        return self.embeddings(self.features(images))
