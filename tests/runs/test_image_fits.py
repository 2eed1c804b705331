"""`student.fit` determines how an image becomes a square, and is stored in the student."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture
from torch import nn
from typer.testing import CliRunner

import vl2v
from vl2v.api import _backbone
from vl2v.cli import app
from vl2v.commands.evaluate import classify
from vl2v.config import RunConfig
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex, read_all
from vl2v.errors import ConfigError, StudentError
from vl2v.evaluation.predictions import read_predictions
from vl2v.locations import StoragePaths
from vl2v.onnx_export.sample import run_sample
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.serve.collect import build
from vl2v.student.backbones import Backbone, from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.validation import parse
from vl2v_runtime.errors import ModelError
from vl2v_runtime.fits import RESIZES, Fit
from vl2v_runtime.imaging import PADDING, square
from vl2v_runtime.metadata import Metadata
from vl2v_runtime.model import load

FITS = get_args(Fit)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
GREY: tuple[float, float, float] = (0.5, 0.5, 0.5)
BASE: dict[str, Any] = {"data": {"root": "."}, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}}


def striped(upright: bool = False) -> Image.Image:
    """64 x 32 pixels: 16 red, 32 green, 16 blue from left to right; or turned by 90 degrees."""
    image = Image.new("RGB", (64, 32), GREEN)
    image.paste(RED, (0, 0, 16, 32))
    image.paste(BLUE, (48, 0, 64, 32))
    return image.transpose(Image.Transpose.TRANSPOSE) if upright else image


@pytest.mark.parametrize("upright", [False, True])
def test_what_each_fit_shows(upright: bool) -> None:
    squashed, cropped, padded = (square(striped(upright), 16, fit) for fit in FITS)
    if upright:
        squashed, cropped, padded = (pixels.transpose(1, 0, 2) for pixels in (squashed, cropped, padded))
    assert [tuple(squashed[8, x]) for x in (0, 8, 15)] == [RED, GREEN, BLUE]
    assert (cropped == GREEN).all()
    assert (padded[:4] == PADDING).all()
    assert (padded[12:] == PADDING).all()
    assert [tuple(padded[y, x]) for y in (4, 11) for x in (0, 8, 15)] == 2 * [RED, GREEN, BLUE]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (33, 32), (7, 7), (16, 16), (1, 1)])
def test_every_shape_becomes_a_square(fit: Fit, shape: tuple[int, int]) -> None:
    image = Image.new("RGB", shape, BLUE)
    pixels = square(image, 16, fit)
    assert pixels.shape == (16, 16, 3)
    assert (pixels == BLUE).all(axis=2).any()
    if shape[0] == shape[1]:
        assert np.array_equal(pixels, square(image, 16))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    striped().save(tmp_path / "data" / "wide.png")
    striped(upright=True).save(tmp_path / "data" / "high.png")
    return tmp_path / "data"


def opened(folder: Path) -> Iterator[PixelCache]:
    for fit in FITS:
        with closing(PixelCache(folder, 16, fit)) as cache:
            yield cache


def test_caches_of_one_folder_do_not_mix_fits(images: Path, tmp_path: Path) -> None:
    folder, names = tmp_path / "cache", ["wide.png", "high.png"]
    for _ in range(2):  # the second time, the index has the files and the caches have their pixels
        with closing(FileIndex(folder / "files.sqlite")) as index:
            for cache in opened(folder):
                digests, _ = read_all(images, names, index=index, cache=cache)
                expected = np.stack([square(Image.open(images / name), 16, cache.fit) for name in names])
                assert np.array_equal(cache.map()[cache.slots(digests)], expected), cache.fit
    assert (folder / "pixels-16.u8").exists(), "the cache of earlier versions is that of squash"


def test_a_new_index_preserves_the_features_of_other_fits(tmp_path: Path) -> None:
    for cache in opened(tmp_path):
        cache.features_folder.mkdir()
    for damaged, fit in (("pixels-16", "squash"), ("pixels-crop-16", "crop")):
        before = {cache.fit: cache.features_folder for cache in opened(tmp_path)}
        (tmp_path / f"{damaged}.sqlite").write_bytes(b"broken" * 1000)
        assert {cache.fit for cache in opened(tmp_path) if not before[cache.fit].exists()} == {fit}
        for cache in opened(tmp_path):
            cache.features_folder.mkdir(exist_ok=True)


class Mean(nn.Module):
    """[B, 3, S, S] to [B, 3]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def student_of(fit: Fit) -> Student:
    backbone = from_module(Mean(), Preprocess(16, GREY, GREY, fit))
    return Student(backbone, nn.Identity(), torch.eye(3), ["red", "green", "blue"], 20.0)


