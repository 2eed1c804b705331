"""A run lists mirrored copies across its split among its warnings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture

from vl2v import api
from vl2v.data import near_duplicates
from vl2v.locations import StoragePaths
from vl2v.progress import Vl2vWarning


def test_mirrored_copies_are_among_the_warnings_of_a_run(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(near_duplicates, "PARTNERS", 90)  # the teacher's embeddings of a class are random
    bench_copy = bench.copy(tmp_path / "bench")
    for i in range(3):
        picture = Image.open(bench_copy.data / "ink" / "zebra_stripe" / f"{i}.png").transpose(
            Image.Transpose.FLIP_LEFT_RIGHT
        )
        picture.crop((3, 0, 48, 48)).save(bench_copy.data / "rose" / "zebra_stripe" / f"{i}.png")
    storage = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite")
    settings = TINY | {"data": {"held_out": ["rose"]}, "align": {"steps": 1}, "distill": {"steps": 1}}
    with pytest.warns(Vl2vWarning, match="once cropped or mirrored"):
        run = api.distill(
            bench_copy.data,
            bench_copy.teacher,
            bench_copy.student,
            out=tmp_path / "run",
            storage=storage,
            report=False,
            settings=settings,
        )
    assert run is not None
    warnings = json.loads((run.folder / "evaluation.json").read_text())["warnings"]
    assert any(re.search(r"test images? resembles? a training image once cropped", warning) for warning in warnings)
