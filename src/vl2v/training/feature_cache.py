"""Cached features of the frozen backbone, shared by all runs with the same initial weights."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from vl2v.data.pixels import stamp_of
from vl2v.data.splits import Slots
from vl2v.evaluation.features import CHUNK, pass_through
from vl2v.faults import UNREADABLE, naming
from vl2v.json_files import write_json
from vl2v.locking import file_lock
from vl2v.progress import Progress
from vl2v.student.backbones import Backbone
from vl2v.student.preprocess import Preprocess
from vl2v.tensor_files import add_weights
from vl2v.training.data import TrainingData
from vl2v.writing import reserve
from vl2v_runtime.imaging import DECODING


class FeatureCache:
    """Cached features by slot of the pixel cache. The files can be deleted at any time.

    Features are computed for full blocks of `CHUNK` consecutive slots, so that those of an image do not depend on the
    order of requests. If several processes request features, one of them computes and the others wait.

    Args:
        folder: folder of the files, on a disk that all processes share.
        backbone: frozen backbone. Names of files contain a hash of its weights.
        pixels: [slots, S, S, 3] uint8, the pixel cache.
    """

    def __init__(self, folder: Path, backbone: Backbone, pixels: NDArray[np.uint8]) -> None:
        self.backbone, self.pixels, self.width = backbone, pixels, backbone.features
        name = f"features-{fingerprint(backbone.module, backbone.preprocess)}"
        folder.mkdir(parents=True, exist_ok=True)
        self._rows, self._index = folder / f"{name}.f32", folder / f"{name}.json"
        self._lock = folder / f"{name}.lock"

    def of(self, slots: Slots, accelerator: Accelerator, progress: Progress, title: str) -> NDArray[np.float32]:
        """Return the features of N slots, and compute those that are not cached.

        Args:
            slots: [N] int64.

        Returns:
            [slots, F] float32, a read-only memory map of all slots. Rows that have never been requested are undefined.
        """
        with file_lock(self._lock) if accelerator.is_main_process else nullcontext():  # for all processes of a run
            accelerator.wait_for_everyone()
            filled, sums = self._read_index()
            lacking = self._lacking(np.unique(slots), filled)
            accelerator.wait_for_everyone()
            if len(lacking):
                self._compute(lacking[accelerator.process_index :: accelerator.num_processes], progress, title)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                self._write_index(lacking, filled, sums)
            accelerator.wait_for_everyone()
        return self._all()

    def cached(self, slots: Slots) -> NDArray[np.float32] | None:
        """Return the features [N, F] float32 of N slots if all of them are cached; None otherwise."""
        filled, _ = self._read_index()
        if not len(slots) or slots.min() < 0 or slots.max() >= len(self.pixels) or len(self._lacking(slots, filled)):
            return None
        return np.array(self._all()[slots])

    def _all(self) -> NDArray[np.float32]:
        count = self._rows.stat().st_size // (4 * self.width)
        return np.memmap(self._rows, np.float32, "r", shape=(count, self.width))

    def _block(self, block: int) -> range:
        return range(int(block) * CHUNK, min((int(block) + 1) * CHUNK, len(self.pixels)))

    def _read_index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of cached rows per block and their checksums, [blocks] int64; 0 rows for damaged blocks."""
        blocks = -(-len(self.pixels) // CHUNK)
        try:
            index = json.loads(self._index.read_bytes())
            stamp, (row_counts, crc) = index["stamp"], np.array(index["blocks"], np.int64).reshape(-1, 2).T
        except (OSError, *UNREADABLE):  # missing or truncated, so the features are computed again
            stamp, row_counts, crc = "", np.zeros(0, np.int64), np.zeros(0, np.int64)
        filled, sums = np.zeros((2, max(blocks, len(row_counts))), np.int64)
        filled[: len(row_counts)], sums[: len(row_counts)] = row_counts, crc
        if stamp != stamp_of(self._rows):
            for block in np.flatnonzero(filled):
                if self._sum(int(block), int(filled[block])) != sums[block]:
                    filled[block] = 0
        return filled, sums

    def _write_index(self, fresh: NDArray[np.int64], filled: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
        """Record the computed blocks after they have been written to the disk."""
        for block in fresh:
            filled[block] = len(self._block(block))
            sums[block] = self._sum(int(block), int(filled[block]))
        with naming(self._rows), self._rows.open("rb+") as handle:
            os.fsync(handle.fileno())
        blocks = np.stack([filled, sums], axis=1).tolist()
        write_json(self._index, {"stamp": stamp_of(self._rows), "blocks": blocks})

    def _sum(self, block: int, rows: int) -> int:
        """Return the checksum of the first rows of a block in the file; -1 if they are incomplete."""
        if not self._rows.exists():
            return -1
        with naming(self._rows), self._rows.open("rb") as handle:
            handle.seek(4 * self.width * CHUNK * block)
            data = handle.read(4 * self.width * rows)
        return zlib.crc32(data) if len(data) == 4 * self.width * rows else -1

    def _lacking(self, slots: Slots, filled: NDArray[np.int64]) -> NDArray[np.int64]:
        unknown = slots % CHUNK >= filled[slots // CHUNK]
        return np.unique(slots[unknown] // CHUNK)

    def _compute(self, blocks: NDArray[np.int64], progress: Progress, title: str) -> None:
        module = self.backbone.module
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        reserve(self._rows, 4 * self.width * len(self.pixels))
        out = np.memmap(self._rows, np.float32, "r+", shape=(len(self.pixels), self.width))
        with progress.stage(title, sum(len(self._block(block)) for block in blocks)) as advance:
            for block in blocks:
                rows = self._block(block)
                full = np.resize(np.arange(rows.start, rows.stop), CHUNK)
                (features,) = pass_through(module, self.backbone.preprocess, self.pixels, full, device)
                out[rows.start : rows.stop] = features[: len(rows)].cpu().numpy()
                advance(len(rows))
        out.flush()


def training_features(
    data: TrainingData, backbone: Backbone, accelerator: Accelerator, progress: Progress, title: str
) -> NDArray[np.float32]:
    """Return the features of the training and the validation images by slot, see `FeatureCache.of`."""
    slots = np.concatenate([data.slots, *(slots for slots, _ in data.validation.values())])
    return FeatureCache(data.cache, backbone, data.pixels).of(slots, accelerator, progress, title)


def fingerprint(backbone: nn.Module, preprocess: Preprocess) -> str:
    """Return a hash of a backbone's architecture, weights and preprocessing."""
    p = preprocess  # without `fit`, since every pixel cache has its own folder of features
    expects = f"Preprocess(size={p.size!r}, mean={p.mean!r}, std={p.std!r})"
    digest = hashlib.sha256(f"{expects} {DECODING}".encode())
    digest.update(str(backbone).encode())
    add_weights(digest, backbone.state_dict())
    return digest.hexdigest()[:16]
