"""A run derives its split, its quote and its training data once, and reads every embedding and slot once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture

import vl2v
from vl2v.data import splits
from vl2v.data.pixels import PixelCache
from vl2v.locations import StoragePaths
from vl2v.planning import split as planned_split
from vl2v.teacher.purchase.store import EmbeddingStore

IMAGES, TRAINING, EVALUATED = 90, 48, 42  # of the small dataset with one held-out domain; validation is 12 of these


def count_rows(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, counts: Counter[str], position: int) -> None:
    """Sum the rows of an argument over all calls of a method."""
    real: Callable[..., Any] = getattr(owner, name)

    def counting(*arguments: Any, **more: Any) -> Any:
        counts[name] += len(arguments[position])
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, counting)


@pytest.mark.slow
def test_split_quote_and_training_data_of_a_run_are_computed_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()
    count_rows(monkeypatch, EmbeddingStore, "knows_images", counts, 2)
    count_rows(monkeypatch, EmbeddingStore, "images", counts, 2)
    count_rows(monkeypatch, PixelCache, "slots", counts, 1)
    holdout = splits.domainbed_holdout

    def counting(*arguments: Any) -> Any:
        counts["holdout"] += 1
        return holdout(*arguments)

    monkeypatch.setattr(planned_split, "domainbed_holdout", counting)
    settings = TINY | {"distill": {"steps": 4, "checkpoint_every": 2, "weights": "swad"}}
    settings |= {"measure": {"weights": ("last", "best")}}
    vl2v.distill(
        bench.data, bench.teacher, bench.student, out=tmp_path / "run", held_out=["rose"], settings=settings,
        storage=StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite"),
    )  # fmt: skip
    assert counts["holdout"] == 2, "the split is drawn once, in two source domains"
    # By the quote, and by the purchase for what is missing and for each batch; not by the table of queries at the end.
    assert counts["knows_images"] == 3 * IMAGES
    assert counts["images"] == IMAGES, "embeddings are read from the store once"
    assert counts["slots"] == IMAGES, "slots are looked up once"
