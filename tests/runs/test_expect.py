"""Expected accuracy on unlabelled images: the command, the labels that it ignores, and wrong inputs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dataset import CLASSES, Bench, bench  # noqa: F401 - a fixture
from torch import nn

import vl2v
from command_line import run_cli
from vl2v.analysis.changed_images import join_outputs, model_outputs
from vl2v.commands.expect import Expected, expected_of
from vl2v.commands.expect_basis import basis_of
from vl2v.config import RunConfig
from vl2v.errors import DataError, RunError, Vl2vError
from vl2v.progress import Silent, Vl2vWarning
from vl2v.runs.folder import RunFolder
from vl2v.student.backbones import load_backbone
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.trust.fit import fit
from vl2v.validation import parse

ROLES = {"ink": "in-domain", "neon": "in-domain", "rose": "out-of-domain"}


@pytest.fixture(scope="module")
def made(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made without training: random features, and a head of their class means."""
    folder = RunFolder(tmp_path_factory.mktemp("expect") / "run")
    values = {"data": {"root": str(bench.data), "held_out": ["rose"]}, "teacher": {"spec": bench.teacher}}
    folder.create(parse(RunConfig, values | {"student": {"spec": bench.student, "size": 32}}, "made"))
    torch.manual_seed(0)
    backbone = load_backbone(bench.student, size=32)
    projection = nn.Linear(backbone.features, 16)
    student = Student(backbone, projection, torch.randn(3, 16), list(CLASSES), 20.0)
    paths = sorted(path.relative_to(bench.data).as_posix() for path in bench.data.glob("*/*/*.png"))
    domain = np.array([path.split("/")[0] for path in paths])
    label = np.array([CLASSES.index(path.split("/")[1]) for path in paths])
    projected = student.project([bench.data / path for path in paths])
    mean = projected[domain == "ink"].mean(dim=0)
    with torch.no_grad():
        projection.bias.sub_(mean)
    projected -= mean
    head = torch.stack([projected[torch.from_numpy(label == k)].mean(dim=0) for k in range(3)])
    student = Student(backbone, projection, head, list(CLASSES), 20.0)
    logits = student.logits(projected).numpy()
    sources = domain != "rose"
    embeddings = student.embeddings(projected).detach().numpy()
    student.trust = fit(logits[sources], label[sources], domain[sources], embeddings[sources])
    student.save(folder.student)
    role = np.array([ROLES[name] for name in domain.tolist()])
    write_predictions(folder, domain=domain, role=role, path=np.array(paths), label=label, student=logits)
    return folder.path


def write_predictions(folder: RunFolder, **columns: Any) -> None:
    np.savez_compressed(folder.predictions_file, **columns)


def columns(run: Path) -> dict[str, Any]:
    with np.load(run / "predictions.npz") as file:
        return dict(file)


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_the_command_prints_a_line_a_table_and_what_to_do(bench: Bench, made: Path) -> None:
    done = run_cli("expect", made, bench.data / "rose")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("expected accuracy: ")
    assert "30" in done.stdout
    assert "next: " in done.stdout
    result = json.loads(run_cli("expect", made, bench.data / "rose", "--json", "-q").stdout)
    share = result["accuracy"]
    assert 0 < share["low"] < share["value"] < share["high"] < 1
    assert (result["images"], result["found"], result["unreadable"]) == (30, 30, 0)
    assert result["calibration"]["groups"] == 2
    assert result["line"] in done.stdout


def test_the_images_may_be_listed_in_a_table(bench: Bench, made: Path, tmp_path: Path) -> None:
    paths = sorted((bench.data / "rose").glob("*/*.png"))
    (tmp_path / "new.csv").write_text("\n".join(["nr,foto", *(f"{i},{path}" for i, path in enumerate(paths)), "30,"]))
    done = run_cli("expect", made, tmp_path / "new.csv", "--image", "foto", "--json", "-q")
    result = json.loads(done.stdout)
    assert (
        result["accuracy"]
        == json.loads(run_cli("expect", made, bench.data / "rose", "--json", "-q").stdout)["accuracy"]
    )
    assert (result["images"], result["found"], result["unreadable"]) == (30, 31, 1)
    assert "row 32: no image in the column foto" in done.stderr


