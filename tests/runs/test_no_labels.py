"""Runs on images without labels: trained, stopped and resumed, reported, exported, extended and evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_dataset import TINY, Bench, bench, vl2v  # noqa: F401 - a fixture

import vl2v as api
from vl2v.cli.printing import calibration_line
from vl2v.commands.distill import Run
from vl2v.errors import ConfigError, Interrupted
from vl2v.hub.card import Facts, model_card
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.method.evaluation import score
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.serve.collect import build
from vl2v_runtime import Model

NAMES = "blank,bar,zebra stripe"
SMALL = TINY | {"distill": {"steps": 9, "checkpoint_every": 2, "learning_rate": 1e-3}, "seed": 1}


@pytest.fixture(scope="module")
def unsorted(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The small dataset's images of two domains in a folder without class folders, and a file teacher of them."""
    root = tmp_path_factory.mktemp("heap")
    known = dict(np.load(bench.teacher.removeprefix("file:")))
    paths: list[str] = []
    for old in map(str, known["paths"]):
        domain, _, name = old.split("/")
        new = f"{domain}/{len(paths):03d}-{name}" if domain != "rose" else old
        paths.append(new)
        if domain != "rose":
            (root / "data" / domain).mkdir(parents=True, exist_ok=True)
            shutil.copy(bench.data / old, root / "data" / new)
    np.savez(root / "teacher.npz", **(known | {"paths": np.array(paths)}))
    shutil.copy(bench.root / "student.safetensors", root)
    return Bench.at(root)


def distill(unsorted: Bench, out: Path, resume: bool = False, classes: Any = NAMES, **more: Any) -> Run:
    arguments: dict[str, Any] = {
        "out": out,
        "storage": StoragePaths(unsorted.root / "cache", unsorted.root / "vectors.sqlite"),
    }
    arguments["report"] = more.pop("report", False)
    if resume:
        run = api.distill(resume=True, **arguments)
    else:
        run = api.distill(
            unsorted.data, unsorted.teacher, unsorted.student, classes=classes, settings=SMALL | more, **arguments
        )
    assert run is not None
    return run


