"""Effect of frozen first layers on a training step on a CPU, by image size.

Both settings are timed in turn, in CPU seconds of one thread.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import timm
import torch

from common import circumstances, keep
from vl2v.allocator import keep_freed_memory
from vl2v.method.distill import Projected, trainable
from vl2v.student.depthwise import pad_depthwise
from vl2v.student.frozen import freeze

SHARE = 0.03
SIZES = (64, 96, 128, 224)
IMAGES = 24
ROUNDS = 12


class Trial:
    """A student whose steps are timed."""

    def __init__(self, share: float, size: int) -> None:
        network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        pad_depthwise(network)
        self.frozen = freeze(network, share)
        self.model = Projected(network, torch.nn.Linear(network.num_features, 384).requires_grad_(False))
        self.model.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(trainable(network).values(), 5e-5)
        self.images = torch.randn(IMAGES, 3, size, size).contiguous(memory_format=torch.channels_last)
        self.seconds: list[float] = []

    def step(self) -> None:
        """Take one step and note its CPU seconds."""
        started = time.process_time()
        loss = self.model(self.images).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.process_time() - started)


def compare(size: int) -> dict[str, Any]:
    """Return the median seconds of a step, and the median and quartiles of the ratio over the rounds."""
    full, frozen = Trial(0.0, size), Trial(SHARE, size)
    for _ in range(ROUNDS + 2):
        full.step()
        frozen.step()
    pairs = list(zip(full.seconds[2:], frozen.seconds[2:], strict=True))
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
    print(f"{size} px: {medians[0]:.3f} s, frozen {medians[1]:.3f} s, ratio {middle:.2f} ({low:.2f} to {high:.2f})")
    return {
        "size": size,
        "groups": frozen.frozen,
        "all_s": medians[0],
        "frozen_s": medians[1],
        "ratio": [low, middle, high],
    }


def main() -> None:
    """Measure all sizes."""
    torch.set_num_threads(1)
    keep_freed_memory()
    keep(
        "frozen",
        {"images": IMAGES, "share": SHARE, "sizes": [compare(s) for s in SIZES], "circumstances": circumstances()},
    )


if __name__ == "__main__":
    main()