def test_the_estimate_is_repeatable_and_ignores_labels_of_held_out_domains(bench: Bench, copied: Path) -> None:
    first = vl2v.expect(copied, bench.data / "rose")
    predictions = columns(copied)
    out = predictions["role"] == "out-of-domain"
    predictions["label"][out] = (predictions["label"][out] + 1) % 3
    write_predictions(RunFolder(copied), **predictions)
    assert vl2v.expect(copied, bench.data / "rose") == first
    predictions["label"][~out] = (predictions["label"][~out] + 1) % 3  # these labels are used
    write_predictions(RunFolder(copied), **predictions)
    assert vl2v.expect(copied, bench.data / "rose").validation.value != first.validation.value


def test_images_of_the_training_domains_are_near_and_others_are_far(
    bench: Bench,
    made: Path,
    tmp_path: Path,
) -> None:
    near = vl2v.expect(made, [bench.data / "ink", bench.data / "neon"])
    assert near.distance is not None
    assert near.distance < 0.3
    assert near.accuracy.low < near.validation.value < near.accuracy.high
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    far = vl2v.expect(made, tmp_path)
    assert far.distance is not None
    assert far.distance > near.distance
    assert not any("unlike all training domains" in text for text in near.warnings)


def test_images_beyond_every_training_domain_lead_to_a_warning(made: Path) -> None:
    basis = basis_of(made, Silent())
    assert basis.distances is not None
    pixels = torch.randint(0, 256, (40, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    new = join_outputs(list(model_outputs(basis.student, basis.frozen, pixels)), False)
    beyond = expected_of(replace(basis, distances=replace(basis.distances, farthest=0.01)), new, 40, 0)
    assert any("unlike all training domains" in text for text in beyond.warnings)
    within = expected_of(replace(basis, distances=replace(basis.distances, farthest=2.0)), new, 40, 0)
    assert within.warnings == ()


def test_copies_of_an_image_count_once(bench: Bench, made: Path, tmp_path: Path) -> None:
    for i in range(6):
        for copy in range(5):
            (tmp_path / f"camera{copy}").mkdir(exist_ok=True)
            shutil.copy(bench.data / "rose" / "bar" / f"{i}.png", tmp_path / f"camera{copy}" / f"{i}.png")
    once = vl2v.expect(made, tmp_path / "camera0")
    with pytest.warns(Vl2vWarning, match="24 images are copies"):
        every = vl2v.expect(made, [tmp_path, tmp_path / "camera0", tmp_path])
    assert (every.images, every.found) == (6, 30)
    assert (every.accuracy, every.warnings) == (once.accuracy, once.warnings)


def test_few_images_and_unreadable_ones_are_reported(bench: Bench, made: Path, tmp_path: Path) -> None:
    shutil.copytree(bench.data / "rose" / "bar", tmp_path / "new")
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG nothing")
    done = run_cli("expect", made, tmp_path / "new", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["images"], result["found"], result["unreadable"]) == (10, 11, 1)
    assert "broken.png" in done.stderr
    assert "too few" in done.stderr
    assert "collect more images" in result["next_step"]
    table = tmp_path / "new.csv"
    table.write_text("path,note\n,no path\n" + "".join(f"new/{i}.png,\n" for i in range(10)) + "gone.png,\n")
    done = run_cli("expect", made, table, "--json")
    result = json.loads(done.stdout)
    assert (result["images"], result["found"], result["unreadable"]) == (10, 12, 2), "as many as predict lists"
    assert "row 2: no image in the column path" in done.stderr


def test_without_the_pretrained_weights_features_of_the_student_are_used(
    bench: Bench,
    copied: Path,
) -> None:
    text = (copied / "config.yaml").read_text().replace("student.safetensors", "gone.safetensors")
    (copied / "config.yaml").write_text(text)
    result = vl2v.expect(copied, bench.data / "rose")
    assert any("cannot be loaded" in text for text in result.warnings)
    assert result.calibration.estimator == "confidence"


def test_one_source_domain_leads_to_a_warning(bench: Bench, copied: Path) -> None:
    predictions = columns(copied)
    chosen = predictions["domain"] != "neon"
    write_predictions(RunFolder(copied), **{name: column[chosen] for name, column in predictions.items()})
    result = vl2v.expect(copied, bench.data / "rose")
    assert result.distance is None
    assert any("one source domain only" in text for text in result.warnings)


def test_images_without_labels_lead_to_agreement_with_the_teacher(bench: Bench, copied: Path) -> None:
    folder = RunFolder(copied)
    values = folder.config().model_dump(mode="json")
    values["data"] |= {"classes": ["blank", "bar", "zebra stripe"], "held_out": [], "held_out_classes": []}
    folder.write_config(parse(RunConfig, values | {"image_weight": 1.0}, "made"))
    result = vl2v.expect(copied, bench.data / "rose")
    assert result.line.startswith("expected agreement with the teacher: ")


def fault(run: Path, *images: Path) -> Vl2vError:
    with pytest.raises(Vl2vError) as caught:
        vl2v.expect(run, list(images))
    assert caught.value.problem
    assert caught.value.expected
    assert caught.value.found
    return caught.value


def test_wrong_images_are_refused(made: Path, tmp_path: Path) -> None:
    empty, text, broken = (tmp_path / name for name in ("empty", "text", "broken"))
    for folder in (empty, text, broken):
        folder.mkdir()
    (text / "notes.txt").write_text("no image")
    (broken / "a.jpg").write_bytes(b"")
    for folder in (empty, text, tmp_path / "missing"):
        assert isinstance(fault(made, folder), DataError)
    assert "a.jpg" in fault(made, broken).found
    done = run_cli("expect", made, empty)
    assert (done.returncode, done.stdout) == (DataError.exit_code, "")


def test_wrong_runs_are_refused(bench: Bench, copied: Path, tmp_path: Path) -> None:
    new = bench.data / "rose"
    assert isinstance(fault(tmp_path / "missing", new), RunError)
    assert "no run" in fault(bench.data, new).problem
    predictions = columns(copied)
    out = predictions["role"] == "out-of-domain"
    write_predictions(RunFolder(copied), **{name: column[out] for name, column in predictions.items()})
    assert "validation images" in fault(copied, new).problem
    write_predictions(
        RunFolder(copied), **predictions | {"path": np.array([f"gone/{path}" for path in predictions["path"]])}
    )
    assert "validation images" in fault(copied, new).problem
    write_predictions(RunFolder(copied), **predictions)
    student = Student.load(copied)
    student.add_class("dot", np.ones(16))
    student.save(copied / "student")
    assert "classes" in fault(copied, new).problem
    student.remove_class("bar")
    names, at = ["bar", "blank", "zebra_stripe"], "2026-01-01T00:00:00+00:00"
    student.provenance[CHANGES] = [
        {"at": at, "before": names, "added": {"dot": ["a dot"]}},
        {"at": at, "before": [*names, "dot"], "removed": ["bar"]},
    ]
    student.save(copied / "student")
    assert "blank, zebra_stripe, dot" in fault(copied, new).found
    (copied / "predictions.npz").unlink()
    assert "no saved predictions" in fault(copied, new).problem


def test_the_advice_follows_from_the_estimate(bench: Bench, made: Path) -> None:
    from vl2v.analysis.intervals import Share
    from vl2v.commands.expect import next_step

    valid = Share(0.9, 0.88, 0.92)
    assert next_step(Share(0.89, 0.8, 0.95), valid, 100).startswith("no sign of a loss")
    assert next_step(Share(0.7, 0.5, 0.89), valid, 100).startswith("probably less accurate")
    assert next_step(Share(0.5, 0.3, 0.7), valid, 100).startswith("less accurate")
    assert "vl2v repair" in next_step(Share(0.5, 0.3, 0.7), valid, 100)
    assert "vl2v repair" not in next_step(Share(0.89, 0.8, 0.95), valid, 100)
    result: Expected = vl2v.expect(made, bench.data / "rose")
    assert replace(result, warnings=()).to_dict()["measure"] == "top-1 accuracy"
