"""The composition of batches as a pure function of seed and step, so that a run can resume at any step."""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vl2v.data.augment import Augmentation
from vl2v.data.splits import Indices
from vl2v.errors import ConfigError, TrainingError
from vl2v.faults import GUARD


def class_shares(counts: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Return the probability of each class, [K] with sum 1, in proportion to count ** (1 - balance).

    Args:
        counts: [K] number of images of each class, at least 1.
        balance: from 0, where all images are equally probable, to 1, where all classes are.
    """
    powers: NDArray[np.float64] = counts.astype(np.float64) ** (1 - balance)
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def expected_draws(labels: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Return how often each image is drawn in one pass, on average: [N] with mean 1.

    Args:
        labels: [N] class of each image of a group. A group with unlabelled images (-1) is not balanced.
        balance: see `class_shares`.
    """
    if not len(labels) or balance == 0 or labels.min() < 0:
        return np.ones(len(labels))
    _, where, counts = np.unique(labels, return_inverse=True, return_counts=True)
    draws: NDArray[np.float64] = (class_shares(counts, balance) * len(labels) / counts)[where]
    return draws


def shuffled_pass(
    labels: NDArray[np.int64] | None, size: int, balance: float, generator: np.random.Generator
) -> Indices:
    """Return the order of images in one pass through a group, [N] int64 indices.

    A balanced pass has as many draws as the group has images. The number of draws of a class is in proportion to its
    probability, and its fraction is rounded at random. Images of the same class differ by at most one draw.

    Args:
        labels: [N] class of each image. None, and a group with unlabelled images (-1), is not balanced.
        size: number of images, N.
        balance: see `class_shares`; with 0, each image is drawn once.
    """
    if labels is None or balance == 0 or labels.min() < 0:
        return generator.permutation(size)
    _, where, counts = np.unique(labels, return_inverse=True, return_counts=True)
    edges = np.floor(np.cumsum(class_shares(counts, balance)) * size + generator.random()).astype(np.int64)
    edges[-1] = size
    members = np.split(np.argsort(where, kind="stable"), np.cumsum(counts)[:-1])
    rows = []
    for draws, images in zip(np.diff(edges, prepend=0).tolist(), members, strict=True):
        rows += [np.tile(images, draws // len(images)), generator.permutation(images)[: draws % len(images)]]
    return generator.permutation(np.concatenate(rows))


@dataclass(frozen=True)
class Draw:
    """The composition of one batch.

    Attributes:
        rows: [B] int64, indices of training examples.
        seeds: [B] int64 in [0, 2**63), seeds of their augmentation.
    """

    rows: Indices
    seeds: Indices


@dataclass(frozen=True)
class Streams:
    """Endless shuffled passes over groups of examples, with a fixed number of each group in every batch.

    A group is a source domain, or the unlabelled images. Each group has its own seeded order in every pass. If a group
    is smaller than its share of a batch, the next pass begins within the batch. With class-balanced sampling, a pass
    contains images of rare classes several times, and not all images of frequent classes.

    Attributes:
        groups: indices of the examples of each group; none is empty.
        shares: number of examples of each group in a batch.
        seed: seed of all orders and augmentations.
        labels: class of every example, -1 without a label; None disables class-balanced sampling.
        balance: exponent of class-balanced sampling in [0, 1], see `vl2v.data.batches`.
    """

    groups: tuple[Indices, ...]
    shares: tuple[int, ...]
    seed: int
    labels: NDArray[np.int64] | None = None
    balance: float = 0.0
    _orders: dict[tuple[int, int], Indices] = field(default_factory=dict, repr=False, compare=False)

    def draw(self, step: int, rank: int = 0, world: int = 1) -> Draw:
        """Return the batch of one step, or the share of one of `world` processes.

        Raises:
            ConfigError: if the processes cannot divide each group's share evenly.
        """
        for share in self.shares:
            if share % world:
                raise ConfigError(
                    "The batch cannot be divided evenly.",
                    expected=f"a number per group that is divisible by {world} processes",
                    found=str(share),
                    next_step="change batch_per_domain or the number of processes",
                )
        rows = [self._take(g, step * share, share) for g, share in enumerate(self.shares)]
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        seeds = generator.integers(2**63, size=sum(self.shares), dtype=np.int64)
        mask = np.concatenate([np.arange(share) % world == rank for share in self.shares])
        return Draw(np.concatenate(rows)[mask], seeds[mask])

    def _take(self, group: int, start: int, count: int) -> Indices:
        size = len(self.groups[group])
        draws = np.arange(start, start + count)
        positions = [self._order(group, int(p) // size)[p % size] for p in draws]
        return self.groups[group][np.array(positions, dtype=np.int64)]

    def _order(self, group: int, epoch: int) -> Indices:
        order = self._orders.get((group, epoch))
        if order is None:
            for old in [key for key in self._orders if key[0] == group and key[1] < epoch - 1]:
                del self._orders[old]
            generator = np.random.default_rng([self.seed, group, epoch])
            rows = self.groups[group]
            labels = None if self.labels is None else self.labels[rows]
            order = self._orders[group, epoch] = shuffled_pass(labels, len(rows), self.balance, generator)
        return order


@dataclass(frozen=True)
class _Mapping:
    """Description of a memory map, with which another process opens it again."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return the description of a memory map of a whole file; other arrays are returned unchanged."""
        if not isinstance(value, np.memmap) or not isinstance(value.base, mmap.mmap):
            return value
        return cls(str(value.filename), value.dtype.str, value.shape, int(value.offset))

    def open(self) -> NDArray[Any]:
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


class AugmentedPixels(Dataset[tuple[Tensor, int]]):
    """Augmented images of the pixel cache.

    Args:
        pixels: [slots, S, S, 3] uint8, usually a memory map.
        slots: [N] int64, slot of each example.
    """

    def __init__(self, pixels: NDArray[np.uint8], slots: Indices, augmentation: Augmentation) -> None:
        self.pixels, self.slots, self.augmentation = pixels, slots, augmentation

    def __len__(self) -> int:
        return len(self.slots)

    def __getstate__(self) -> dict[str, Any]:
        """Support processes started by spawn: memory maps are passed by the name of their file."""
        return {name: _Mapping.of(value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = {name: value.open() if isinstance(value, _Mapping) else value for name, value in state.items()}
        self.__dict__.update(attributes)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        row, seed = key
        return self.augmentation(self.pixels[self.slots[row]], seed, self._other), row

    def _other(self, where: float) -> NDArray[np.uint8]:
        """Return the example at a fraction in [0, 1) of all training examples."""
        pixels: NDArray[np.uint8] = self.pixels[self.slots[min(int(where * len(self.slots)), len(self.slots) - 1)]]
        return pixels


def augmented_batches(
    dataset: AugmentedPixels, draws: Sequence[Draw] | Iterator[Draw], workers: int = 0
) -> Iterator[tuple[Tensor, Indices]]:
    """Load, augment and stack the images of one batch per draw.

    Args:
        draws: composition of the batches, in order.
        workers: number of processes that load in advance; 0 loads in this process. It does not affect the result.

    Yields:
        ([B, 3, S, S] uint8, [B] int64 indices of the examples).

    Raises:
        TrainingError: if a loading process ends unexpectedly.
        KeyboardInterrupt: on SIGINT or SIGTERM while the processes start.
    """
    keys = ([(int(r), int(s)) for r, s in zip(d.rows, d.seeds, strict=True)] for d in draws)
    loader = DataLoader(
        dataset,
        batch_sampler=keys,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker if workers else None,
    )
    with interruptible():
        batches = iter(loader)
    try:
        for pixels, rows in batches:
            yield pixels, rows.numpy()
    except RuntimeError as error:
        raise _worker_gone(error) or error from error


def _begin_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main process handles it


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGINT and SIGTERM interrupt immediately, since a start that hangs would not check for them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker_gone(error: RuntimeError) -> TrainingError | None:
    """Return the error for a loading process that ended; None for another error."""
    message = " ".join(str(error).split())
    if "DataLoader worker" not in message or (
        "exited unexpectedly" not in message and "killed by signal" not in message
    ):
        return None
    guard = f"; in a script, {GUARD}" if multiprocessing.get_start_method(allow_none=True) != "fork" else ""
    return TrainingError(
        "A loading process has died.",
        expected="a process that runs until the end of training",
        found=message[:200],
        next_step=f"give it more memory, or load in one process: --workers 0 (workers: 0){guard}",
    )


def stage_seed(seed: int, stage: str) -> int:
    """Return a seed in [0, 2**63) for one purpose, derived from the seed of the run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:8], "big") >> 1
