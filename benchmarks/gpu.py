"""Speed of Distill on a GPU relative to forward pass, backward pass and step of the student on random tensors.

    python benchmarks/gpu.py                      # ResNet-50 and ViT-B/16, batches of 96 and 256; at most 8 minutes
    python benchmarks/gpu.py --device cpu --smoke # the same code with a tiny network, in seconds

Ours includes loading from the memory map, augmentation in processes, the copy to the device, the teacher's embeddings
and SWAD's update at every step. Both sides use the precision that `precision: auto` selects, TF32, and channels-last
tensors. Blocks of both run in turn. The goal is a ratio of 0.95.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from common import circumstances, keep, spread
from vl2v.config import RunConfig
from vl2v.data.augment import Augmentation
from vl2v.data.batches import AugmentedPixels, Streams, augmented_batches
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.loop import Batch, adam
from vl2v.method.loss import dual_loss
from vl2v.method.swad import LossValley
from vl2v.student.preprocess import Preprocess
from vl2v.training.data import loading_processes
from vl2v.training.process import make_accelerator, tuned

IMAGES, DIMENSION, GOAL = 1200, 512, 0.95


def batches(folder: Path, size: int, batch: int, workers: int, device: torch.device) -> Iterator[Batch]:
    """Endless batches as `vl2v.training.data.BatchLoader` makes them."""
    generator = np.random.default_rng(0)
    file = folder / f"pixels-{size}.u8"
    if not file.exists():
        file.write_bytes(generator.integers(0, 256, IMAGES * size * size * 3, dtype=np.uint8).tobytes())
    pixels = np.memmap(file, np.uint8, "r", shape=(IMAGES, size, size, 3))
    embeddings = generator.normal(size=(IMAGES, DIMENSION)).astype(np.float32)
    rows = np.arange(IMAGES)
    streams = Streams((rows[::3], rows[1::3], rows[2::3]), (batch // 3,) * 3, seed=1)
    preprocess, text = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), torch.randn(7, DIMENSION)
    draws = (streams.draw(step) for step in itertools.count())
    for images, picked in augmented_batches(AugmentedPixels(pixels, rows, Augmentation(size)), draws, workers):
        moved = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        image, target = torch.from_numpy(embeddings[picked]), text[torch.from_numpy(picked % 7)]
        yield Batch(preprocess.normalise(moved), image.to(device), target.to(device))


class Sides:
    """Both sides of the comparison, each with its own student and optimiser."""

    def __init__(self, name: str, size: int, batch: int, workers: int, accelerator: Accelerator, folder: Path) -> None:
        torch.manual_seed(0)
        self.accelerator, device = accelerator, accelerator.device
        self.done, layout = 0, torch.channels_last
        made = (timm.create_model(name, num_classes=0).to(device, memory_format=layout) for _ in range(2))
        self.ours, self.bare = made
        self.projection = nn.Linear(self.ours.num_features, DIMENSION).to(device).requires_grad_(False)
        self.adams = [adam(trainable(side).values(), 5e-5) for side in (self.ours, self.bare)]
        self.valley: LossValley | None = LossValley()
        self.source = batches(folder, size, batch // 3 * 3, workers, device)
        pixels = torch.randn(batch // 3 * 3, 3, size, size, device=device)
        self.pixels = pixels.contiguous(memory_format=layout)
        self.targets = torch.randn(2, len(pixels), DIMENSION, device=device)

    def ours_steps(self, count: int) -> float:
        """Seconds per step of vl2v's loop over `count` steps."""
        with self._timed() as clock:
            distill(
                self.ours,
                self.projection,
                itertools.islice(self.source, count),
                optimizer=self.adams[0],
                accelerator=self.accelerator,
                swad=self.valley,
                first_step=self.done,
            )
        self.done += count
        return clock.seconds / count

    def bare_steps(self, count: int) -> float:
        """Seconds per bare step over `count` steps."""
        model = Projected(self.bare, self.projection).train()
        with self._timed() as clock:
            for _ in range(count):
                with self.accelerator.autocast():
                    projected = model(self.pixels)
                loss: Tensor = dual_loss(projected.float(), *self.targets)
                self.adams[1].zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                self.adams[1].step()
        return clock.seconds / count

    def _timed(self) -> Clock:
        return Clock(self.accelerator.device)


class Clock:
    """Wall time of a block, until the device has finished its work."""

    def __init__(self, device: torch.device) -> None:
        self.cuda, self.seconds = device.type == "cuda", 0.0

    def __enter__(self) -> Clock:
        self._wait()
        self.seconds = -time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self.seconds += time.perf_counter()

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


def compare(sides: Sides, steps: int, rounds: int, deadline: float) -> dict[str, object]:
    """Time both sides in turn, until the rounds or the time end. The first block of each is not counted."""
    sides.bare_steps(steps), sides.ours_steps(steps)
    pairs: list[tuple[float, float]] = []
    while not pairs or (len(pairs) < rounds and time.perf_counter() < deadline):
        pairs.append((sides.bare_steps(steps), sides.ours_steps(steps)))
    bare, tuned = (list(side) for side in zip(*pairs, strict=True))
    return {"bare_s": spread(bare), "ours_s": spread(tuned), "ratio": spread([b / o for b, o in pairs])}


def accelerator_of(device: str) -> Accelerator:
    """Return the accelerator of a run on a device."""
    parts = {"data": {"root": "."}, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}}
    return make_accelerator(RunConfig.model_validate({**parts, "device": device}))


def main() -> None:
    """Compare every network and batch size within the time, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["resnet50", "vit_base_patch16_224"])
    parser.add_argument("--batches", type=int, nargs="+", default=[96, 256])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=20, help="steps in a block")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=None, help="loading processes; default as `workers: auto`")
    parser.add_argument("--seconds", type=float, default=450, help="no round begins after so many seconds")
    parser.add_argument("--smoke", action="store_true", help="a tiny network and three steps, to try the script")
    a = parser.parse_args()
    if a.smoke:
        a.models, a.batches, a.size, a.steps, a.rounds = ["test_resnet"], [6], 32, 3, 2
    start, pairs = time.perf_counter(), list(itertools.product(a.models, a.batches))
    accelerator = accelerator_of(a.device)
    workers = loading_processes(a.workers, accelerator.device)
    results: dict[str, object] = {}
    print("| student | batch | bare step, s | vl2v, s | ratio |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch, tuned(accelerator.device):
        for number, (name, batch) in enumerate(pairs, 1):
            sides = Sides(name, a.size, batch, workers, accelerator, Path(scratch))
            figures = compare(sides, a.steps, a.rounds, start + a.seconds * number / len(pairs))
            results[f"{name}, {batch}"] = figures
            cells = [f"{figures[key]['median']:.4f}" for key in ("bare_s", "ours_s")]  # type: ignore[index]
            print(f"| {name} | {batch} | {' | '.join(cells)} | {figures['ratio']['median']:.3f} |", flush=True)  # type: ignore[index]
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type
    setting = {**vars(a), "workers": workers, "device": device, "precision": accelerator.mixed_precision, "goal": GOAL}
    if not a.smoke:
        keep("gpu", {"setting": setting, "results": results, "circumstances": circumstances()})


if __name__ == "__main__":
    main()