@pytest.mark.parametrize("fit", FITS)
def test_a_student_file_has_its_fit(fit: Fit, images: Path, tmp_path: Path) -> None:
    student = student_of(fit)
    loaded = Student.load(student.save(tmp_path / "student"), backbone=Mean())
    assert loaded.preprocess == student.preprocess
    pixels = loaded.preprocess.pixels(images / "wide.png").numpy().transpose(1, 2, 0)
    assert np.array_equal(pixels, square(striped(), 16, fit))


STRANGE: list[dict[str, Any]] = [
    {"fit": value, "resize": RESIZES["squash"]}
    for value in ("stretch", "Squash", "", None, 1, True, ["crop"], {"crop": 1}, "crop\x1b[31m", "x" * 9999, "crop")
]
STRANGE += [{"fit": "crop", "resize": "crop"}, {"resize": RESIZES["pad"]}, {"fit": "pad", "resize": None}]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda strange: ascii(strange)[:40])
def test_an_unknown_fit_in_a_file_is_refused(strange: dict[str, Any], tmp_path: Path) -> None:
    folder = student_of("squash").save(tmp_path / "student")
    card = json.loads((folder / "student.json").read_text())
    card["preprocess"] = {k: v for k, v in card["preprocess"].items() if k not in ("fit", "resize")} | strange
    (folder / "student.json").write_text(json.dumps(card))
    with pytest.raises(StudentError) as refused:
        Student.load(folder, backbone=Mean())
    meta = json.loads(Metadata(("a", "b"), 16, GREY, GREY, 1.0, "cosine").to_json())
    meta["preprocess"] = card["preprocess"]
    with pytest.raises(ModelError) as refused_too:
        Metadata.from_json(json.dumps(meta), "model.onnx")
    for error in (refused.value, refused_too.value):
        assert error.expected
        assert error.found
        assert error.next_step
        assert len(str(error)) < 1000
        assert "\x1b" not in str(error)


def test_files_and_settings_of_earlier_versions_squash(tmp_path: Path) -> None:
    folder = student_of("squash").save(tmp_path / "student")
    card = json.loads((folder / "student.json").read_text())
    assert card["preprocess"].pop("fit") == "squash"
    assert card["preprocess"]["resize"] == "square, bilinear, antialiased", "which earlier versions require"
    (folder / "student.json").write_text(json.dumps(card))
    assert Student.load(folder, backbone=Mean()).preprocess.fit == "squash"
    meta = json.loads(Metadata(("a", "b"), 16, GREY, GREY, 1.0, "cosine").to_json())
    assert meta["preprocess"].pop("fit") == "squash"
    assert Metadata.from_json(json.dumps(meta), "model.onnx").fit == "squash"
    for recipe in ("paper", "ood"):
        assert parse(RunConfig, BASE | {"recipe": recipe}, "the settings").student.fit == "squash"


def test_an_unknown_fit_is_refused_before_anything_else(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"student.fit: .*'squash', 'crop' or 'pad'.*found 'stretch'"):
        parse(RunConfig, BASE | {"student": {"spec": "x", "fit": "stretch"}}, "the settings")
    flags = ["--teacher", "offline:", "--student", "offline:", "--fit", "stretch", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["distill", str(images), *flags])
    assert done.exit_code == 2
    assert "student.fit" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fit", FITS)
