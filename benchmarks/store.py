"""Write one million embeddings to the store and read them in shuffled batches, measuring memory."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from common import circumstances, keep, resident
from vl2v.teacher.base import TeacherCard
from vl2v.teacher.purchase.store import EmbeddingStore


def main() -> None:
    """Write and read, and save rates and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embeddings", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--write-batch", type=int, default=1000)
    parser.add_argument("--read-batch", type=int, default=512)
    a = parser.parse_args()
    generator = np.random.default_rng(0)
    digests = generator.integers(0, 256, (a.embeddings, 32), dtype=np.uint8)
    card = TeacherCard("benchmark", "1", a.dimension, 100.0)
    base = generator.normal(size=a.dimension).astype(np.float32)

    def embeddings(rows: np.ndarray) -> np.ndarray:
        """Computed from the digest, so that stored values can be checked without a copy."""
        parts = digests[rows, :2].astype(np.float32)
        return np.asarray(base + parts[:, :1] + parts[:, 1:] / 256, dtype=np.float32)

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vectors.sqlite"
        store = EmbeddingStore(path)
        before, memory = resident(), []
        start = time.perf_counter()
        for first in range(0, a.embeddings, a.write_batch):
            rows = np.arange(first, min(first + a.write_batch, a.embeddings))
            store.keep_images(card, digests[rows], embeddings(rows))
            memory.append(resident())
        written = time.perf_counter() - start
        order = generator.permutation(a.embeddings)
        start = time.perf_counter()
        for first in range(0, a.embeddings, a.read_batch):
            rows = order[first : first + a.read_batch]
            if not np.array_equal(store.images(card, digests[rows]), embeddings(rows)):
                raise AssertionError(f"other embeddings came back in the batch at {first}")
            memory.append(resident())
        read = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(scratch).iterdir())
        store.close()
    tenth = max(1, len(memory) // 10)
    keep(
        "store",
        {
            "setting": vars(a),
            "written_per_second": a.embeddings / written,
            "read_shuffled_per_second": a.embeddings / read,
            "bytes_on_disk": size,
            "resident_mb": {
                "before": before / 1e6,
                "after_first_tenth": memory[tenth] / 1e6,
                "greatest": max(memory) / 1e6,
                "end": memory[-1] / 1e6,
            },
            "circumstances": circumstances(),
        },
    )


if __name__ == "__main__":
    main()
