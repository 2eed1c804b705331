"""The penalty of MIRO: the pretrained backbone, and variances of the layers that are compared with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

FIRST_VARIANCE, LEAST_VARIANCE = 0.1, 1e-5  # as in the authors' code
OUTPUT = ""  # the name of a module itself in torch: its final features


class Variance(nn.Module):
    """Diagonal variance of a layer, softplus(b) + 1e-5, with one b per channel for all images.

    Args:
        channels: C.
        axis: axis of the channels in a feature map [B, ...].
        dimensions: number of axes of a feature map, including the batch.
    """

    def __init__(self, channels: int, axis: int, dimensions: int) -> None:
        super().__init__()
        shape = [channels if i == axis else 1 for i in range(dimensions)]
        self.b = nn.Parameter(torch.full(shape, math.log(math.expm1(FIRST_VARIANCE - LEAST_VARIANCE))))

    def forward(self) -> Tensor:
        """Return the variance, above 1e-5, in a shape that broadcasts to feature maps."""
        return F.softplus(self.b) + LEAST_VARIANCE


def information_gap(features: Tensor, oracle: Tensor, variance: Tensor) -> Tensor:
    """Return (log v + (f - o)^2 / v) / 2 of a feature map f and that of the oracle, o, averaged over elements.

    This is the variational bound of arXiv 2203.10789, with a Gaussian whose mean is the student's feature map.

    Args:
        features: [B, ...], of the student.
        oracle: [B, ...], of the pretrained backbone.
        variance: v > 0, in a shape that broadcasts to the feature maps.

    Returns:
        [B], the mean over the elements of each image. It is log(v) / 2 if both feature maps are equal.
    """
    gap = ((features - oracle) ** 2 / variance + variance.log()) / 2
    return gap.flatten(1).mean(1)


class Oracle(nn.Module):
    """The frozen pretrained backbone, and the layers that are compared: its blocks, or its features if none are known.

    Args:
        backbone: f, pretrained. It is copied.
        sample: [2, 3, S, S], an input from which the shapes of the feature maps are determined.
    """

    def __init__(self, backbone: nn.Module, sample: Tensor) -> None:
        super().__init__()
        self.oracle = copy.deepcopy(backbone).eval().requires_grad_(False)
        self.names: list[str] = []
        self.variances = nn.ModuleList()
        device = next((p.device for p in backbone.parameters()), sample.device)
        blocks = _blocks(self.oracle)
        with torch.no_grad(), recorded(self.oracle, [*blocks, OUTPUT]) as maps:
            self.oracle(sample.to(device))
        usable = [name for name in blocks if name in maps and len(maps[name]) == len(sample)]
        for name in usable or [OUTPUT]:
            shape = maps[name].shape
            axis = 1 if len(shape) == 4 and blocks.get(name) in (None, shape[1]) else len(shape) - 1
            self.names.append(name)
            self.variances.append(Variance(shape[axis], axis, len(shape)))

    def train(self, mode: bool = True) -> Oracle:
        """Set training mode, except for the oracle, which stays in eval mode."""
        super().train(mode)
        self.oracle.eval()
        return self

    def forward(self, backbone: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's features [B, F] and the penalty [B], summed over the compared layers."""
        with recorded(backbone, self.names) as student_maps:
            features: Tensor = backbone(inputs)
        with torch.no_grad(), recorded(self.oracle, self.names) as oracle_maps:
            self.oracle(inputs)
        gaps = [
            information_gap(student_maps[name].float(), oracle_maps[name].float(), variance())
            for name, variance in zip(self.names, self.variances, strict=True)
        ]
        return features, torch.stack(gaps).sum(0)


@contextmanager
def recorded(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of named submodules in a forward pass. Outputs that are not tensors are ignored."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> RemovableHandle:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[name] = output

        return module.get_submodule(name).register_forward_hook(hook)

    handles = [record(name) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _blocks(backbone: nn.Module) -> dict[str, int | None]:
    """Return the blocks of a backbone with their number of channels, or None if it is unknown.

    timm lists the blocks. Those of torchvision's ResNets and of CLIP's towers are known by name. If there are more than
    five, the last one of each quarter is used, as the authors do for the ViT of CLIP.
    """
    channels: dict[str, int | None] = {}
    for prefix, part in (("", backbone), ("trunk.", getattr(backbone, "trunk", None))):
        feature_info = getattr(part, "feature_info", [])
        infos = feature_info if isinstance(feature_info, list) else feature_info.info
        channels |= {prefix + info["module"]: info["num_chs"] for info in infos}
    if not channels:
        candidates = [f"layer{i}" for i in range(1, 5)] + [f"transformer.resblocks.{i}" for i in range(64)]
        channels = dict.fromkeys(candidates)
    present = {name for name, _ in backbone.named_modules()}
    names = [name for name in channels if name in present]
    if len(names) > 5:
        names = [names[len(names) * quarter // 4 - 1] for quarter in range(1, 5)]
    return {name: channels[name] for name in names}
