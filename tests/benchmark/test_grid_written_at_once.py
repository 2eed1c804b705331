"""Processes that open one benchmark at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vl2v.benchmark.protocol import Grid, Origin, load_grid, make_variants, save_grid


def test_the_grid_can_be_written_by_several_at_the_same_time(tmp_path: Path) -> None:
    settings = {"data": {"root": "x"}, "teacher": {"spec": "file:x"}, "student": {"spec": "timm:x"}}
    grid = Grid(settings=settings, variants=make_variants(("erm",), {}), domains=("a", "b"), targets=("a",))
    origin = Origin("d", "t", "s")

    def write(_: int) -> None:
        for _ in range(20):
            save_grid(tmp_path, grid, origin)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert load_grid(tmp_path) == (grid, origin)
