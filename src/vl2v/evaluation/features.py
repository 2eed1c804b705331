"""Pass images through a network without training, and score the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.data.splits import Slots
from vl2v.method.evaluation import Score, from_totals, totals
from vl2v.shards import sharding
from vl2v.student.preprocess import Preprocess

CHUNK = 64  # images at once; fixed, because results depend on it in the last bits
Validation = Mapping[str, tuple[Slots, NDArray[np.int64] | NDArray[np.float32]]]
"""(slots [N], targets) by domain; targets are labels [N], or the teacher's probabilities [N, K]."""


@torch.no_grad()
def pass_through(
    module: nn.Module, preprocess: Preprocess, pixels: NDArray[np.uint8], slots: Slots, device: torch.device
) -> Iterator[Tensor]:
    """Put the images of [N] slots through a module in eval mode, [<=CHUNK, ...] float32 at a time."""
    module.eval()
    for start in range(0, len(slots), CHUNK):
        images = torch.from_numpy(pixels[slots[start : start + CHUNK]]).permute(0, 3, 1, 2)
        with sharding(CHUNK, device.type == "cpu") as shards:
            output = shards.infer(module, preprocess.normalise(images.to(device)))
        yield output.float()


def scores(
    logits: Callable[[Slots], Iterator[Tensor]],
    validation: Validation,
    classes: int,
    accelerator: Accelerator | None = None,
) -> dict[str, Score]:
    """Score every domain, each process its share of the images.

    Args:
        logits: gives [<=CHUNK, K] logits for slots, chunk by chunk.
        validation: slots and targets by domain.
        classes: K.
        accelerator: says which share is ours; None scores everything here.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    found = {}
    for domain, (slots, targets) in validation.items():
        sums = torch.zeros(3 + 2 * classes, dtype=torch.float64)
        ours = torch.from_numpy(targets[rank::world])
        start = 0
        for chunk in logits(slots[rank::world]):
            sums += totals(chunk.cpu(), ours[start : start + len(chunk)])
            start += len(chunk)
        found[domain] = from_totals(_summed(sums, accelerator) if accelerator else sums)
    return found


def _summed(sums: Tensor, accelerator: Accelerator) -> Tensor:
    if accelerator.device.type == "mps":  # has no float64
        return sums
    total: Tensor = accelerator.reduce(sums.to(accelerator.device), "sum")
    return total.cpu()
