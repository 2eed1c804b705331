"""Passing images through a backbone without training: kept features for Align, and scores for validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.method.evaluation import Score, from_totals, totals
from vl2v.progress import Progress
from vl2v.student.preprocess import Preprocess
from vl2v.task.splits import Indices

CHUNK = 64  # images at once; fixed, because results depend on it in the last bits
Labelled = Mapping[str, tuple[Indices, NDArray[np.int64]]]


@torch.no_grad()
def pass_through(
    module: nn.Module, preprocess: Preprocess, pixels: NDArray[np.uint8], slots: Indices, device: torch.device
) -> Iterator[Tensor]:
    """Put the images of [N] slots through a module in eval mode, [<=CHUNK, ...] float32 at a time."""
    module.eval()
    for start in range(0, len(slots), CHUNK):
        images = torch.from_numpy(pixels[slots[start : start + CHUNK]]).permute(0, 3, 1, 2)
        yield module(preprocess.normalise(images.to(device))).float()


def keep_features(
    backbone: nn.Module,
    preprocess: Preprocess,
    pixels: NDArray[np.uint8],
    slots: Indices,
    file: Path,
    width: int,
    accelerator: Accelerator,
    progress: Progress,
    title: str,
) -> NDArray[np.float32]:
    """Compute f(x) of every row once, into a .npy file that every process of the run reads.

    Each process computes its share; the file has to lie on a disk that all of them see.

    Args:
        backbone: f, frozen.
        preprocess: what it expects.
        pixels: [slots, S, S, 3] uint8.
        slots: [R] int64, one per row.
        file: where they go.
        width: F.
        accelerator: says which share is ours.
        progress: told of our share.
        title: the stage's name.

    Returns:
        [R, F] float32, a read-only memory map.
    """
    if accelerator.is_main_process:
        file.parent.mkdir(parents=True, exist_ok=True)
        open_memmap(file, "w+", np.float32, (len(slots), width)).flush()
    accelerator.wait_for_everyone()
    out = np.load(file, mmap_mode="r+")
    starts = range(0, len(slots), CHUNK)[accelerator.process_index :: accelerator.num_processes]
    with progress.stage(title, sum(len(slots[start : start + CHUNK]) for start in starts)) as advance:
        for start in starts:
            part = slots[start : start + CHUNK]
            for features in pass_through(backbone, preprocess, pixels, part, accelerator.device):
                out[start : start + len(part)] = features.cpu().numpy()
            advance(len(part))
    out.flush()
    accelerator.wait_for_everyone()
    kept: NDArray[np.float32] = np.load(file, mmap_mode="r")
    return kept


def scores(
    logits: Callable[[Indices], Iterator[Tensor]], labelled: Labelled, accelerator: Accelerator | None = None
) -> dict[str, Score]:
    """Score every domain, each process its share of the images.

    Args:
        logits: gives [<=CHUNK, K] logits for slots, chunk by chunk.
        labelled: (slots, labels) by domain.
        accelerator: says which share is ours; None scores everything here.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    found = {}
    for domain, (slots, labels) in labelled.items():
        sums = torch.zeros(3, dtype=torch.float64)
        targets = torch.from_numpy(labels[rank::world])
        place = 0
        for chunk in logits(slots[rank::world]):
            sums += totals(chunk.cpu(), targets[place : place + len(chunk)])
            place += len(chunk)
        found[domain] = from_totals(_summed(sums, accelerator) if accelerator else sums)
    return found


def _summed(sums: Tensor, accelerator: Accelerator) -> Tensor:
    if accelerator.device.type == "mps":  # has no float64
        return sums
    total: Tensor = accelerator.reduce(sums.to(accelerator.device), "sum")
    return total.cpu()
