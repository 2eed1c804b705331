"""A run stops at useless answers, gives the reason, and continues only on request."""

from __future__ import annotations

import hashlib
import io
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dataset import CLASSES, DOMAINS, draw
from typer.testing import CliRunner

from vl2v.api import make_config
from vl2v.cli import app
from vl2v.commands.classes import _check_distinct
from vl2v.errors import TeacherError
from vl2v.locations import StoragePaths
from vl2v.planning.plan import plan_run
from vl2v.progress import Silent
from vl2v.purchase import BudgetAccount, open_budget, purchase
from vl2v.runs.folder import RunFolder
from vl2v.teacher.base import Embeddings, TeacherCard
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.teacher.purchase.watch import TeacherWatch

TEXTS = [f"a photo of a {name.replace('_', ' ')}" for name in CLASSES]
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0].astype(np.float32)


class Painted:
    """A teacher that recognises every image of the dataset and answers with a configurable fault."""

    def __init__(self, data: Path, fault: str = "", batch: int = 8) -> None:
        self.fault, self.batch, self.queries = fault, batch, 0
        rng = np.random.default_rng(1)
        self.rows = {
            path.read_bytes(): BASIS[CLASSES.index(path.parent.name)] + rng.normal(scale=0.1, size=16)
            for path in sorted(data.rglob("*.png"))
        }

    def describe(self) -> TeacherCard:
        return TeacherCard(f"painted {self.fault}", "1", 16, 20.0, batch_size=self.batch)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        self.queries += len(images)
        rows = np.array([self.rows[image] for image in images], np.float32)
        if self.fault == "one embedding":
            rows[:] = BASIS[3]
        if self.fault == "one embedding a request":
            rows[:] = rows[0]
        if self.fault == "reversed":
            rows = rows[::-1]
        if self.fault == "noise":
            rows = np.random.default_rng(self.queries).normal(size=rows.shape).astype(np.float32)
        return rows

    def embed_texts(self, texts: list[str]) -> Embeddings:
        rows = np.array([BASIS[TEXTS.index(text)] for text in texts], np.float32)
        return np.repeat(rows[:1], len(rows), 0) if self.fault == "one text" else rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for domain, colours in DOMAINS.items():
        for kind in CLASSES:
            for i in range(50):
                draw(root / domain / kind / f"{i}.png", kind, colours, rng)
    return root


def buy(teacher: Painted, data: Path, folder: Path, **more: Any) -> None:
    settings = {"data": {"root": str(data), "held_out": ["rose"]}, "student": {}, "batch_per_domain": 4}
    config = make_config(None, settings | {"teacher": {"spec": "painted", **more}})
    storage = StoragePaths(folder / "cache", folder / "s.sqlite")
    plan = plan_run(config, storage, teacher=teacher, with_student=False)
    with closing(EmbeddingStore(storage.store)) as store:
        purchase(plan, open_budget(plan, BudgetAccount(folder, lambda _: True), store), store, "run", Silent())


@pytest.mark.parametrize(
    ("fault", "message", "most_queries"),
    [
        ("one embedding", "same embedding for different images", 64),
        ("one embedding a request", "same embedding for different images", 64),
        ("one text", "same embedding for different texts", 0),
        ("reversed", "returns embeddings in the wrong order", 64),
        ("noise", "agrees with your labels no better than chance", 450),
    ],
)
def test_useless_answers_stop_the_purchase(
    data: Path, tmp_path: Path, fault: str, message: str, most_queries: int
) -> None:
    teacher = Painted(data, fault)
    with pytest.raises(TeacherError, match=rf"{message}(.|\n)*--accept-teacher") as caught:
        buy(teacher, data, tmp_path)
    assert caught.value.exit_code == 4
    assert teacher.queries <= most_queries
    with closing(EmbeddingStore(tmp_path / "s.sqlite")) as store:
        assert sum(e.queries for e in store.entries() if e.kind == "image") == teacher.queries
    before = teacher.queries
    with pytest.raises(TeacherError, match=message):
        buy(teacher, data, tmp_path)
    assert teacher.queries <= before + 64 * (fault == "reversed"), "continuing without confirmation buys nothing more"
    buy(teacher, data, tmp_path, accept=True)


def test_a_good_teacher_gets_every_query(data: Path, tmp_path: Path) -> None:
    teacher = Painted(data)
    buy(teacher, data, tmp_path)
    assert teacher.queries == 450
    buy(teacher, data, tmp_path)


def test_a_small_purchase_is_checked_at_its_end(data: Path, tmp_path: Path) -> None:
    for path in data.rglob("[0-6].png"):
        to = tmp_path / "few" / path.relative_to(data)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    teacher = Painted(data, "one embedding", batch=100)
    with pytest.raises(TeacherError, match="same embedding for different images"):
        buy(teacher, tmp_path / "few", tmp_path, zero_shot=False)
    assert teacher.queries < 64


def picture(colour: tuple[int, int, int], form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(out, form)
    return out.getvalue()


def watch_images(contents: list[bytes], embeddings: np.ndarray) -> TeacherWatch:
    watch = TeacherWatch("t", {}, lambda: BASIS[:3])
    digests = np.array([list(hashlib.sha256(c).digest()) for c in contents], np.uint8)
    watch.images(digests, embeddings.astype(np.float32), contents.__getitem__)
    watch.look()
    return watch


def test_copies_of_an_image_in_other_files_may_share_an_embedding() -> None:
    contents = [picture((i * 20, 0, 0), form) for i in range(8) for form in ("PNG", "BMP")]
    watch_images(contents, np.repeat(BASIS[:8], 2, 0))
    with pytest.raises(TeacherError, match="16 of 16 images have"):
        watch_images(contents, np.repeat(np.roll(BASIS[:8], 1, 0), 2, 0)[np.roll(np.arange(16), 1)])


def test_two_images_are_too_few_to_judge() -> None:
    contents = [picture((0, 0, 0)), picture((200, 0, 0)), picture((0, 200, 0))]
    watch_images(contents[:2], BASIS[[0, 0]])
    with pytest.raises(TeacherError, match="3 of 3 images"):
        watch_images(contents, BASIS[[0, 0, 0]])


def test_a_new_class_needs_a_distinct_embedding() -> None:
    student: Any = SimpleNamespace(classes=["bar", "blank"], head=torch.from_numpy(BASIS[:2]), provenance={})
    _check_distinct(student, {"zebra": torch.from_numpy(BASIS[2])}, "t")
    for new in ({"pole": BASIS[0]}, {"zebra": BASIS[2], "zebu": BASIS[2]}):
        with pytest.raises(
            TeacherError, match=r"same embedding for different texts(.|\n)*embeddings for .* and (bar|zebra)"
        ):
            _check_distinct(student, {name: torch.from_numpy(row) for name, row in new.items()}, "t")


def test_the_acceptance_of_a_teacher_is_stored_for_resumes(data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    config = make_config(None, {"data": {"root": str(data)}, "teacher": {"spec": "file:none"}, "student": {}})
    run.create(config, StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite"))
    resume = ["distill", "--resume", "-q", "--out", str(run.path), "--store", str(tmp_path / "s.sqlite")]
    assert CliRunner().invoke(app, resume).exit_code == 4  # the file does not exist
    assert not run.config().teacher.accept
    assert CliRunner().invoke(app, [*resume, "--accept-teacher"]).exit_code == 4
    assert run.config().teacher.accept