@pytest.fixture(scope="module")
def finished(unsorted: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distill(unsorted, tmp_path_factory.mktemp("whole") / "run").folder


def test_a_run_learns_from_the_teacher_and_is_evaluated_by_its_answers(unsorted: Bench, finished: Path) -> None:
    stored = yaml.safe_load((finished / "config.yaml").read_text())
    assert stored["data"]["classes"] == ["blank", "bar", "zebra stripe"]
    assert (stored["recipe"], stored["method"]) == ("ood", "vl2v")
    own = stored["vl2v"]
    assert (stored["image_weight"], own["kl_weight"], own["pseudo_labels"]) == (0.5, 0.1, 0.9)
    assert stored["batch_per_domain"] == 8
    figures = json.loads((finished / "evaluation.json").read_text())
    assert figures["measure"] == "agreement with the teacher"
    (row,) = figures["domains"]
    assert (row["domain"], row["role"], row["images"], row["zero_shot"]) == ("data", "in-domain", 12, None)
    assert figures["asked"]["image_queries"] == 60, "one query per image, including the validation images"
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert all("val_agreement" in line and "val_accuracy" not in line for line in lines)
    assert lines[-1]["val_loss"] < lines[0]["val_loss"], "the divergence from the teacher"
    student = api.load(finished)
    assert student.provenance["data"]["measure"] == "agreement with the teacher"
    written = json.dumps([figures, student.provenance])
    assert "accuracy" not in written.replace("val_accuracy", "").replace('"metric": "accuracy"', "")
    assert student.trust is not None
    predictions = np.load(finished / "predictions.npz")
    assert (predictions["label"] == predictions["zero_shot"].argmax(axis=1)).all()
    assert len(set(predictions["label"].tolist())) == 3


def test_the_student_is_accurate_on_labelled_images(unsorted: Bench, finished: Path, bench: Bench) -> None:
    measured = api.evaluate(
        finished, bench.data, domains=["ink"], storage=StoragePaths(unsorted.root / "cache", unsorted.root / "v")
    )
    assert measured.rows[0].images == 30
    assert measured.rows[0].student > 0.6, "three classes, and no label was seen"
    assert measured.table().title == "top-1 accuracy, percent"


@pytest.mark.parametrize("steps", [5, 17])
def test_a_stopped_run_ends_bit_for_bit_like_an_uninterrupted_one(
    unsorted: Bench, finished: Path, tmp_path: Path, steps: int
) -> None:
    stopped, polls = tmp_path / "stopped", iter(range(100))
    with pytest.raises(Interrupted), stop_when(lambda: next(polls) >= steps):
        distill(unsorted, stopped)
    distill(unsorted, stopped, resume=True)
    for name in ("student/model.safetensors", "student/trust.json", "config.yaml", "metrics.jsonl"):
        assert (finished / name).read_bytes() == (stopped / name).read_bytes(), name


def test_other_commands_work_on_a_run_without_labels(unsorted: Bench, finished: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xef\xbb\xbfblank\r\n\r\n# textures\r\n  bar\r\nzebra_stripe\r\n")
    arguments = ["quote", str(unsorted.data), "--teacher", unsorted.teacher, "--classes", str(names), "--json"]
    quoted = json.loads(vl2v(*unsorted.with_separate_storage(tmp_path).flags(*arguments)).stdout)
    assert quoted["images"] == {"training": {"needed": 48, "known": 0}, "validation": {"needed": 12, "known": 0}}
    assert quoted["texts"] == {"needed": 3, "known": 0}
    assert (quoted["data"]["classes"], quoted["data"]["labelled"]) == (["blank", "bar", "zebra stripe"], False)
    one_by_one = [word for name in NAMES.split(",") for word in ("--classes", name)]
    assert json.loads(vl2v(*unsorted.flags(*arguments[:4], *one_by_one, "--json")).stdout)["data"] == quoted["data"]
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    answers = json.loads(vl2v("predict", copy, unsorted.data / "ink", "--format", "json").stdout)
    assert len(answers) == 30
    assert {answer["label"] for answer in answers} <= {"blank", "bar", "zebra stripe"}
    trust = vl2v("trust", copy)
    assert "unlike the teacher's" in trust.stdout
    assert "wrong" not in trust.stdout
    temperatures = [api.load(run).trust.temperature for run in (finished, copy)]  # type: ignore[union-attr]
    assert temperatures[1] == pytest.approx(temperatures[0], rel=1e-2), "fitted again to saved predictions in float16"
    added = vl2v("classes", "add", copy, "dot", "--store", str(unsorted.root / "vectors.sqlite"))
    assert added.returncode == 0, added.stderr
    assert api.load(copy).classes == ["blank", "bar", "zebra stripe", "dot"]


def test_domains_share_a_batch_if_the_user_states_domains(unsorted: Bench, tmp_path: Path) -> None:
    more = {"distill": SMALL["distill"] | {"steps": 2}, "align": {"steps": 2}, "data": {"domain_folders": True}}
    run = distill(unsorted, tmp_path / "run", method="adip", recipe="paper", **more)
    stored = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert (stored["batch_per_domain"], stored["image_weight"]) == (4, 1.0)
    assert [(row.domain, row.images) for row in run.evaluation.rows] == [("ink", 6), ("neon", 6)]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--classes", ","], 2, ["Too few classes", "--classes cat,dog"]),
        (["--classes", "cat"], 2, ["Too few classes", "cat"]),
        (["--classes", "bar,Bar"], 2, ["given twice"]),
        (["--classes", "names.txt"], 2, ["names.txt contains no class names", "one name per line"]),
        (["--classes", NAMES, "--held-out", "ink"], 2, ["--held-out", "vl2v evaluate"]),
        (["--classes", NAMES, "--method", "erm"], 2, ["learns from labels", "expected adip, vl2v", "--recipe ood"]),
        (["--classes", NAMES, "--labels-per-class", "2"], 2, ["no image has a label"]),
        (["--domain-folders"], 2, ["--classes"]),
    ],
)
def test_wrong_flags_are_refused(
    unsorted: Bench, tmp_path: Path, flags: list[str], code: int, message: list[str]
) -> None:
    arguments = ["distill", str(unsorted.data), "--teacher", unsorted.teacher, "--student", unsorted.student]
    done = vl2v(*unsorted.flags(*arguments, "--out", str(tmp_path / "run"), *flags))
    assert done.returncode == code, done.stdout + done.stderr
    for text in message:
        assert text in done.stderr
    assert not (tmp_path / "run").exists()


