"""A method with a penalty trains with several threads."""

from __future__ import annotations

from pathlib import Path

from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture

import vl2v
from vl2v.locations import StoragePaths
from vl2v.progress import Silent


def test_miro_trains_with_two_threads(bench: Bench, tmp_path: Path) -> None:
    run = vl2v.distill(
        bench.data,
        bench.teacher,
        bench.student,
        out=tmp_path / "run",
        held_out=["rose"],
        settings=TINY | {"method": "miro", "threads": 2, "distill": {"steps": 6, "checkpoint_every": 6}},
        storage=StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"),
        report=False,
        progress=Silent(),
    )
    assert run is not None
    assert (run.folder / "student" / "model.safetensors").is_file()
