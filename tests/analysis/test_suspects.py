from __future__ import annotations

import csv
import json
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from vl2v.analysis.suspects import check_labels, rejects
from vl2v.api import make_config
from vl2v.cli import app
from vl2v.commands.suspects import find_suspects
from vl2v.data.drop import read_dropped
from vl2v.errors import ConfigError, DataError
from vl2v.locations import StoragePaths
from vl2v.planning.plan import RunPlan, plan_run
from vl2v.redaction import public_config
from vl2v.reports.suspects import LABEL, Suspect, review_page
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime.trust import softmax

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 210)}
WRONG = ("day/red/wrong <b>&.png", "dusk/blue/wrong.png")


def separable(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return teacher probabilities, embeddings, features, labels of which 12 are flipped, and their indices."""
    generator = np.random.default_rng(seed)
    true = np.repeat(np.arange(4), 60)
    embeddings = 2 * np.eye(4)[true] + 0.4 * generator.normal(size=(240, 4))
    features = 3 * generator.normal(size=(4, 20))[true] + generator.normal(size=(240, 20))
    wrong = np.zeros(240, bool)
    wrong[generator.permutation(240)[:12]] = True
    return softmax(4 * embeddings), embeddings, features, np.where(wrong, (true + 1) % 4, true), wrong


def test_flipped_labels_are_rejected_and_others_are_not() -> None:
    teacher, embeddings, features, labels, wrong = separable()
    suspects = check_labels(teacher, embeddings, features, labels)
    assert suspects.rejected[wrong].mean() >= 0.9
    assert suspects.rejected[~wrong].mean() <= 0.01
    assert (suspects.suggested[wrong] == (labels[wrong] - 1) % 4).mean() >= 0.9
    assert suspects.doubt[wrong].min() > np.median(suspects.doubt[~wrong])


def test_a_label_that_only_one_classifier_rejects_is_not_a_suspect() -> None:
    teacher, embeddings, features, labels, wrong = separable()
    indifferent = np.full_like(teacher, 0.25)
    assert not check_labels(indifferent, embeddings, features, labels).rejected.any()
    assert not check_labels(teacher, embeddings, np.zeros_like(features), labels).rejected[~wrong].any()


def test_every_class_has_its_threshold() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    probability = np.array([[0.9, 0.1], [0.55, 0.45], [0.6, 0.4], [0.7, 0.3], [0.75, 0.25]])
    # means of self-confidence: 0.725 for class 0, about 0.317 for class 1, for which the classifier is underconfident
    assert rejects(probability, labels).tolist() == [False, True, False, False, True]


def test_the_image_unlike_any_class_is_found() -> None:
    teacher, embeddings, features, labels, _ = separable()
    embeddings[7] = -embeddings[7]
    suspects = check_labels(teacher, embeddings, features, labels)
    assert int(suspects.similarity.argmin()) == 7
    assert suspects.unlike[7] or suspects.rejected[7]
    assert suspects.unlike.sum() <= 2


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A dataset of two source domains and a third, three colours, 12 images each; two labels are wrong."""
    generator = np.random.default_rng(0)

    def draw(path: Path, colour: tuple[int, int, int], less: int) -> None:
        pixels = np.array(colour) - less + generator.integers(-8, 9, size=(32, 32, 3))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)

    for less, domain in enumerate(("day", "dusk", "night")):
        for name, colour in COLOURS.items():
            for i in range(12):
                draw(tmp_path / "data" / domain / name / f"{i}.png", colour, 10 * less)
    for path in WRONG:
        draw(tmp_path / "data" / path, COLOURS["green"], 0)
    paths = [p.relative_to(tmp_path / "data").as_posix() for p in sorted((tmp_path / "data").rglob("*.png"))]
    seen = [np.asarray(Image.open(tmp_path / "data" / path), np.float32).mean((0, 1)) - 100 for path in paths]
    np.savez(
        tmp_path / "teacher.npz", paths=np.array(paths), embeddings=np.array(seen, np.float32), logit_scale=10.0,
        texts=np.array([f"a photo of a {name}" for name in COLOURS]),
        text_embeddings=np.array(list(COLOURS.values()), np.float32) - 100,
    )  # fmt: skip
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "student.safetensors")
    return tmp_path


def options(scene: Path) -> list[str]:
    student = f"timm:test_resnet@{scene / 'student.safetensors'}"
    options = [
        "--teacher",
        f"file:{scene / 'teacher.npz'}",
        "--student",
        student,
        "--size",
        "32",
        "--held-out",
        "night",
    ]
    return [*options, "--cache", str(scene / "cache"), "--store", str(scene / "store.sqlite"), "--set", "device=cpu"]


