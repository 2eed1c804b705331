"""On a CPU, the time limit also chooses the image size of the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture

import vl2v
from vl2v.config import RunConfig
from vl2v.errors import Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import list_folder
from vl2v.progress import Recorder, Silent
from vl2v.settings import make_config
from vl2v.student.backbones import from_module
from vl2v.student.preprocess import Preprocess
from vl2v.training import duration, image_size
from vl2v.training.duration import Rates
from vl2v.training.image_size import with_image_size

NATIVE = 160  # pixels, of the weights of the small student
STEPS = 300 * 24  # images of the steps that a larger size leaves


def settings_of(bench: Bench, minutes: Any = None, **student: Any) -> RunConfig:
    distill = {} if minutes is None else {"minutes": minutes}
    return make_config(
        None,
        {
            "recipe": "ood",
            "data": {"root": str(bench.data), "held_out": ("rose",)},
            "teacher": {"spec": bench.teacher},
            "student": {"spec": bench.student, **student},
            "distill": distill,
            "device": "cpu",
            "threads": 1,
        },
    )


def chosen(config: RunConfig, monkeypatch: pytest.MonkeyPatch, seconds: float) -> int | None:
    """Return the size that is chosen if `STEPS` images take `seconds` with 128 pixels."""
    monkeypatch.setattr(Rates, "measure", classmethod(lambda *_, **__: Rates(seconds / STEPS, 0.0)))
    settled, backbone = with_image_size(config, list_folder(config.data), Accelerator(cpu=True), Silent())
    assert backbone is None or backbone.preprocess.size == (settled.student.size or NATIVE)
    return settled.student.size


@pytest.mark.parametrize(
    ("minutes", "seconds", "size"),
    [
        (None, 150, None),  # 234 s with 160 pixels, within the 5 minutes of auto
        (None, 250, 128),  # 391 s with 160 pixels
        (None, 10_000, 128),  # no size ends in time
        ("10m", 250, None),
        ("2m", 100, 128),
        ("none", 10_000, None),
    ],
)
def test_the_largest_size_that_ends_in_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, minutes: str | None, seconds: float, size: int | None
) -> None:
    assert chosen(settings_of(bench, minutes), monkeypatch, seconds) == size


@pytest.mark.parametrize(("seconds", "size"), [(380, None), (400, 128), (10_000, 128)])
def test_the_largest_size_that_leaves_enough_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: float, size: int | None
) -> None:
    monkeypatch.setattr(image_size, "ENOUGH_STEPS", 150)  # of 300, in 300 s
    assert chosen(settings_of(bench), monkeypatch, seconds) == size


@pytest.mark.parametrize("seconds", [30, 1500])
def test_the_limit_of_auto_is_that_of_the_smallest_size(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(duration, "AUTO_EPOCHS", 200)  # 400 steps
    monkeypatch.setattr(Rates, "measure", classmethod(lambda *_, **__: Rates(seconds / STEPS, 0.0)))
    config, listing = settings_of(bench), list_folder(settings_of(bench).data)
    settled, _ = with_image_size(config, listing, Accelerator(cpu=True), Silent())
    images = 48 * 200  # of two domains, without the validation images
    assert settled.distill.minutes == pytest.approx(max(5, images * seconds / STEPS / 60), rel=0.01)


def test_sizes_between_the_smallest_and_that_of_the_weights(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_size, "SIZES", (32, 64, 96, 128))
    assert [chosen(settings_of(bench, "1m"), monkeypatch, s) for s in (61, 16, 14, 7, 6, 3, 2)] == [
        32, 32, 64, 64, 96, 128, None,
    ]  # fmt: skip


def test_a_stated_size_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(settings_of(bench, size=96), monkeypatch, 1e6) == 96


def test_with_a_stated_number_of_steps_the_size_is_that_of_the_weights(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_of(bench)
    counted = make_config(None, {"recipe": "ood", "distill": {"steps": 300}, "data": {"root": str(bench.data)},
                                 "teacher": {"spec": bench.teacher}, "student": {"spec": bench.student}})  # fmt: skip
    assert (config.distill.minutes, counted.distill.minutes) == ("auto", 0)
    assert chosen(counted, monkeypatch, 1e6) is None


def test_a_backbone_of_one_size_is_used_at_that_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rigid(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), 3 * NATIVE * NATIVE)[:, :8]

    rigid = from_module(Rigid(), Preprocess(NATIVE, (0.5,) * 3, (0.5,) * 3))
    monkeypatch.setattr(image_size, "open_student", lambda _: rigid)
    assert chosen(settings_of(bench), monkeypatch, 1e6) is None


def test_a_run_stores_its_size_and_a_quote_names_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rates, "measure", classmethod(lambda *_, **__: Rates(1.0, 0.0)))
    storage, notes = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"), Recorder(Silent())
    settings = {"recipe": "ood", "align": {"steps": 4}, "distill": {"minutes": "20s"}, "device": "cpu", "threads": 1}
    arguments: dict[str, Any] = {"held_out": ["rose"], "settings": settings, "storage": storage, "progress": notes}
    quote = vl2v.quote(bench.data, bench.teacher, bench.student, **arguments)
    assert quote.training is not None
    assert "images of 128 pixels" in str(quote.training)
    out = tmp_path / "run"
    with stop_when(lambda: (out / "state.safetensors").exists()), pytest.raises(Interrupted):
        vl2v.distill(bench.data, bench.teacher, bench.student, **arguments, out=out, report=False)
    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert (stored["student"]["size"], stored["distill"]["minutes"], stored["distill"]["steps"]) == (128, 0, 20)