def test_folders_that_are_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root, message in ((bench.data, "without --classes"), (tmp_path / "empty", "contains no images")):
        done = vl2v(*bench.flags("quote", str(root), "--teacher", bench.teacher, "--classes", NAMES))
        assert done.returncode == 3
        assert message in " ".join(done.stderr.split())
    accepted = vl2v(
        *bench.flags("quote", str(bench.data), "--teacher", bench.teacher, "--classes", NAMES, "--layout-as-found")
    )
    assert accepted.returncode == 0, accepted.stderr
    assert "90 images without labels" in accepted.stdout


@pytest.mark.parametrize("classes", [[], ["bar"], ["bar", "BAR"], Path("absent.txt")])
def test_wrong_classes_are_refused_in_python(unsorted: Bench, tmp_path: Path, classes: Any) -> None:
    with pytest.raises(ConfigError):
        distill(unsorted, tmp_path / "run", classes=classes)
    with pytest.raises(ConfigError):
        api.quote(unsorted.data, unsorted.teacher, classes=classes)


def test_a_class_without_any_image_leads_to_a_warning(unsorted: Bench, tmp_path: Path) -> None:
    quick = {"distill": SMALL["distill"] | {"steps": 1}, "align": {"steps": 1}}
    run = distill(unsorted, tmp_path / "run", classes=[*NAMES.split(","), "grid"], **quick)
    (warning,) = json.loads((run.folder / "evaluation.json").read_text())["warnings"]
    assert "the teacher assigns none of the 60 images to grid" in warning
    assert "against the teacher's answers" in calibration_line(run.student.trust, run.evaluation)  # type: ignore[arg-type]


def test_the_validation_loss_is_the_divergence_from_the_teacher() -> None:
    generator = np.random.default_rng(0)
    logits, teacher = (torch.from_numpy(generator.normal(size=(20, 4)).astype(np.float32)) for _ in range(2))
    soft = torch.softmax(teacher, dim=1)
    scores = score(logits, soft)
    expected = (soft * (soft.log() - torch.log_softmax(logits, dim=1))).sum(dim=1).mean()
    assert scores.loss == pytest.approx(float(expected), rel=1e-5)
    assert scores.accuracy == score(logits, teacher.argmax(dim=1)).accuracy
    assert score(teacher, soft).loss == pytest.approx(0, abs=1e-6)


def test_a_model_card_explains_the_figures(finished: Path) -> None:
    card = json.loads((finished / "student" / "student.json").read_text())
    figures, config = (json.loads((finished / "evaluation.json").read_text()), RunFolder(finished).config())
    text = model_card(Facts("me/heap", "mit", card, figures, config.model_dump(mode="json")))
    assert "Agreement with the teacher in percent." in text
    assert "60 images without labels in 1 domains: data" in text
    assert "so the figures do not compare the student with labels" in text
    assert "accuracy" not in text.lower()


@pytest.mark.slow
def test_report_and_export_call_the_figures_agreement(unsorted: Bench, bench: Bench, tmp_path: Path) -> None:
    run = distill(unsorted, tmp_path / "run", report=True)
    page = (run.folder / "report.html").read_text()
    assert "Agreement with the teacher" in page
    assert "its agreement with the teacher is" in page
    assert "accuracy" not in page.lower()
    sheets = "".join(path.read_text() for path in (run.folder / "report").glob("*.csv"))
    assert "accuracy" not in sheets
    done = vl2v("export", run.folder, "--onnx", "--cache", str(unsorted.root / "cache"))
    assert done.returncode == 0, done.stderr
    assert "agreement with the teacher" in " ".join(done.stdout.split())
    assert "accuracy" not in done.stdout
    file_report = json.loads((run.folder / "export" / "export.json").read_text())["files"]["model.onnx"]
    (row,) = run.evaluation.rows
    assert (file_report["images"], file_report["accuracy"]) == (12, row.student)
    gallery = build(run_config := RunFolder(run.folder).config(), Model(run.folder / "export" / "model.onnx"),
                    StoragePaths(unsorted.root / "cache", unsorted.root / "vectors.sqlite"), Silent())  # fmt: skip
    assert run_config.data.classes
    assert set(gallery.labels) == {"no label"}
    quantised = vl2v("export", run.folder, "--int8", "--tolerance", "100", "--cache", str(unsorted.root / "cache"))
    assert quantised.returncode == 0, quantised.stderr
    other = ["--onnx", "--data", str(bench.data / "ink"), "--out", str(tmp_path / "other")]
    done = vl2v("export", run.folder, *other, "--cache", str(unsorted.root / "cache"))
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout, "these images have labels"
