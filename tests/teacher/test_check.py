from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from misbehaving_vendor import PER_IMAGE, PER_TEXT, UnreliableVendor
from PIL import Image
from typer.testing import CliRunner

from vl2v.api import make_config
from vl2v.cli import app
from vl2v.commands.check import SWATCHES, check_teacher
from vl2v.errors import BudgetError, ConfigError, TeacherError
from vl2v.locations import StoragePaths
from vl2v.planning.plan import plan_run
from vl2v.progress import Silent
from vl2v.purchase import BudgetAccount, ensure_affordable, open_budget, purchase
from vl2v.teacher.base import Embeddings, Price, TeacherCard
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.retry import RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime.imaging import decode

COLOURS = {name: np.array(rgb, np.float32) - 100 for name, rgb in SWATCHES.items()}


@dataclass
class Eye:
    """A teacher whose embeddings are mean colours of images and named colours of texts."""

    price: Price = field(default_factory=lambda: Price(Decimal(10), Decimal(1)))
    blind: bool = False
    alternating: bool = False
    queried: int = 0

    def describe(self) -> TeacherCard:
        return TeacherCard("test:eye", f"{self.blind}{self.alternating}", 3, 10.0, self.price, 4)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        self.queried += len(images)
        seen = np.stack([np.asarray(decode(image), np.float32).mean((0, 1)) - 100 for image in images])
        if self.blind:
            seen = np.stack([np.frombuffer(hashlib.sha256(i).digest()[:3], np.uint8) for i in images]) - 128.0
        return np.asarray(seen * (-1.0) ** (self.alternating * self.queried) + self.alternating * 30, np.float32)

    def embed_texts(self, texts: list[str]) -> Embeddings:
        self.queried += len(texts)
        return np.stack([next(v for name, v in COLOURS.items() if name in text) for text in texts])


@pytest.fixture
def storage(tmp_path: Path) -> StoragePaths:
    return StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for domain in ("ink", "rose"):
        for name, rgb in SWATCHES.items():
            for i in range(6):
                path = tmp_path / "data" / domain / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = generator.integers(-20, 20, (16, 16, 3)) + np.array(rgb)
                Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)
    return tmp_path / "data"


def test_a_good_teacher_passes_and_the_job_is_quoted(data: Path, storage: StoragePaths) -> None:
    eye = Eye()
    result = check_teacher(eye, data, budget=Decimal(1), images=10, storage=storage)
    assert (result.accuracy, result.images, result.classes) == (1.0, 10, 4)
    assert result.one_space
    assert result.deterministic
    assert result.queries == (11, 4)
    assert eye.queried == 15
    assert result.spent == Decimal("0.114") == Ledger(EmbeddingStore(storage.store)).spent()
    assert result.job is not None
    assert result.job.image_queries == 48 - 10  # embeddings bought by the check are not paid again
    assert result.job.text_queries == 0
    assert result.job.cost == Decimal("0.38")
    again = check_teacher(eye, data, budget=Decimal(1), images=10, storage=storage)
    assert again.queries == (1, 0)


def test_coloured_images_are_generated_if_there_is_no_data(storage: StoragePaths) -> None:
    result = check_teacher(Eye(), budget=Decimal(1), storage=storage)
    assert (result.accuracy, result.images, result.job) == (1.0, 4, None)
    assert result.one_space


def test_a_student_without_data_is_refused_before_anything_is_sent(storage: StoragePaths) -> None:
    with pytest.raises(ConfigError, match="labelled images"):
        check_teacher("offline:", storage=storage, settings={"student": {"spec": "offline:"}})
    assert not storage.store.exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--images", "100"], "--images has no effect"),
        (["--set", "teacher.prompts=['a {}']"], "teacher.prompts has no effect"),
        (["--set", "seed=3", "--student", "timm:resnet18"], "have no effect"),
        ([], ""),
        (["--price-per-1000-images", "2"], ""),
    ],
)
def test_settings_that_need_labelled_images_have_no_effect_without_them(
    storage: StoragePaths, more: list[str], named: str
) -> None:
    paths = ["--cache", str(storage.cache), "--store", str(storage.store)]
    done = CliRunner().invoke(app, ["teacher", "check", "file:missing.npz", *paths, *more])
    assert done.exit_code
    assert named in done.stderr
    assert ("no effect" in done.stderr) == bool(named)


