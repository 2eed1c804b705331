"""MIRO: cross-entropy, and mutual information with the pretrained backbone as a regularisation.

Cha et al., "Domain Generalization by Mutual-Information Regularization with Pre-trained Models", ECCV 2022
(arXiv 2203.10789). A frozen copy of the pretrained backbone, the oracle, sees every batch too: a step costs one more
forward pass, and the backbone's weights lie in memory twice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vl2v.method.base import Context, Method, Settings
from vl2v.method.baselines.erm import cross_entropy
from vl2v.method.loop import Batch, Objective
from vl2v.strict import Rate, Weight

FIRST_VARIANCE, LEAST_VARIANCE = 0.1, 1e-5  # as in the authors' code
OUTPUT = ""  # the name that torch gives to a module itself: its final features


class MiroSettings(Settings):
    """MIRO; the defaults are the paper's."""

    weight: Weight = 0.1
    """Weight of the regularisation by the pretrained backbone."""
    learning_rate_factor: Rate = 10.0
    """How much faster than the rest its variances learn."""


class Variance(nn.Module):
    """A layer's diagonal variance, softplus(b) + 1e-5, one b for each channel whatever the image.

    Args:
        channels: C.
        axis: where they lie in a feature map [B, ...].
        dimensions: of a feature map, the batch's included.
    """

    def __init__(self, channels: int, axis: int, dimensions: int) -> None:
        super().__init__()
        shape = [channels if i == axis else 1 for i in range(dimensions)]
        self.b = nn.Parameter(torch.full(shape, math.log(math.expm1(FIRST_VARIANCE - LEAST_VARIANCE))))

    def forward(self) -> Tensor:
        """Above 1e-5, in a shape that goes with feature maps."""
        return F.softplus(self.b) + LEAST_VARIANCE


def information_gap(features: Tensor, oracle: Tensor, variance: Tensor) -> Tensor:
    """How little a feature map tells of the oracle's: (log v + (f - o)^2 / v) / 2.

    The variational bound of arXiv 2203.10789 with a Gaussian whose mean is the student's feature map itself.

    Args:
        features: [B, ...], the student's.
        oracle: [B, ...], of the pretrained backbone.
        variance: v > 0, of a shape that goes with them.

    Returns:
        [B], the mean over each image's elements; where both agree it is log(v) / 2.
    """
    gap = ((features - oracle) ** 2 / variance + variance.log()) / 2
    return gap.flatten(1).mean(1)


class Oracle(nn.Module):
    """The frozen pretrained backbone, and where it is compared: at its blocks, or its features where none are known.

    Args:
        backbone: f, pretrained; copied.
        sample: [2, 3, S, S], what it takes, to see its feature maps.
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
        """Enter training: the oracle stays in eval mode."""
        super().train(mode)
        self.oracle.eval()
        return self

    def forward(self, backbone: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The student's features [B, F] and its penalty [B], summed over the layers compared."""
        with recorded(backbone, self.names) as mine:
            features: Tensor = backbone(inputs)
        with torch.no_grad(), recorded(self.oracle, self.names) as true:
            self.oracle(inputs)
        gaps = [
            information_gap(mine[name].float(), true[name].float(), variance())
            for name, variance in zip(self.names, self.variances, strict=True)
        ]
        return features, torch.stack(gaps).sum(0)


@contextmanager
def recorded(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Note what named parts of a module give while it runs; other things than tensors are left out."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> RemovableHandle:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                found[name] = output

        return module.get_submodule(name).register_forward_hook(hook)

    handles = [note(name) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _blocks(backbone: nn.Module) -> dict[str, int | None]:
    """Names of a backbone's blocks and their channels, None where not known.

    timm lists them; those of torchvision's ResNets and of CLIP's towers are known by name. Of more than five the last
    of each quarter is taken, as the authors do with CLIP's ViT.
    """
    found: dict[str, int | None] = {}
    for prefix, part in (("", backbone), ("trunk.", getattr(backbone, "trunk", None))):
        listed = getattr(part, "feature_info", [])
        infos = listed if isinstance(listed, list) else listed.info
        found |= {prefix + info["module"]: info["num_chs"] for info in infos}
    if not found:
        known = [f"layer{i}" for i in range(1, 5)] + [f"transformer.resblocks.{i}" for i in range(64)]
        found = dict.fromkeys(known)
    present = {name for name, _ in backbone.named_modules()}
    names = [name for name in found if name in present]
    if len(names) > 5:
        names = [names[len(names) * quarter // 4 - 1] for quarter in range(1, 5)]
    return {name: found[name] for name in names}


def _objective(context: Context[MiroSettings]) -> Objective:
    classes, weight = len(context.head), context.settings.weight

    def objective(output: Tensor, batch: Batch) -> dict[str, Tensor]:
        parts = {"labels": cross_entropy(output[:, :classes], batch)}
        if output.shape[1] > classes:  # not in the first stage, where no feature moves
            parts["oracle"] = weight * output[:, classes].mean()
        return parts

    return objective


MIRO = Method(
    name="miro",
    title="MIRO",
    settings=MiroSettings,
    stages=("linear probe", "fine-tuning"),
    classifier="linear",
    objective=_objective,
    first_stage=False,
    trains_layer=True,
    asks_teacher=False,
    penalty=Oracle,
    penalty_rate=lambda settings: settings.learning_rate_factor,
)
