"""`vl2v final` repeats a run with every domain as a source and estimates its accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_dataset import TINY, Bench
from typer.testing import CliRunner

import vl2v
from vl2v.cli import app
from vl2v.commands.final import Expected, final
from vl2v.errors import BudgetError, ConfigError, RunError
from vl2v.evaluation.evaluation import DomainScore, Evaluation
from vl2v.locations import StoragePaths

SMALL = TINY | {"recipe": "paper", "distill": {"steps": 4, "checkpoint_every": 2, "learning_rate": 1e-3}}


def distill(bench: Bench, out: Path, held_out: tuple[str, ...] = ("rose",), **more: Any) -> Path:
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    vl2v.distill(
        bench.data, bench.teacher, bench.student, out=out, held_out=held_out, storage=storage, report=False,
        settings=SMALL | more,
    )  # fmt: skip
    return out


@pytest.mark.slow
def test_every_domain_is_a_source_and_nothing_is_bought(bench: Bench, tmp_path: Path) -> None:
    first, out = distill(bench, tmp_path / "first"), tmp_path / "final"
    result = CliRunner().invoke(app, ["final", str(first), "--out", str(out), "--no-report", "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["image_queries"], values["text_queries"]) == (0, 0)
    assert {row["role"] for row in values["domains"]} == {"in-domain"}
    measured = json.loads((first / "evaluation.json").read_text())["means"]["out_of_domain"]["student"]
    assert values["expected"]["accuracy"] == pytest.approx(measured)
    assert json.loads((out / "expected.json").read_text())["domains"] == ["rose"]
    settings = [yaml.safe_load((run / "config.yaml").read_text()) for run in (first, out)]
    assert (settings[0]["data"].pop("held_out"), settings[1]["data"].pop("held_out")) == (["rose"], [])
    for each in settings:
        del each["budget"], each["origin"]
    assert settings[0] == settings[1]


@pytest.mark.slow
def test_images_that_the_first_run_did_not_buy_need_a_budget(bench: Bench, tmp_path: Path) -> None:
    teacher = {"price_per_1000_images": "1", "price_per_1000_texts": "1", "zero_shot": False}
    bench_copy = bench.copy(tmp_path)
    first = distill(bench_copy, tmp_path / "first", teacher=teacher, budget="5")
    with pytest.raises(BudgetError):
        final(first, tmp_path / "final", report=False)
    assert not (tmp_path / "final").exists()
    done, _ = final(first, tmp_path / "final", budget="5", report=False)
    assert done is not None
    assert done.image_queries > 0


@pytest.mark.slow
def test_runs_without_a_held_out_domain_or_an_end_are_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no held-out domain"):
        final(distill(bench, tmp_path / "all", held_out=()), tmp_path / "final")
    (tmp_path / "all" / "evaluation.json").unlink()
    with pytest.raises(RunError, match=r"(?s)not finished.*--resume"):
        final(tmp_path / "all", tmp_path / "final")
    assert not (tmp_path / "final").exists()


def evaluation(*values: float) -> Evaluation:
    rows = [DomainScore(f"d{i}", "out-of-domain", 100, value) for i, value in enumerate(values)]
    return Evaluation((DomainScore("s", "in-domain", 100, 0.99), *rows))


def test_the_interval_of_one_domain_is_over_images() -> None:
    expected = Expected.of(evaluation(0.8))
    assert expected is not None
    assert (expected.low, expected.high) == pytest.approx((0.711, 0.867), abs=1e-3)
    assert "one domain says little" in str(expected)
    assert Expected.of(evaluation()) is None


def test_the_interval_of_several_domains_covers_a_new_one() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        *measured, new = generator.normal(0.6, 0.05, 5)
        expected = Expected.of(evaluation(*measured))
        assert expected is not None
        covered += expected.low <= new <= expected.high
    assert 0.92 < covered / 400 < 0.98


@pytest.mark.parametrize("name", ["nothing", "other", "file"])
def test_a_folder_without_a_run_is_refused_with_options_that_the_command_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["final", str(tmp_path / name), "--out", str(tmp_path / "final")])
    assert result.exit_code == RunError.exit_code
    assert "contains no run" in result.output
    assert "vl2v distill" in result.output
    assert "--resume" not in result.output
    assert not (tmp_path / "final").exists()
    resumed = CliRunner().invoke(app, ["distill", "--resume", "--out", str(tmp_path / name)])
    assert "omit --resume" in resumed.output


def test_the_command_that_finishes_the_first_run_can_be_pasted(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    settings = {"data": {"root": "."}, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}}
    settings |= {"made_with": {}}  # at the end of complete settings
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(RunError, match="is not finished") as caught:
        final(run, tmp_path / "final")
    assert f"vl2v distill --out '{run}' --resume" in caught.value.next_step


@pytest.mark.slow
def test_an_interrupted_run_continues(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, out = distill(bench, tmp_path / "first"), tmp_path / "final"
    with monkeypatch.context() as patched:
        patched.setattr("vl2v.commands.distill.train", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            final(first, out, report=False)
    assert (out / "config.yaml").is_file()
    for _ in range(2):  # and a finished one is evaluated again
        done, expected = final(first, out, report=False)
        assert done is not None
        assert expected.domains == ("rose",)
        assert json.loads((out / "expected.json").read_text())["domains"] == ["rose"]
