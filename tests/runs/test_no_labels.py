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
from vl2v.locations import StoragePaths
from vl2v.method.evaluation import score
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.serve.collect import build
from vl2v.stopping import stopped_by
from vl2v_runtime import Model

NAMES = "blank,bar,zebra stripe"
SMALL = TINY | {"distill": {"steps": 9, "checkpoint_every": 2, "learning_rate": 1e-3}, "seed": 1}


@pytest.fixture(scope="module")
def heap(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The small dataset's images of two domains in a folder without class folders, and a teacher that knows them."""
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


def distill(heap: Bench, out: Path, resume: bool = False, classes: Any = NAMES, **more: Any) -> Run:
    given: dict[str, Any] = {"out": out, "storage": StoragePaths(heap.root / "cache", heap.root / "vectors.sqlite")}
    given["report"] = more.pop("report", False)
    if resume:
        run = api.distill(resume=True, **given)
    else:
        run = api.distill(heap.data, heap.teacher, heap.student, classes=classes, settings=SMALL | more, **given)
    assert run is not None
    return run


@pytest.fixture(scope="module")
def whole(heap: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distill(heap, tmp_path_factory.mktemp("whole") / "run").folder


def test_a_run_learns_from_the_teacher_and_is_measured_by_it(heap: Bench, whole: Path) -> None:
    stored = yaml.safe_load((whole / "config.yaml").read_text())
    assert stored["data"]["classes"] == ["blank", "bar", "zebra stripe"]
    assert (stored["recipe"], stored["method"]) == ("ood", "vl2v")
    assert (stored["image_weight"], stored["vl2v"]["kl_weight"], stored["batch_per_domain"]) == (1.0, 0.1, 8)
    figures = json.loads((whole / "evaluation.json").read_text())
    assert figures["measure"] == "agreement with the teacher"
    (row,) = figures["domains"]
    assert (row["domain"], row["role"], row["images"], row["zero_shot"]) == ("data", "in-domain", 12, None)
    assert figures["asked"]["image_queries"] == 60, "one query an image, those to validate with included"
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert all("val_agreement" in line and "val_accuracy" not in line for line in lines)
    assert lines[-1]["val_loss"] < lines[0]["val_loss"], "the divergence from the teacher"
    student = api.load(whole)
    assert student.provenance["data"]["measure"] == "agreement with the teacher"
    written = json.dumps([figures, student.provenance])
    assert "accuracy" not in written.replace("val_accuracy", "").replace('"metric": "accuracy"', "")
    assert student.trust is not None
    kept = np.load(whole / "predictions.npz")
    assert (kept["label"] == kept["zero_shot"].argmax(axis=1)).all()
    assert len(set(kept["label"].tolist())) == 3


def test_what_it_learnt_holds_on_labelled_images(heap: Bench, whole: Path, bench: Bench) -> None:
    measured = api.evaluate(
        whole, bench.data, domains=["ink"], storage=StoragePaths(heap.root / "cache", heap.root / "v")
    )
    assert measured.rows[0].images == 30
    assert measured.rows[0].student > 0.6, "three classes, and no label was seen"
    assert measured.table().title == "top-1 accuracy, percent"


@pytest.mark.parametrize("steps", [5, 17])
def test_a_stopped_run_ends_bit_for_bit_like_a_whole_one(heap: Bench, whole: Path, tmp_path: Path, steps: int) -> None:
    stopped, asked = tmp_path / "stopped", iter(range(100))
    with pytest.raises(Interrupted), stopped_by(lambda: next(asked) >= steps):
        distill(heap, stopped)
    distill(heap, stopped, resume=True)
    for name in ("student/model.safetensors", "student/trust.json", "config.yaml", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), name


def test_commands_on_such_a_run(heap: Bench, whole: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xef\xbb\xbfblank\r\n\r\n# textures\r\n  bar\r\nzebra_stripe\r\n")
    arguments = ["quote", str(heap.data), "--teacher", heap.teacher, "--classes", str(names), "--json"]
    quoted = json.loads(vl2v(*heap.apart(tmp_path).flags(*arguments)).stdout)
    assert quoted["images"] == {"training": {"needed": 48, "known": 0}, "validation": {"needed": 12, "known": 0}}
    assert quoted["texts"] == {"needed": 3, "known": 0}
    assert (quoted["data"]["classes"], quoted["data"]["labelled"]) == (["blank", "bar", "zebra stripe"], False)
    one_by_one = [word for name in NAMES.split(",") for word in ("--classes", name)]
    assert json.loads(vl2v(*heap.flags(*arguments[:4], *one_by_one, "--json")).stdout)["data"] == quoted["data"]
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    answers = json.loads(vl2v("predict", copy, heap.data / "ink", "--format", "json").stdout)
    assert len(answers) == 30
    assert {answer["label"] for answer in answers} <= {"blank", "bar", "zebra stripe"}
    trust = vl2v("trust", copy)
    assert "unlike the teacher's" in trust.stdout
    assert "wrong" not in trust.stdout
    temperatures = [api.load(run).trust.temperature for run in (whole, copy)]  # type: ignore[union-attr]
    assert temperatures[1] == pytest.approx(temperatures[0], rel=1e-2), "fitted again, to kept answers in float16"
    added = vl2v("classes", "add", copy, "dot", "--store", str(heap.root / "vectors.sqlite"))
    assert added.returncode == 0, added.stderr
    assert api.load(copy).classes == ["blank", "bar", "zebra stripe", "dot"]


def test_domains_share_a_batch_where_the_user_says_so(heap: Bench, tmp_path: Path) -> None:
    more = {"distill": SMALL["distill"] | {"steps": 2}, "align": {"steps": 2}, "data": {"domain_folders": True}}
    run = distill(heap, tmp_path / "run", method="adip", recipe="paper", **more)
    stored = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert (stored["batch_per_domain"], stored["image_weight"]) == (4, 1.0)
    assert [(row.domain, row.images) for row in run.evaluation.rows] == [("ink", 6), ("neon", 6)]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
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
def test_what_a_tired_person_types(heap: Bench, tmp_path: Path, flags: list[str], code: int, said: list[str]) -> None:
    arguments = ["distill", str(heap.data), "--teacher", heap.teacher, "--student", heap.student]
    done = vl2v(*heap.flags(*arguments, "--out", str(tmp_path / "run"), *flags))
    assert done.returncode == code, done.stdout + done.stderr
    for text in said:
        assert text in done.stderr
    assert not (tmp_path / "run").exists()


def test_folders_that_are_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root, said in ((bench.data, "without --classes"), (tmp_path / "empty", "contains no images")):
        done = vl2v(*bench.flags("quote", str(root), "--teacher", bench.teacher, "--classes", NAMES))
        assert done.returncode == 3
        assert said in " ".join(done.stderr.split())
    accepted = vl2v(
        *bench.flags("quote", str(bench.data), "--teacher", bench.teacher, "--classes", NAMES, "--layout-as-found")
    )
    assert accepted.returncode == 0, accepted.stderr
    assert "90 images without labels" in accepted.stdout


@pytest.mark.parametrize("classes", [[], ["bar"], ["bar", "BAR"], Path("absent.txt")])
def test_python_refuses_the_same(heap: Bench, tmp_path: Path, classes: Any) -> None:
    with pytest.raises(ConfigError):
        distill(heap, tmp_path / "run", classes=classes)
    with pytest.raises(ConfigError):
        api.quote(heap.data, heap.teacher, classes=classes)


def test_a_name_that_fits_no_image_is_told(heap: Bench, tmp_path: Path) -> None:
    quick = {"distill": SMALL["distill"] | {"steps": 1}, "align": {"steps": 1}}
    run = distill(heap, tmp_path / "run", classes=[*NAMES.split(","), "grid"], **quick)
    (warning,) = json.loads((run.folder / "evaluation.json").read_text())["warnings"]
    assert "the teacher assigns none of the 60 images to grid" in warning
    assert "against the teacher's answers" in calibration_line(run.student.trust, run.evaluation)  # type: ignore[arg-type]


def test_the_validation_loss_is_the_divergence_from_the_teacher() -> None:
    generator = np.random.default_rng(0)
    logits, teacher = (torch.from_numpy(generator.normal(size=(20, 4)).astype(np.float32)) for _ in range(2))
    soft = torch.softmax(teacher, dim=1)
    found = score(logits, soft)
    expected = (soft * (soft.log() - torch.log_softmax(logits, dim=1))).sum(dim=1).mean()
    assert found.loss == pytest.approx(float(expected), rel=1e-5)
    assert found.accuracy == score(logits, teacher.argmax(dim=1)).accuracy
    assert score(teacher, soft).loss == pytest.approx(0, abs=1e-6)


def test_a_model_card_says_what_the_figures_are(whole: Path) -> None:
    card = json.loads((whole / "student" / "student.json").read_text())
    figures, config = (json.loads((whole / "evaluation.json").read_text()), RunFolder(whole).config())
    text = model_card(Facts("me/heap", "mit", card, figures, config.model_dump(mode="json")))
    assert "Agreement with the teacher in percent." in text
    assert "60 images without labels in 1 domains: data" in text
    assert "so the figures do not compare the student with labels" in text
    assert "accuracy" not in text.lower()


@pytest.mark.slow
def test_report_and_export_speak_of_agreement(heap: Bench, bench: Bench, tmp_path: Path) -> None:
    run = distill(heap, tmp_path / "run", report=True)
    page = (run.folder / "report.html").read_text()
    assert "Agreement with the teacher" in page
    assert "its agreement with the teacher is" in page
    assert "accuracy" not in page.lower()
    sheets = "".join(path.read_text() for path in (run.folder / "report").glob("*.csv"))
    assert "accuracy" not in sheets
    done = vl2v("export", run.folder, "--onnx", "--cache", str(heap.root / "cache"))
    assert done.returncode == 0, done.stderr
    assert "agreement with the teacher" in " ".join(done.stdout.split())
    assert "accuracy" not in done.stdout
    found = json.loads((run.folder / "export" / "export.json").read_text())["files"]["model.onnx"]
    (row,) = run.evaluation.rows
    assert (found["images"], found["accuracy"]) == (12, row.student)
    gallery = build(run_config := RunFolder(run.folder).config(), Model(run.folder / "export" / "model.onnx"),
                    StoragePaths(heap.root / "cache", heap.root / "vectors.sqlite"), Silent())  # fmt: skip
    assert run_config.data.classes
    assert set(gallery.labels) == {"no label"}
    quantised = vl2v("export", run.folder, "--int8", "--tolerance", "100", "--cache", str(heap.root / "cache"))
    assert quantised.returncode == 0, quantised.stderr
    other = ["--onnx", "--data", str(bench.data / "ink"), "--out", str(tmp_path / "other")]
    done = vl2v("export", run.folder, *other, "--cache", str(heap.root / "cache"))
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout, "these images have labels"
