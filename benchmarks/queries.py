"""Teacher image queries of a PACS leave-one-out table: four targets, three seeds, one view per image.

The research code asks the teacher for every augmented image of every step of both stages: 2 x 5001 x 96 = 960,192
queries a run, 11,522,304 for the twelve runs. Here the real scan, split, quote and purchase run for all twelve on one
store; the teacher counts its queries. Prompt embeddings are random, since only counts matter.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

from common import circumstances, keep, need_shared
from pacs_dataset import DOMAINS
from vl2v.api import make_config
from vl2v.locations import StoragePaths
from vl2v.planning.plan import plan_run
from vl2v.progress import Silent
from vl2v.purchase import purchase
from vl2v.teacher.base import Embeddings, TeacherCard
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.store import EmbeddingStore

RESEARCH_RUN = 2 * 5001 * 96
SEEDS = (0, 1, 2)


class CountingTeacher:
    """A teacher that computes embeddings from the bytes and counts queries."""

    def __init__(self) -> None:
        self.images = self.texts = 0

    def describe(self) -> TeacherCard:
        """See `vl2v.teacher.base.Teacher`."""
        return TeacherCard("counting", "1", 8, 20.0, batch_size=256)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """See `vl2v.teacher.base.Teacher`."""
        self.images += len(images)
        return np.stack([np.frombuffer(data[-16:], np.uint8)[:8].astype(np.float32) + 1 for data in images])

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """See `vl2v.teacher.base.Teacher`."""
        self.texts += len(texts)
        return np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)


def main() -> None:
    """Run the twelve purchases and count the queries."""
    folder = need_shared()
    teacher, per_run = CountingTeacher(), []
    with tempfile.TemporaryDirectory() as scratch:
        storage = StoragePaths(Path(scratch) / "cache", Path(scratch) / "vectors.sqlite")
        for target in DOMAINS:
            for seed in SEEDS:
                data = {"root": str(folder / "data" / "PACS"), "held_out": (target,)}
                about = {"spec": "counting", "accept": True}  # it knows nothing, and is only counted
                config = make_config(None, {"data": data, "teacher": about, "student": {}, "seed": seed})
                before = teacher.images
                plan = plan_run(config, storage, teacher=teacher, with_student=False)
                with closing(EmbeddingStore(storage.store)) as store:
                    purchase(plan, Budget(None), store, f"{target}-{seed}", Silent())
                per_run.append({"target": target, "seed": seed, "image_queries": teacher.images - before})
    research = RESEARCH_RUN * len(per_run)
    keep(
        "queries",
        {
            "runs": per_run,
            "image_queries": teacher.images,
            "text_queries": teacher.texts,
            "research_code_image_queries": research,
            "ratio": research / teacher.images,
            "circumstances": circumstances(SEEDS),
        },
    )


if __name__ == "__main__":
    main()
