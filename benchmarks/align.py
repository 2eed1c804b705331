"""Compare a step of Align on cached features with one that computes the frozen features again.

Both steps run in this process, in turn: the real `vl2v.method.align` on a batch of features, and the same after a
forward pass of the frozen backbone on random pixels of the real shape. Weights are
random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import time

import timm
import torch

from common import circumstances, keep, spread
from vl2v.method.align import align
from vl2v.method.loop import Batch


def main() -> None:
    """Time both kinds of step and save the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cached-steps", type=int, default=300, help="steps on cached features per round")
    a = parser.parse_args()
    torch.manual_seed(0)
    backbone = timm.create_model(a.model, num_classes=0).eval()
    projection = torch.nn.Linear(backbone.num_features, a.dimension)
    pixels = torch.randn(a.batch, 3, a.size, a.size)
    image, text = torch.randn(a.batch, a.dimension), torch.randn(a.batch, a.dimension)
    features = torch.randn(a.batch, backbone.num_features)
    optimizer = torch.optim.Adam(projection.parameters(), lr=5e-5)
    align(projection, [Batch(features, image, text)] * 20, optimizer=optimizer)  # warm up
    cached, recomputed = [], []
    for _ in range(a.rounds):
        start = time.perf_counter()
        align(projection, [Batch(features, image, text)] * a.cached_steps, optimizer=optimizer)
        cached.append((time.perf_counter() - start) / a.cached_steps)
        start = time.perf_counter()
        with torch.no_grad():
            fresh = backbone(pixels)
        align(projection, [Batch(fresh, image, text)], optimizer=optimizer)
        recomputed.append(time.perf_counter() - start)
    ratios = [slow / quick for slow, quick in zip(recomputed, cached, strict=True)]
    keep(
        "align",
        {
            "setting": vars(a),
            "seconds_cached": spread(cached),
            "seconds_recomputed": spread(recomputed),
            "ratio": spread(ratios),
            "circumstances": circumstances(),
        },
    )


if __name__ == "__main__":
    main()
