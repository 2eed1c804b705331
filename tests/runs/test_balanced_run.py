"""A run with --balance auto on imbalanced data chooses the exponent once, stores it and continues with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture

import vl2v
from vl2v.json_files import read_json
from vl2v.locations import StoragePaths
from vl2v.training import balance
from vl2v.training.balance import macro_accuracy


def run(bench: Bench, out: Path, exponent: float | str) -> bytes:
    """The weights of a run."""
    settings = TINY | {"distill": {"steps": 4, "checkpoint_every": 2, "metric": "macro"}, "data": {"balance": exponent}}
    vl2v.distill(
        bench.data, bench.teacher, bench.student, out=out, held_out=["rose"], settings=settings,
        storage=StoragePaths(bench.root / "cache", bench.root / "s.sqlite"), report=False,
    )  # fmt: skip
    return (out / "student" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_chosen_exponent_is_stored_and_gives_the_same_run_as_when_stated(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = macro_accuracy

    def prefers_a_half(*arguments: Any) -> float:
        assert 0 <= probe(*arguments) <= 1
        return 1 - abs(float(arguments[-1]) - 0.5)

    monkeypatch.setattr(balance, "macro_accuracy", prefers_a_half)
    bench_copy = bench.copy(tmp_path / "bench")
    for domain in ("ink", "neon"):
        for i in range(3, 10):
            (bench_copy.data / domain / "bar" / f"{i}.png").unlink()
    weights = run(bench_copy, tmp_path / "auto", "auto")
    stored = yaml.safe_load((tmp_path / "auto" / "config.yaml").read_text())["data"]["balance"]
    assert stored == 0.5
    evaluation = read_json(tmp_path / "auto" / "evaluation.json")
    assert evaluation["metric"] == "macro"
    assert run(bench_copy, tmp_path / "number", stored) == weights
    assert run(bench_copy, tmp_path / "other", 0.0) != weights
