"""A time limit becomes a number of steps before the first step, and this number does not change later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture
from typer.testing import CliRunner

import vl2v
from recorders import NoteRecorder
from vl2v.cli import app
from vl2v.config import RunConfig
from vl2v.errors import ConfigError, Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.planning.models import open_student
from vl2v.schema import DistillConfig, minutes_of
from vl2v.training.duration import FEWEST, Rates, Workload, longest, seconds_of, within
from vl2v.training_time import TrainingTime

WORK = Workload(train=5000, batch=24, validation=1000, test=2000)
SLOW = Rates(training=3e-2, passing=1e-2)


@given(st.integers(1, 6000), st.integers(1, 400), st.floats(1, 1e5))
def test_the_longest_run_that_ends_in_time(steps: int, every: int, seconds: float) -> None:
    wanted = DistillConfig(steps=steps, checkpoint_every=every, minutes=seconds / 60)
    limited = within(wanted, seconds, WORK, SLOW)
    assert limited.minutes == 0
    assert min(FEWEST, steps) <= limited.steps <= steps
    assert limited.checkpoint_every <= every
    assert within(limited, seconds, WORK, SLOW) == limited or limited.steps <= FEWEST
    if limited.steps > FEWEST:
        assert seconds_of(limited, WORK, SLOW) <= seconds
    if limited.steps < steps:
        assert seconds_of(wanted, WORK, SLOW) > seconds
        assert limited.steps < 24 or limited.steps // limited.checkpoint_every >= min(12, limited.steps // every)


@pytest.mark.parametrize(
    ("images", "seconds"),
    [(500, 300), (1000, 300), (2000, 2000 * 0.3), (20_000, 3600)],  # 10 epochs take 0.3 s per image
)
def test_auto_is_five_minutes_or_ten_epochs_or_an_hour(images: int, seconds: float) -> None:
    work, wanted = replace(WORK, train=images, validation=0, test=0), DistillConfig(steps=10**6, minutes="auto")
    assert longest(wanted, work, Rates(training=3e-2, passing=0.0)) == pytest.approx(seconds, rel=0.01)
    shortened = within(wanted, longest(wanted, work, SLOW), work, SLOW)
    assert shortened.minutes == 0


def test_a_run_is_shortened_with_a_note_and_resumed_with_its_steps(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rates, "measure", classmethod(lambda *_: Rates(training=0.01, passing=0.0)))
    notes, storage = NoteRecorder(), StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    settings: dict[str, Any] = {
        "student": {"size": 32},
        "align": {"steps": 4},
        "distill": {"steps": 900, "minutes": 0.04, "learning_rate": 1e-3},  # 2.4 s: 30 steps of 8 images
        "batch_per_domain": 4,
        "device": "cpu",
        "workers": 0,
        "threads": 1,
    }
    arguments: dict[str, Any] = {"out": tmp_path / "run", "storage": storage, "progress": notes, "report": False}
    with stop_when(lambda: (tmp_path / "run" / "state.safetensors").exists()), pytest.raises(Interrupted):
        vl2v.distill(bench.data, bench.teacher, bench.student, held_out=["rose"], settings=settings, **arguments)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["distill"]
    assert (stored["steps"], stored["checkpoint_every"], stored["minutes"]) == (30, 2, 0)
    expected = "30 steps of 8 images of 32 pixels will take about 2 s, within the time limit; 900 steps would"
    assert any(line.startswith(expected) for line in notes.lines), notes.lines
    monkeypatch.setattr(Rates, "measure", classmethod(lambda *_: pytest.fail("measured again")))
    run = vl2v.distill(resume=True, **arguments)
    assert run is not None
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["distill"] == stored


def test_timing_does_not_change_the_student(bench: Bench) -> None:
    config = RunConfig.model_validate(
        {"data": {"root": "."}, "teacher": {"spec": bench.teacher}, "student": {"spec": bench.student, "size": 32}}
    )
    backbone = open_student(config)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    state = torch.get_rng_state()
    rates = Rates.measure(config, backbone, 4, Accelerator(cpu=True))
    assert rates.training > 0
    assert rates.passing > 0
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in backbone.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in backbone.module.parameters())


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30m", 30), ("90s", 1.5), ("1.5h", 90), ("30", 30), (" 2 H ", 120), ("45min", 45), ("none", 0)],
)
def test_times_are_parsed(text: str, minutes: float) -> None:
    assert minutes_of(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "0s", "1h30m", "nan", "inf", "3 days", "1e3m"])
def test_wrong_times_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        minutes_of(text)
    result = CliRunner().invoke(app, ["distill", "x", "--teacher", "file:x", "--student", "offline:", "--time", text])
    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigError | SystemExit)


def test_a_limit_that_the_fewest_steps_exceed_is_named() -> None:
    over, within_limit = (TrainingTime(20, 24, 128, seconds, 900, 9000.0, 60.0) for seconds in (180.0, 59.0))
    assert "about 3 min, the fewest possible, longer than 60 s; 900 steps" in str(over)
    assert "about 59 s, within the time limit; 900 steps" in str(within_limit)
