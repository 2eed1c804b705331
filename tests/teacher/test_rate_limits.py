"""A local teacher uses its fastest number of threads; a remote teacher is never timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vl2v import threads
from vl2v.teacher.base import Embeddings, TeacherCard
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.purchase.thread_count import serving_threads, with_best_threads


class Counting:
    """A teacher that records its batch sizes and the number of threads."""

    def __init__(self, device: str | None) -> None:
        self.queried: list[tuple[int, int]] = []
        if device is not None:
            self.local_device = device

    def describe(self) -> TeacherCard:
        return TeacherCard("test:counting", "1", 3, 1.0, batch_size=4)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        self.queried.append((len(images), torch.get_num_threads()))
        return np.ones((len(images), 3), np.float32)

    def embed_texts(self, texts: list[str]) -> Embeddings:
        return np.ones((len(texts), 3), np.float32)


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "SHORT", 0.0)
    monkeypatch.setattr(threads, "preferred", lambda seconds: 1)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def buy(teacher: Counting, store: Path, number: int | None = None) -> None:
    digests = np.random.default_rng(0).integers(0, 256, (10, 32), np.uint8)
    buyer = Buyer(teacher, EmbeddingStore(store), Budget(None, 0, "USD"), "run", threads=number)  # type: ignore[arg-type]
    assert buyer.images(digests, lambda i: bytes([i]), "training") == 10


def test_a_teacher_on_this_cpu_is_timed_and_then_queried_with_its_number_of_threads(tmp_path: Path) -> None:
    teacher = Counting("cpu")
    buy(teacher, tmp_path / "store.sqlite")
    assert teacher.queried[-3:] == [(4, 1), (4, 1), (2, 1)]
    assert {number for _, number in teacher.queried[:-3]} == {1, 2}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("device", [None, "cuda"])
def test_no_other_teacher_gets_an_additional_query(tmp_path: Path, device: str | None) -> None:
    teacher = Counting(device)
    buy(teacher, tmp_path / "store.sqlite")
    assert teacher.queried == [(4, 2), (4, 2), (2, 2)]
    assert serving_threads(teacher) is None
    assert len(teacher.queried) == 3


def test_a_stated_number_of_threads_is_used(tmp_path: Path) -> None:
    teacher = Counting("cpu")
    buy(teacher, tmp_path / "store.sqlite", 1)
    assert teacher.queried == [(4, 1), (4, 1), (2, 1)]


def test_stored_images_need_no_timing() -> None:
    teacher = Counting("cpu")
    with with_best_threads(teacher, lambda i: b"", 0):
        assert torch.get_num_threads() == 2
    assert teacher.queried == []


def test_a_served_teacher_is_timed_with_a_generated_image() -> None:
    teacher = Counting("cpu")
    assert serving_threads(teacher) == 1
    assert {number for _, number in teacher.queried} == {1, 2}
