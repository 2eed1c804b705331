"""Features of the frozen backbone, computed once per image and shared by all runs that start from the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from vl2v.job.features import CHUNK, pass_through
from vl2v.locking import held
from vl2v.progress import Progress
from vl2v.student.preprocess import Preprocess
from vl2v.task.splits import Indices
from vl2v_runtime.imaging import DECODING


class KeptFeatures:
    """f(x) by slot of the pixel cache, in files beside it that may be deleted at any time.

    Slots are passed through in blocks of `CHUNK` neighbours, always full, so that an image's features do not depend
    on which run asked first. Several processes may ask at once; one computes and the others wait.

    Args:
        folder: where the files go; on a disk that every process sees.
        backbone: f, frozen; its weights name the files.
        preprocess: what it expects of pixels.
        pixels: [slots, S, S, 3] uint8, the pixel cache.
        width: F.
    """

    def __init__(
        self, folder: Path, backbone: nn.Module, preprocess: Preprocess, pixels: NDArray[np.uint8], width: int
    ) -> None:
        self.backbone, self.preprocess, self.pixels, self.width = backbone, preprocess, pixels, width
        name = f"features-{fingerprint(backbone, preprocess)}"
        folder.mkdir(parents=True, exist_ok=True)
        self._rows, self._filled = folder / f"{name}.f32", folder / f"{name}.filled"
        self._lock = folder / f"{name}.lock"

    def of(self, slots: Indices, accelerator: Accelerator, progress: Progress, title: str) -> NDArray[np.float32]:
        """The features of all slots so far, those of [N] `slots` computed if they were not known.

        Args:
            slots: [N] int64.
            accelerator: each of its processes computes its share.
            progress: told of our share.
            title: the stage's name.

        Returns:
            [slots, F] float32, a read-only memory map; rows that nobody asked for are arbitrary.
        """
        with self._alone(accelerator.is_main_process):
            accelerator.wait_for_everyone()
            filled = self._read_filled()
            lacking = self._lacking(np.unique(slots), filled)
            accelerator.wait_for_everyone()
            if len(lacking):
                self._compute(lacking[accelerator.process_index :: accelerator.num_processes], progress, title)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                for block in lacking:
                    filled[block] = len(self._block(block))
                self._filled.write_bytes(filled.tobytes())
            accelerator.wait_for_everyone()
        count = self._rows.stat().st_size // (4 * self.width)
        return np.memmap(self._rows, np.float32, "r", shape=(count, self.width))

    def _block(self, block: int) -> range:
        return range(int(block) * CHUNK, min((int(block) + 1) * CHUNK, len(self.pixels)))

    def _read_filled(self) -> NDArray[np.uint8]:
        """How many rows of each block are known, [blocks] uint8."""
        known = np.frombuffer(self._filled.read_bytes(), np.uint8) if self._filled.exists() else np.zeros(0, np.uint8)
        filled = np.zeros(max(-(-len(self.pixels) // CHUNK), len(known)), np.uint8)
        filled[: len(known)] = known
        return filled

    def _lacking(self, slots: Indices, filled: NDArray[np.uint8]) -> NDArray[np.int64]:
        unknown = slots % CHUNK >= filled[slots // CHUNK]
        return np.unique(slots[unknown] // CHUNK)

    def _compute(self, blocks: NDArray[np.int64], progress: Progress, title: str) -> None:
        device = next((p.device for p in self.backbone.parameters()), torch.device("cpu"))
        self._grow()
        out = np.memmap(self._rows, np.float32, "r+", shape=(len(self.pixels), self.width))
        with progress.stage(title, sum(len(self._block(block)) for block in blocks)) as advance:
            for block in blocks:
                rows = self._block(block)
                full = np.resize(np.arange(rows.start, rows.stop), CHUNK)
                (features,) = pass_through(self.backbone, self.preprocess, self.pixels, full, device)
                out[rows.start : rows.stop] = features[: len(rows)].cpu().numpy()
                advance(len(rows))
        out.flush()

    def _grow(self) -> None:
        size = 4 * self.width * len(self.pixels)
        with self._rows.open("ab") as handle:
            if handle.tell() < size:
                handle.truncate(size)

    @contextmanager
    def _alone(self, first: bool) -> Iterator[None]:
        """Held by the first process of a run on behalf of all of them."""
        if not first:
            yield
            return
        with held(self._lock):
            yield


def fingerprint(backbone: nn.Module, preprocess: Preprocess) -> str:
    """A name for what a backbone computes: of its weights, its classes, and what it expects of pixels."""
    digest = hashlib.sha256(f"{preprocess!r} {DECODING}".encode())
    digest.update(str(backbone).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