def test_a_teacher_of_two_spaces_and_one_that_is_not_deterministic_are_reported(
    data: Path, storage: StoragePaths
) -> None:
    blind = check_teacher(Eye(blind=True), data, budget=Decimal(1), storage=storage)
    assert not blind.one_space
    assert blind.deterministic
    assert not check_teacher(Eye(alternating=True), data, budget=Decimal(1), storage=storage).deterministic


def test_a_check_costs_at_most_its_budget(data: Path, storage: StoragePaths) -> None:
    eye = Eye()
    with pytest.raises(BudgetError, match=r"No budget(.|\n)*--budget 0.114"):
        check_teacher(eye, data, images=10, storage=storage)
    with pytest.raises(BudgetError):
        check_teacher(eye, data, images=10, budget=Decimal("0.113"), storage=storage)
    assert eye.queried == 0


@pytest.fixture
def vendor() -> Iterator[UnreliableVendor]:
    with UnreliableVendor({"429": 0.1}, max_batch=1) as opened:  # so that the repeated image is an identical request
        yield opened


def test_the_command_checks_a_vendor(vendor: UnreliableVendor, data: Path, storage: StoragePaths) -> None:
    command = ["teacher", "check", vendor.url, "--data", str(data), "--budget", "1", "--images", "8", "--json"]
    command += ["--store", str(storage.store), "--cache", str(storage.cache)]
    done = CliRunner().invoke(app, command)
    report = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert done.exit_code == 4  # its embeddings are hashes of the images
    assert (report["one_space"], report["deterministic"], report["dimension"]) == (False, True, 4)
    assert report["spent"] == f"{PER_IMAGE * 9 + PER_TEXT * 4:f}"
    assert vendor.meter.money == PER_IMAGE * 9 + PER_TEXT * 4
    assert sum(vendor.meter.inputs.values()) == 13
    assert max(vendor.meter.inputs.values()) == 2  # one image twice, because a repeated answer would prove nothing


def test_the_command_requires_a_budget(vendor: UnreliableVendor, storage: StoragePaths) -> None:
    done = CliRunner().invoke(app, ["teacher", "check", vendor.url, "--store", str(storage.store)])
    assert done.exit_code == 5
    assert "--budget" in done.stderr
    assert vendor.meter.requests == 0


def test_the_command_prints_a_summary(storage: StoragePaths) -> None:
    with UnreliableVendor() as vendor:
        command = ["teacher", "check", vendor.url, "--store", str(storage.store), "--budget", "1", "--quiet"]
        done = CliRunner().invoke(app, command)
    assert "deterministic   yes" in done.stdout
    assert "one space       not shown" in done.stdout  # for four plain colours
    assert "--data" in done.stdout
    assert "this check      5 image and 4 text queries, 0.0034 USD" in done.stdout


def test_a_run_that_failed_during_the_purchase_needs_no_larger_budget(
    data: Path, tmp_path: Path, storage: StoragePaths
) -> None:
    """The reservation for batches in flight is not required a second time when the run continues."""
    exact = PER_IMAGE * 48 + PER_TEXT * 4
    with UnreliableVendor(script=["", *["500"] * 99], max_batch=8) as vendor:
        settings = {"data": {"root": str(data)}, "teacher": {"spec": vendor.url}, "student": {}, "budget": str(exact)}
        config = make_config(None, settings)

        def attempt() -> None:
            wire = open_wire(f"{vendor.url}#concurrency=1")
            teacher = HttpTeacher(wire, policy=RetryPolicy(attempts=2, first=0.0))
            plan, run = plan_run(config, storage, teacher=teacher, with_student=False), str(tmp_path / "run")
            with closing(EmbeddingStore(storage.store)) as store:
                budget = open_budget(plan, BudgetAccount.of_run(run), store)
                ensure_affordable(plan, budget, tmp_path / "out")
                purchase(plan, budget, store, run, Silent())

        with pytest.raises(TeacherError, match="HTTP 500"):
            attempt()
        assert Ledger(EmbeddingStore(storage.store)).spent(str(tmp_path / "run")) == PER_TEXT * 4 + PER_IMAGE * 8
        vendor.script.clear()
        attempt()
        assert Ledger(EmbeddingStore(storage.store)).spent(str(tmp_path / "run")) == vendor.meter.money == exact
