"""Speed of Distill relative to forward pass, backward pass and step of the student on random tensors.

Ours includes loading from the memory map, augmentation, the teacher's vectors, and SWAD's update at every step. Blocks
of both run in turn in one process, both in the channels-last layout, which is the faster one. Validation is left out of
both. Memory is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from common import circumstances, keep, spread
from vl2v.data.augment import Augmentation
from vl2v.data.batches import AugmentedPixels, Streams, augmented_batches
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.loop import Batch, adam
from vl2v.method.loss import dual_loss
from vl2v.method.swad import LossValley
from vl2v.student.preprocess import Preprocess

IMAGES, DIMENSION = 600, 512


def batches(folder: Path, size: int, batch: int, workers: int) -> Iterator[Batch]:
    """Endless real batches: pixels from a memory map, augmented; vectors from a memory map."""
    generator = np.random.default_rng(0)
    file = folder / "pixels.u8"
    if not file.exists():
        file.write_bytes(generator.integers(0, 256, IMAGES * size * size * 3, dtype=np.uint8).tobytes())
        np.save(folder / "vectors.npy", generator.normal(size=(IMAGES, DIMENSION)).astype(np.float32))
    pixels = np.memmap(file, np.uint8, "r", shape=(IMAGES, size, size, 3))
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    rows = np.arange(IMAGES)
    streams = Streams((rows[::3], rows[1::3], rows[2::3]), (batch // 3,) * 3, seed=1)
    data = AugmentedPixels(pixels, rows, Augmentation(size))
    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    text = torch.randn(7, DIMENSION)
    draws = (streams.draw(step) for step in itertools.count())
    for images, picked in augmented_batches(data, draws, workers):
        image = torch.from_numpy(np.asarray(vectors[picked]))
        images = preprocess.normalise(images.contiguous(memory_format=torch.channels_last))
        yield Batch(images, image, text[torch.from_numpy(picked % 7)])


class Sides:
    """Both sides of the comparison, each with its own student and optimiser."""

    def __init__(self, a: argparse.Namespace, folder: Path, workers: int, swad: bool = True) -> None:
        torch.manual_seed(0)
        self.a, self.done = a, 0
        layout = torch.channels_last
        self.ours, self.bare = (timm.create_model(a.model, num_classes=0).to(memory_format=layout) for _ in range(2))
        self.projection = nn.Linear(self.ours.num_features, DIMENSION).requires_grad_(False)
        self.adams = [adam(trainable(side).values(), 5e-5) for side in (self.ours, self.bare)]
        self.valley = LossValley() if swad else None
        self.source = batches(folder, a.size, a.batch, workers)
        self.pixels = torch.randn(a.batch, 3, a.size, a.size).contiguous(memory_format=layout)
        self.targets = torch.randn(2, a.batch, DIMENSION)

    def ours_steps(self, count: int) -> float:
        """Seconds per step of vl2v's loop over `count` steps."""
        start = time.perf_counter()
        part = itertools.islice(self.source, count)
        first = self.done
        distill(self.ours, self.projection, part, optimizer=self.adams[0], swad=self.valley, first_step=first)
        self.done += count
        return (time.perf_counter() - start) / count

    def bare_steps(self, count: int) -> float:
        """Seconds per bare step over `count` steps."""
        model = Projected(self.bare, self.projection).train()
        start = time.perf_counter()
        for _ in range(count):
            loss: Tensor = dual_loss(model(self.pixels), *self.targets)
            self.adams[1].zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.adams[1].step()
        return (time.perf_counter() - start) / count


def peak(a: argparse.Namespace, side: str) -> float:
    """Return the peak resident memory in MB of one side, measured in its own process."""
    command = [sys.executable, __file__, "--memory", side, "--model", a.model, "--size", str(a.size)]
    found = subprocess.run([*command, "--batch", str(a.batch)], capture_output=True, text=True, check=True)
    return int(found.stdout.splitlines()[-1]) / 1000


def measure_memory(a: argparse.Namespace) -> None:
    """Run one side for a few steps, ending SWAD segments so that its queues fill, and print the peak."""
    with tempfile.TemporaryDirectory() as scratch:
        sides = Sides(a, Path(scratch), workers=0, swad=a.memory == "ours")
        if a.memory == "bare":
            sides.bare_steps(4)
        else:
            for _ in range(4):
                sides.ours_steps(1)
            for step in range(8 if sides.valley else 0):
                assert sides.valley is not None
                sides.valley.update(100 + step, trainable(sides.ours))
                sides.valley.end_segment(100 + step, 1.0 - 0.05 * step if step < 4 else 1.0)
    status = Path("/proc/self/status").read_text()  # getrusage would show the parent's peak, inherited at the fork
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    """Time both sides in turn for every number of workers, measure memory, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--memory", choices=("ours", "without-swad", "bare"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.memory:
        measure_memory(a)
        return
    rates = {}
    with tempfile.TemporaryDirectory() as scratch:
        for workers in a.workers:
            sides = Sides(a, Path(scratch), workers)
            sides.ours_steps(2), sides.bare_steps(2)
            pairs = [(sides.bare_steps(a.steps), sides.ours_steps(a.steps)) for _ in range(a.rounds)]
            bare, ours = (list(side) for side in zip(*pairs, strict=True))
            ratio = spread([b / o for b, o in pairs])
            rates[f"workers={workers}"] = {"bare_s": spread(bare), "ours_s": spread(ours), "ratio": ratio}
        weights = sum(p.numel() * p.element_size() for p in trainable(sides.ours).values())
    memory = {f"{side}_peak_mb": peak(a, side) for side in ("ours", "without-swad", "bare")}
    memory["one_copy_of_the_weights_mb"] = weights / 1e6
    keep(
        f"distill-{a.model}-{a.size}",
        {
            "setting": {key: value for key, value in vars(a).items() if key != "memory"},
            "rates": rates,
            "memory": memory,
            "circumstances": circumstances(),
        },
    )


if __name__ == "__main__":
    main()
