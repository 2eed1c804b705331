"""Options beyond the paper: averages of Align, the schedule of lambda, fresh views; and where each is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from tiny_dataset import Bench, vl2v

import vl2v as package
from vl2v.benchmark.results import records_of
from vl2v.config import RunConfig
from vl2v.errors import ConfigError, Interrupted
from vl2v.locations import StoragePaths
from vl2v.student.preprocess import Preprocess
from vl2v.teacher.base import Price, TeacherCard
from vl2v.training.data import BatchLoader, TrainingData
from vl2v.training.fresh import FreshViews
from vl2v.validation import parse
from vl2v_runtime.imaging import decode

SMALL: dict[str, Any] = {
    "student": {"size": 32},
    "align": {"steps": 12, "learning_rate": 1e-2},
    "distill": {"steps": 6, "checkpoint_every": 3, "learning_rate": 1e-4},
    "batch_per_domain": 4,
    "workers": 0,
    "device": "cpu",
}


class Colour:
    """A local teacher whose embedding of an image is its mean colour."""

    def __init__(self, price: Price | None = None) -> None:
        self.card = TeacherCard("colour", "1", 3, 10.0, price or Price(), batch_size=5)
        self.seen: list[bytes] = []

    def describe(self) -> TeacherCard:
        return self.card

    def embed_images(self, images: list[bytes]) -> Any:
        assert len(images) <= self.card.batch_size
        self.seen += images
        return np.stack([np.asarray(decode(data)).reshape(-1, 3).mean(0) + 1 for data in images])

    def embed_texts(self, texts: list[str]) -> Any:
        return np.eye(3)[: len(texts)]


def distill(bench: Bench, teacher_arg: Any, out: Path, *, resume: bool = False, **settings: Any) -> Any:
    storage = StoragePaths(bench.root / "cache", out.parent / "vectors.sqlite")
    if resume:
        return package.distill(teacher=teacher_arg, out=out, resume=True, storage=storage, report=False)
    settings["teacher"] = {"accept": True} | settings.get("teacher", {})  # images of one colour share an embedding
    nested = {k: SMALL.get(k, {}) | v if isinstance(v, dict) else v for k, v in settings.items()}
    return package.distill(
        bench.data, teacher_arg, bench.student, out=out, held_out=["rose"], storage=storage, settings=SMALL | nested,
        report=False,
    )  # fmt: skip


@pytest.mark.slow
def test_distill_starts_from_the_average_of_align(bench: Bench, tmp_path: Path) -> None:
    """With a decay near 1 the average stays at the projection of the first step, which Distill does not change."""
    one = {"steps": 1, "learning_rate": 1e-2}
    for name, align in (("first", one), ("ema", {"average": "ema", "ema_decay": 1 - 1e-9}), ("last", {})):
        distill(bench, Colour(), tmp_path / name, align=align)
    first, ema, last = (
        load_file(tmp_path / name / "student" / "model.safetensors")["projection.weight"]
        for name in ("first", "ema", "last")
    )
    torch.testing.assert_close(ema, first, atol=1e-6, rtol=0)
    assert (last - first).abs().max() > 1e-3


@pytest.mark.slow
def test_swad_of_align_stops_at_the_end_of_its_valley(bench: Bench, tmp_path: Path) -> None:
    """At this learning rate the validation loss increases after a few segments."""
    swad = {"n_converge": 1, "n_tolerance": 1, "tolerance_ratio": 0.0}
    align = {"steps": 200, "learning_rate": 1.0, "average": "swad"}
    steps = {"steps": 3, "checkpoint_every": 2, "weights": "last"}
    distill(bench, Colour(), tmp_path / "run", align=align, distill=steps | {"swad": swad})
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    stage = [line for line in lines if line["stage"] == "align"]
    assert stage[-1]["dead_at"] == stage[-1]["step"] < 199
    assert lines[-1]["stage"] == "distill"


def loader(fresh: FreshViews | None = None, **settings: Any) -> BatchLoader:
    rng = np.random.default_rng(0)
    parts = {"data": {"root": "."}, "teacher": {"spec": "x:"}, "student": {"spec": "y:"}}
    config = parse(RunConfig, parts | {"workers": 0, "distill": {"steps": 5}} | settings, "the test")
    rows: NDArray[np.int64] = np.arange(8)
    data = TrainingData(
        pixels=rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8),
        slots=rows,
        labels=rows % 3,
        embeddings=rng.normal(size=(8, 3)).astype(np.float32),
        head=torch.eye(3),
        logit_scale=10.0,
        groups=(rows[:4], rows[4:]),
        shares=(2, 1),
        validation={},
        digest="",
        cache=Path(),
    )
    preprocess = Preprocess(16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return BatchLoader(config, data, preprocess, Accelerator(cpu=True), fresh)


def test_lambda_follows_its_schedule_in_distill() -> None:
    scheduled = loader(image_weight=0.8, image_weight_end=0.2)
    batches = list(scheduled.images(0, 5))
    assert [batches[step].image_weight for step in (0, 2, 4)] == pytest.approx([0.8, 0.5, 0.2])
    resumed = next(scheduled.images(3, 5))
    assert resumed.image_weight == batches[3].image_weight
    aligned = next(scheduled.features(np.zeros((8, 2), np.float32), 0, 5))
    constant = next(loader(image_weight=0.8).images(0, 5))
    assert aligned.image_weight is constant.image_weight is None


def test_fresh_views_have_exactly_the_pixels_that_the_student_sees() -> None:
    fresh = FreshViews(Colour())
    for step, batch in enumerate(loader(fresh).images(0, 3), start=1):
        means = (batch.inputs * 255).mean(dim=(2, 3)) + 1
        torch.testing.assert_close(batch.teacher_image.float(), means, atol=1e-3, rtol=0)
        assert fresh.queries == 3 * step
    assert fresh.teacher.seen[0].startswith(b"\x89PNG")  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_run_with_fresh_views_counts_its_queries_and_stores_no_embedding_of_them(
    bench: Bench, tmp_path: Path
) -> None:
    teacher, plain_teacher = Colour(), Colour()
    fresh = distill(bench, teacher, tmp_path / "a" / "fresh", teacher={"views": "fresh"})
    plain = distill(bench, plain_teacher, tmp_path / "b" / "plain")
    fresh_queries = 6 * 2 * 4  # steps, source domains, images of each
    assert (fresh.fresh_queries, plain.fresh_queries) == (fresh_queries, 0)
    assert fresh.image_queries == plain.image_queries == len(plain_teacher.seen) == len(teacher.seen) - fresh_queries
    evaluation = json.loads((fresh.folder / "evaluation.json").read_text())
    assert evaluation["fresh_queries"] == fresh_queries
    assert "fresh_queries" not in json.loads((plain.folder / "evaluation.json").read_text())
    facts: dict[str, Any] = {"method": "adip", "title": "", "target": "rose", "crossed": None}
    facts |= {"seed": 0, "candidate": {}, "seconds": 0.0}
    for run in (fresh, plain):
        (run.folder / "job.json").write_text(json.dumps(facts))
    records = [records_of(run.folder / "job.json")[0] for run in (fresh, plain)]
    assert records[0].image_queries - records[1].image_queries == fresh_queries, "a benchmark's table counts them"
    sizes = [(tmp_path / run / "vectors.sqlite").stat().st_size for run in "ab"]
    assert sizes[0] == sizes[1], "fresh embeddings are not stored"
    lines = [[json.loads(x) for x in (r.folder / "metrics.jsonl").read_text().splitlines()] for r in (fresh, plain)]
    aligned = [[x | {"origin": ""} for x in run if x["stage"] == "align"] for run in lines]
    assert aligned[0] == aligned[1]
    assert lines[0][-1]["losses"] != lines[1][-1]["losses"]


class Impatient(Colour):
    """Sends SIGINT when it has embedded 20 images."""

    def embed_images(self, images: list[bytes]) -> Any:
        if len(self.seen) < 20 <= len(self.seen) + len(images):
            os.kill(os.getpid(), signal.SIGINT)
        return super().embed_images(images)


@pytest.mark.slow
def test_the_count_of_fresh_views_continues_after_a_stop(bench: Bench, tmp_path: Path) -> None:
    uninterrupted = distill(bench, Colour(), tmp_path / "whole", teacher={"views": "fresh"})
    with pytest.raises(
        Interrupted, match="after step 2 of Distill"
    ):  # everything is bought, and each step has 8 images
        distill(bench, Impatient(), tmp_path / "stopped", teacher={"views": "fresh"})
    again = distill(bench, Colour(), tmp_path / "stopped", resume=True)
    assert again.fresh_queries == uninterrupted.fresh_queries
    one, two = (run.folder / "student" / "model.safetensors" for run in (uninterrupted, again))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("command", ["quote", "distill"])
@pytest.mark.parametrize("spec", ["file", "http://127.0.0.1:9/v1", "jina:jina-clip-v2"])
def test_fresh_views_of_files_and_vendors_are_refused(bench: Bench, tmp_path: Path, spec: str, command: str) -> None:
    spec = bench.teacher if spec == "file" else spec
    flags = ["--teacher", spec, "--held-out", "rose", "--views", "fresh"]
    flags += ["--student", bench.student, "--out", str(tmp_path / "run")] if command == "distill" else []
    done = vl2v(*bench.flags(command, str(bench.data), *flags))
    assert done.returncode == 2, done.stderr
    assert "steps x batch queries" in done.stderr
    assert not (tmp_path / "run").exists()


def test_fresh_views_of_a_teacher_that_charges_are_refused(bench: Bench, tmp_path: Path) -> None:
    teacher = Colour(Price(per_1000_images=1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="charges"):
        distill(bench, teacher, tmp_path / "run", teacher={"views": "fresh"})
    assert not teacher.seen


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"method": "kd", "align": {"solver": "ridge"}}, "align.solver ridge"),
        ({"method": "erm", "image_weight_end": 0.1}, "image_weight_end"),
        ({"method": "erm", "teacher": {"spec": "open_clip:a/b", "views": "fresh"}}, "views fresh"),
        ({"align": {"solver": "ridge", "average": "ema"}}, "ridge has no steps"),
        ({"align": {"average": "swad", "steps": 0}}, "set align.steps"),
        ({"student": {"spec": "teacher"}, "align": {"solver": "ridge"}}, "has no Align"),
        ({"align": {"ridge": 0}}, "align.ridge"),
        ({"align": {"ema_decay": 1}}, "align.ema_decay"),
        ({"teacher": {"spec": "open_clip:a/b", "views": "many"}}, "teacher.views"),
    ],
)
def test_incompatible_settings_are_refused(settings: dict[str, Any], part: str) -> None:
    base = {"data": {"root": "."}, "teacher": {"spec": "open_clip:a/b"}, "student": {"spec": "timm:x"}}
    with pytest.raises(ConfigError, match=part.replace(".", r"\.")):
        parse(RunConfig, base | settings, "the test")
    assert parse(RunConfig, base | {"teacher": {"spec": "x:", "views": "3"}}, "the test").teacher.views == 3


def test_png_preserves_every_pixel() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    teacher = Colour()
    FreshViews(teacher).query(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    for data, image in zip(teacher.seen, pixels, strict=True):
        assert np.array_equal(np.asarray(decode(data)), np.asarray(Image.fromarray(image)))
