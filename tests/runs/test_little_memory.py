"""A run whose steps do not fit into memory ends with the student of one that has the micro-batch set from the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture
from torch import Tensor

import vl2v
from recorders import NoteRecorder
from vl2v.config import RunConfig
from vl2v.errors import Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.method.distill import Projected
from vl2v.planning.models import open_student
from vl2v.threads import using_threads
from vl2v.training.duration import Rates

SMALL = TINY | {"distill": {"steps": 6, "checkpoint_every": 2, "learning_rate": 1e-3}, "recipe": "paper"}


@pytest.fixture
def limited_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Limit the number of images that fit into a training step; return the sizes that were tried."""
    original_forward, tried = Projected.forward, list[int]()

    def limit(most: int) -> list[int]:
        def forward(self: Projected, inputs: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled():
                tried.append(len(inputs))
                if len(inputs) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
            return original_forward(self, inputs)

        monkeypatch.setattr(Projected, "forward", forward)
        return tried

    return limit


def distill(bench: Bench, out: Path, **settings: Any) -> NoteRecorder:
    notes = NoteRecorder()
    arguments: dict[str, Any] = {"settings": SMALL | settings, "held_out": ["rose"]} if not out.exists() else {}
    data = (bench.data, bench.teacher, bench.student) if arguments else ()
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    assert vl2v.distill(*data, out=out, storage=storage, progress=notes, report=False, resume=not data, **arguments)
    return notes


def student(out: Path) -> bytes:
    return (out / "student/model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_student_is_that_of_a_set_micro_batch_after_a_resume_too(
    bench: Bench, tmp_path: Path, limited_memory: Callable[[int], list[int]]
) -> None:
    distill(bench, tmp_path / "set", micro_batch=2)
    tried = limited_memory(2)
    notes = distill(bench, tmp_path / "found")
    assert len([line for line in notes.lines if "memory ran out with 8 images at once" in line]) == 1
    assert {8, 4} <= set(tried)
    assert student(tmp_path / "found") == student(tmp_path / "set")

    polls = iter(range(100))
    with pytest.raises(Interrupted), stop_when(lambda: next(polls) >= 15):
        distill(bench, tmp_path / "stopped")
    tried.clear()
    distill(bench, tmp_path / "stopped")
    assert set(tried) == {2}, "a resumed run knows the size"
    assert student(tmp_path / "stopped") == student(tmp_path / "set")


def test_the_time_is_measured_with_what_fits(bench: Bench, limited_memory: Callable[[int], list[int]]) -> None:
    parts = {"data": {"root": str(bench.data)}, "teacher": {"spec": bench.teacher}, "device": "cpu", "workers": 0}
    config = RunConfig.model_validate(parts | {"student": {"spec": bench.student, "size": 32}})
    tried = limited_memory(3)
    with using_threads(1):  # of several threads, each computes a part of the batch
        rates = Rates.measure(config, open_student(config), 8, Accelerator(cpu=True), 1)
    assert rates.training > 0
    assert 8 in tried
    assert min(tried) == 2