def test_a_student_from_python_gets_the_fit_of_the_settings(fit: Fit) -> None:
    config = parse(RunConfig, BASE | {"student": {"spec": "x", "size": 16, "fit": fit}}, "the settings")
    assert _backbone(Mean(), config).preprocess.fit == fit
    padded: Backbone = from_module(Mean(), Preprocess(16, GREY, GREY, "pad"))
    assert _backbone(padded, config).preprocess.fit == ("pad" if fit == "squash" else fit)


@pytest.mark.parametrize(("size", "side"), [(None, 224), (64, 64)])
def test_a_quote_without_a_student_counts_the_pixel_cache_at_the_stated_size(
    bench: Bench, tmp_path: Path, size: int | None, side: int
) -> None:
    flags = ["--teacher", bench.teacher, "--cache", str(tmp_path / "c"), "--store", str(tmp_path / "s.sqlite")]
    done = CliRunner().invoke(
        app, ["quote", str(bench.data), *flags, "--json", *(["--size", str(size)] if size else [])]
    )
    assert done.exit_code == 0, done.output
    count = len(list(bench.data.rglob("*.png")))
    assert json.loads(done.stdout)["disk_bytes"]["pixel cache"] == count * side * side * 3


@pytest.mark.slow
def test_a_run_and_its_files_see_the_same_pixels(bench: Bench, tmp_path: Path) -> None:
    """Distill with `crop` on wide images whose edges mislead: evaluation, predict, evaluate and the export agree."""
    bench = bench.copy(tmp_path / "bench")
    generator = np.random.default_rng(0)
    for path in bench.data.rglob("*.png"):
        wide = Image.fromarray(generator.integers(0, 256, (48, 96, 3), dtype=np.uint8))
        wide.paste(Image.open(path), (24, 0))
        wide.save(path)
    storage = StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")
    settings = TINY | {"student": {"size": 32, "fit": "crop"}, "distill": {"steps": 4, "checkpoint_every": 2}}
    run = vl2v.distill(
        bench.data, bench.teacher, bench.student, out=tmp_path / "run", held_out=["rose"], settings=settings,
        storage=storage, report=False,
    )  # fmt: skip
    assert run is not None
    student = Student.load(tmp_path / "run")
    assert student.preprocess.fit == "crop"
    accuracies = {row.domain: row.student for row in run.evaluation.rows}
    again = vl2v.evaluate(tmp_path / "run", bench.data, storage=storage)
    assert {row.domain: row.student for row in again.rows} == accuracies
    part = read_predictions(tmp_path / "run" / "predictions.npz")
    files = [bench.data / path for path in part.path]
    logits = student.logits(student.project(files)).numpy()
    assert np.allclose(logits, part.student, atol=0.02)  # stored in half precision
    answers, _ = classify(student, files)
    assert [answer.label for answer in answers] == [student.classes[k] for k in part.answers]
    config = RunFolder(tmp_path / "run").config()
    sample = run_sample(student, config.data, storage, Silent())
    rows = {square(Image.open(path), 32, "crop").tobytes() for path in bench.data.rglob("*.png")}
    assert {pixels.tobytes() for pixels in sample.pixels} <= rows
    vl2v.export(tmp_path / "run", onnx=True, storage=storage)
    model = load(tmp_path / "run" / "export" / "model.onnx")
    assert np.allclose(model.logits(files), logits, atol=1e-3)
    gallery = build(config, model, storage, Silent())
    pictures = {path: model.embed(path)[0] for path in bench.data.rglob("*.png")}
    nearest = np.stack(list(pictures.values())) @ gallery.embeddings.T
    assert np.allclose(nearest.max(axis=0), 1, atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "cache").glob("*.u8")) == ["pixels-crop-32.u8"]
    student.preprocess = replace(student.preprocess, fit="squash")
    assert not np.allclose(student.logits(student.project(files)).numpy(), logits, atol=1e-1), (
        "the test would have no effect"
    )
