from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import save_file

from vl2v.analysis.advice import DISTIL, LABELS_ALONE
from vl2v.analysis.frozen import frozen_features
from vl2v.analysis.teacher_value import advice_for, pilot_of, show_advice, source_rows
from vl2v.api import make_config
from vl2v.commands.check import check_teacher
from vl2v.commands.distill import run
from vl2v.commands.quote import quote_run
from vl2v.evaluation.evaluation import Evaluation
from vl2v.evaluation.metrics import results_of
from vl2v.locations import StoragePaths
from vl2v.planning.plan import RunPlan, plan_run
from vl2v.progress import Recorder, Silent
from vl2v.purchase import BudgetAccount, Pilot, open_budget, purchase
from vl2v.runs.run_files import EvaluationFile
from vl2v.teacher.base import Embeddings, Price, TeacherCard
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.training.feature_cache import FeatureCache
from vl2v_runtime.imaging import decode

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 210), "yellow": (240, 220, 40)}
DARKER = {"day": 0, "dusk": 10, "night": 20}


@dataclass
class Eye:
    """A teacher whose embedding is the mean colour, and which is wrong about a share of the images."""

    wrong: float = 0.0
    price: Price = field(default_factory=lambda: Price(Decimal(10), Decimal(1)))
    seen: list[bytes] = field(default_factory=list)

    def describe(self) -> TeacherCard:
        return TeacherCard("test:eye", f"{self.wrong}", 3, 10.0, self.price, 16)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        self.seen += images
        rows = [np.asarray(decode(image), np.float32).mean((0, 1)) - 100 for image in images]
        turned = [sum(image) % 100 < 100 * self.wrong for image in images]
        return np.array([np.roll(row, 1) if t else row for row, t in zip(rows, turned, strict=True)], np.float32)

    def embed_texts(self, texts: list[str]) -> Embeddings:
        return np.array([next(v for k, v in COLOURS.items() if k in text) for text in texts], np.float32) - 100


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three domains and four colours, 12 images each, and a small student."""
    root, generator = tmp_path_factory.mktemp("scene"), np.random.default_rng(0)
    for domain, less in DARKER.items():
        for name, colour in COLOURS.items():
            folder = root / "data" / domain / name
            folder.mkdir(parents=True)
            for i in range(12):
                pixels = np.array(colour) - less + generator.integers(-8, 9, size=(32, 32, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), root / "student.safetensors")
    return root


def planned(scene: Path, tmp_path: Path, teacher: Eye, **data: object) -> RunPlan:
    config = make_config(None, {"data": {"root": str(scene / "data"), **data}, **settings(scene)})
    return plan_run(config, StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite"), teacher=teacher)


def settings(scene: Path) -> dict[str, Any]:
    student = {"spec": f"timm:test_resnet@{scene / 'student.safetensors'}", "size": 32}
    return {"teacher": {"spec": "test:eye"}, "student": student, "budget": "5", "device": "cpu"}


def buy_all(plan: RunPlan, store: EmbeddingStore, folder: Path, pilot: Pilot | None = None) -> None:
    budget = open_budget(plan, BudgetAccount.of_run(str(folder)), store)
    purchase(plan, budget, store, str(folder), Silent(), pilot)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddingStore]:
    with closing(EmbeddingStore(tmp_path / "store.sqlite")) as opened:
        yield opened


def test_a_teacher_that_is_right_on_half_the_images_is_not_worth_it(
    scene: Path, tmp_path: Path, store: EmbeddingStore
) -> None:
    plan = planned(scene, tmp_path, Eye(wrong=0.3), held_out=["night"])
    assert advice_for(plan, store, Silent()) is None  # nothing was bought
    buy_all(plan, store, tmp_path)
    recorder = Recorder(Silent())
    advice = advice_for(plan, store, recorder)
    assert advice is None  # 96 images of two source domains are too few
    plan = planned(scene, tmp_path, Eye(wrong=0.3))
    buy_all(plan, store, tmp_path)
    advice = advice_for(plan, store, recorder)
    assert advice is not None
    assert advice.action == LABELS_ALONE
    assert (advice.answers, advice.images, advice.by_domain) == (144, 144, True)
    with pytest.warns(UserWarning, match="train on the labels alone"):
        show_advice(advice, recorder)
    content = results_of(Evaluation(()), None, {}, [], None, advice.to_dict())
    read = EvaluationFile.model_validate({k: v for k, v in content.items() if k != "asked"})
    assert read.advice is not None
    assert read.advice.line == advice.line


def test_held_out_domains_are_not_used(scene: Path, tmp_path: Path) -> None:
    plan = planned(scene, tmp_path, Eye(), held_out=["night"])
    rows = set(source_rows(plan))
    assert rows == set(range(len(plan.dataset))) - set(plan.dataset.rows_of("night"))


def test_the_pilot_is_bought_first_and_no_image_twice(
    scene: Path, tmp_path: Path, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Eye()
    plan = planned(scene, tmp_path, teacher)
    assert pilot_of(plan, store) is None  # too few images for a pilot
    monkeypatch.setattr("vl2v.analysis.teacher_value.PILOT", 24)
    chosen = pilot_of(plan, store)
    assert chosen is not None
    counts: list[int] = []
    buy_all(plan, store, tmp_path, Pilot(chosen, lambda: counts.append(len(teacher.seen))))
    assert counts == [24]
    assert len(teacher.seen) == len(set(teacher.seen)) == 144
    assert pilot_of(planned(scene, tmp_path, teacher), store) is None


def test_a_check_and_a_quote_give_advice_if_a_student_is_stated(scene: Path, tmp_path: Path) -> None:
    paths = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite")
    check_settings = {"student": settings(scene)["student"]}
    teacher, budget = Eye(wrong=0.3), Decimal(5)
    result = check_teacher(teacher, scene / "data", budget=budget, images=60, storage=paths, settings=check_settings)
    assert result.advice is not None
    assert result.advice.action == LABELS_ALONE
    assert result.advice.answers == 60
    assert check_teacher(teacher, scene / "data", budget=budget, images=60, storage=paths).advice is None
    config = make_config(None, {"data": {"root": str(scene / "data")}, **settings(scene)})
    assert "train on the labels alone" in quote_run(config, paths, teacher=teacher).advice
    assert quote_run(config, paths, teacher=Eye()).advice == ""  # another teacher, without answers


@pytest.mark.slow
def test_a_run_warns_and_records_the_advice(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.analysis.teacher_value.PILOT", 24)
    paths = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite")
    short = {"align": {"steps": 4}, "distill": {"steps": 2}, "batch": 8, "workers": 0, "threads": 1}
    config = make_config(None, {"data": {"root": str(scene / "data")}, **settings(scene), **short})
    with pytest.warns(UserWarning, match="train on the labels alone") as warned:
        run(config, tmp_path / "run", storage=paths, teacher=Eye(wrong=0.3))
    lines = [str(w.message) for w in warned if "advice: " in str(w.message)]
    assert "on 24 images" in lines[0]  # after the first answers, and not again after all
    assert len(lines) == 1
    content = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert content["advice"]["action"] == LABELS_ALONE
    assert content["advice"]["answers"] == 144
    assert lines[0] in content["warnings"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Value of the teacher" in page
    assert "on 144 images" in page


def test_features_are_those_of_the_cache(scene: Path, tmp_path: Path) -> None:
    plan = planned(scene, tmp_path, Eye())
    digests = plan.dataset.digests[:70]
    fresh = frozen_features(plan, digests, Silent(), "")
    slots = plan.pixels.slots(digests)
    cache = FeatureCache(plan.pixels.features_folder(), plan.student_backbone, plan.pixels.map())
    assert cache.cached(slots) is None  # features of a sample are not cached
    features = frozen_features(plan, digests, Silent(), "", keep=Accelerator(cpu=True))
    cached = cache.cached(slots)
    assert cached is not None
    assert np.array_equal(features, cached)
    assert np.allclose(cached, fresh, atol=1e-4)
    assert np.array_equal(frozen_features(plan, digests, Silent(), ""), cached)


def test_a_strong_teacher_is_worth_it(scene: Path, tmp_path: Path, store: EmbeddingStore) -> None:
    plan = planned(scene, tmp_path, Eye())
    buy_all(plan, store, tmp_path)
    for parameter in plan.student_backbone.module.parameters():
        parameter.data.zero_()  # uninformative features
    advice = advice_for(plan, store, Silent())
    assert advice is not None
    assert advice.action == DISTIL
    assert "distil from this teacher" in advice.line