def planned(scene: Path, **data: Any) -> RunPlan:
    settings = {"data": {"root": str(scene / "data"), "held_out": ["night"], **data}, "device": "cpu"}
    settings |= {"teacher": {"spec": f"file:{scene / 'teacher.npz'}"}}
    settings |= {"student": {"spec": f"timm:test_resnet@{scene / 'student.safetensors'}", "size": 32}}
    storage = StoragePaths(scene / "cache", scene / "store.sqlite")
    return plan_run(make_config(None, settings), storage)


def test_the_command_finds_the_wrong_labels_and_a_run_can_drop_them(scene: Path) -> None:
    out = scene / "review" / "suspects.csv"
    done = CliRunner().invoke(
        app, ["data", "suspects", str(scene / "data"), *options(scene), "--out", str(out), "--json", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["judged"], result["labels"], result["unanswered"]) == (74, 2, 0)  # the held-out domain is left out
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert {row["path"] for row in rows if row["drop"] == "yes"} == set(WRONG)
    assert {row["suggested"] for row in rows if row["drop"] == "yes"} == {"green"}
    page = out.with_suffix(".html").read_text(encoding="utf-8")
    assert "wrong &lt;b&gt;&amp;.png" in page
    assert "<b>&.png" not in page
    assert page.count("data:image/jpeg;base64,") == len(rows)
    assert "http://" not in page.replace("http://www.w3.org", "")
    before, after = planned(scene), planned(scene, drop=str(out))
    assert set(before.dataset.paths) - set(after.dataset.paths) == set(WRONG)
    assert before.dataset.digest() != after.dataset.digest()
    assert sum(before.quote.images.values()) - sum(after.quote.images.values()) == 2


def test_a_teacher_that_charges_is_never_queried(scene: Path) -> None:
    settings = {"teacher": {"spec": f"file:{scene / 'teacher.npz'}", "price_per_1000_images": Decimal(1)}}
    settings |= {"data": {"root": str(scene / "data")}, "device": "cpu"}  # type: ignore[dict-item]
    settings |= {"student": {"spec": f"timm:test_resnet@{scene / 'student.safetensors'}", "size": 32}}
    storage = StoragePaths(scene / "cache", scene / "store.sqlite")
    with pytest.raises(DataError, match=r"Too few images can be checked(.|\n)*0 of 110 images"):
        find_suspects(make_config(None, settings), scene / "s.csv", storage)
    with closing(EmbeddingStore(storage.store)) as store:
        assert store.entries() == []


def test_wrong_lists_of_images_to_drop_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("path,drop\na.png,yes\nb.png,no\nc.png,\n")
    assert read_dropped(file) == {"a.png"}
    file.write_text("\ufeffpath\na.png\nb.png\n")
    assert read_dropped(file) == {"a.png", "b.png"}
    file.write_text("file\na.png\n")
    with pytest.raises(ConfigError, match="a column path"):
        read_dropped(file)
    file.write_text("path,drop\na.png,maybe\n")
    with pytest.raises(ConfigError, match=r"maybe(.|\n)* in row 2"):
        read_dropped(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_dropped(tmp_path / "none.csv")


def test_a_list_of_other_data_is_refused(scene: Path) -> None:
    (scene / "other.csv").write_text("path\nnowhere/red/0.png\n")
    with pytest.raises(ConfigError, match="None of the images"):
        planned(scene, drop=str(scene / "other.csv"))


def test_the_list_is_not_published() -> None:
    assert public_config({"data": {"root": "/x", "drop": "/home/me/suspects.csv"}})["data"]["drop"] == "FILE"


def test_a_run_or_a_teacher_and_a_student_are_needed(scene: Path) -> None:
    done = CliRunner().invoke(app, ["data", "suspects", str(scene / "data")])
    assert done.exit_code == 2
    assert "--teacher is missing" in done.output


def test_the_page_shows_a_limited_number_of_pictures(tmp_path: Path) -> None:
    one = Suspect("a.png", "day", "<i>cat</i>", LABEL, "dog", 0.1, 0.2, 0.5)
    page = review_page([one] * 201, "photos", tmp_path, "suspects.csv", 1000, 3).html()
    assert "first 200 of 201" in page
    assert "&lt;i&gt;cat&lt;/i&gt;" in page
    assert "3 images were not checked because they have no stored embedding" in page
