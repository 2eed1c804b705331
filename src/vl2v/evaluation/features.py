"""Inference on images of the pixel cache, and scores of the outputs."""

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

CHUNK = 64  # batch size; it is fixed because the last bits of results depend on it
Validation = Mapping[str, tuple[Slots, NDArray[np.int64] | NDArray[np.float32]]]
"""Slots [N] and targets by domain. Targets are labels [N], or probabilities of the teacher [N, K]."""


@torch.no_grad()
def pass_through(
    module: nn.Module, preprocess: Preprocess, pixels: NDArray[np.uint8], slots: Slots, device: torch.device
) -> Iterator[Tensor]:
    """Run a module in eval mode on the images of N slots, in batches of at most `CHUNK`.

    Args:
        module: maps normalised pixels [B, 3, S, S] to [B, ...].
        pixels: [slots, S, S, 3] uint8, the pixel cache.
        slots: [N], the images.

    Yields:
        Outputs [B, ...] float32, on the device.
    """
    module.eval()
    for start in range(0, len(slots), CHUNK):
        images = torch.from_numpy(pixels[slots[start : start + CHUNK]]).permute(0, 3, 1, 2)
        with sharding(CHUNK, device.type == "cpu") as shards:
            parts = [
                shards.infer(module, preprocess.normalise(part.to(device))).float() for part in preprocess.parts(images)
            ]
        yield torch.cat(parts)


def scores(
    logits: Callable[[Slots], Iterator[Tensor]],
    validation: Validation,
    classes: int,
    accelerator: Accelerator | None = None,
) -> dict[str, Score]:
    """Score every domain. Each process scores its share of the images.

    Args:
        logits: yields logits [B, K] for slots, batch by batch.
        validation: slots and targets by domain.
        classes: number of classes, K.
        accelerator: the processes; None scores all images in this process.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    scores_by_domain = {}
    for domain, (slots, targets) in validation.items():
        sums = torch.zeros(3 + 2 * classes, dtype=torch.float64)
        process_targets = torch.from_numpy(targets[rank::world])
        start = 0
        for chunk in logits(slots[rank::world]):
            sums += totals(chunk.cpu(), process_targets[start : start + len(chunk)])
            start += len(chunk)
        scores_by_domain[domain] = from_totals(_summed(sums, accelerator) if accelerator else sums)
    return scores_by_domain


def _summed(sums: Tensor, accelerator: Accelerator) -> Tensor:
    if accelerator.device.type == "mps":  # MPS has no float64
        return sums
    total: Tensor = accelerator.reduce(sums.to(accelerator.device), "sum")
    return total.cpu()
