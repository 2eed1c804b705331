from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from tiny_dataset import Bench, Runs, vl2v

import vl2v as package
import vl2v_runtime
from vl2v.commands import export as job
from vl2v.errors import DataError, RunError, StudentError, Vl2vError
from vl2v.locations import StoragePaths
from vl2v.onnx_export import sample
from vl2v.onnx_export.onnx import to_onnx
from vl2v.onnx_export.parity import FLOAT_TOLERANCE
from vl2v.onnx_export.sample import RANDOM, VALIDATION
from vl2v.redaction import public_provenance
from vl2v.student.model import Student
from vl2v_runtime.network import HEAD

pytestmark = pytest.mark.slow


@pytest.fixture
def run(runs: Runs, tmp_path: Path) -> Path:
    return runs.get().copy(tmp_path / "run")


def storage(bench: Bench) -> StoragePaths:
    return StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")


def test_both_files_agree_with_the_student_and_report_their_parity(bench: Bench, run: Path) -> None:
    done = vl2v("export", str(run), "--onnx", "--int8", "--cache", str(bench.root / "cache"), "--tolerance", "10")
    assert done.returncode == 0, done.stderr
    assert "model.int8.onnx" in done.stdout
    assert sorted(path.name for path in (run / "export").iterdir()) == ["export.json", "model.int8.onnx", "model.onnx"]
    report = json.loads((run / "export" / "export.json").read_text())["files"]
    evaluation = json.loads((run / "evaluation.json").read_text())
    in_domain = [row for row in evaluation["domains"] if row["role"] == "in-domain"]
    images = sum(row["images"] for row in in_domain)
    accuracy = sum(row["student"] * row["images"] for row in in_domain) / images
    for name in ("model.onnx", "model.int8.onnx"):
        file_report = report[name]
        assert file_report["images_are"] == VALIDATION
        assert file_report["images"] == images, "held-out domains are not used"
        assert file_report["student"] == pytest.approx(accuracy)
        assert set(file_report["domains"]) == {"ink", "neon"}
        assert file_report["bytes"] == (run / "export" / name).stat().st_size
    assert report["model.onnx"]["logits_relative"] <= FLOAT_TOLERANCE
    assert report["model.onnx"]["accuracy"] == pytest.approx(accuracy)
    assert report["model.int8.onnx"]["quantised"]["images"] == 48, "every training image of the sources"
    student, model = Student.load(run), vl2v_runtime.load(run, int8=False)
    files = sorted((bench.data / "rose").rglob("*.png"))
    np.testing.assert_allclose(model.probabilities(files), student.predict_proba(files), atol=1e-4)
    assert model.trust == student.trust
    assert model.metadata.provenance == public_provenance(student.provenance)
    for name in ("model.onnx", "model.int8.onnx"):
        content = (run / "export" / name).read_bytes()
        for secret in (bench.root, bench.data, Path(bench.teacher).name):
            assert str(secret).encode() not in content, "files for a device are given away"


def test_exporting_one_file_preserves_the_report_of_the_other(bench: Bench, run: Path) -> None:
    package.export(run, storage=storage(bench))
    first = (run / "export" / "model.onnx").stat().st_mtime_ns
    done = package.export(run, int8=True, tolerance=100, storage=storage(bench))
    assert set(done.files) == {"model.int8.onnx"}
    assert (run / "export" / "model.onnx").stat().st_mtime_ns == first
    assert set(json.loads((run / "export" / "export.json").read_text())["files"]) == {"model.onnx", "model.int8.onnx"}


def test_a_file_that_disagrees_is_deleted(bench: Bench, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(student: Student, provenance: Mapping[str, Any]) -> onnx.ModelProto:
        model = to_onnx(student, provenance)
        head = next(tensor for tensor in model.graph.initializer if tensor.name == HEAD)
        rows = numpy_helper.to_array(head).copy()
        rows[0, 0] += 1e-3
        head.CopyFrom(numpy_helper.from_array(rows, HEAD))
        return model

    monkeypatch.setattr(job, "to_onnx", broken)
    with pytest.raises(StudentError, match="disagrees with the student") as caught:
        package.export(run, storage=storage(bench))
    assert "at most 0.0001" in str(caught.value)
    assert not list((run / "export").iterdir())


def test_an_int8_file_that_loses_too_much_is_deleted(bench: Bench, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sample.batches
    monkeypatch.setattr(
        job, "batches", lambda *arguments: (batch * 0 for batch in real(*arguments))
    )  # ranges of blank images
    with pytest.raises(StudentError, match="loses too much accuracy") as caught:
        package.export(run, onnx=True, int8=True, storage=storage(bench))
    assert "--tolerance" in str(caught.value)
    assert not list((run / "export").iterdir())


def test_moved_images_have_to_be_stated(bench: Bench, run: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["root"] = str(tmp_path / "old")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(RunError, match="--data") as caught:
        package.export(run, storage=storage(bench))
    assert str(tmp_path / "old") in str(caught.value)
    done = package.export(run, data=bench.data, storage=storage(bench))
    assert done.images == VALIDATION, "identified by content"
    shutil.copytree(bench.data, tmp_path / "fewer")
    (tmp_path / "fewer" / "ink" / "bar" / "0.png").unlink()
    done = package.export(run, data=tmp_path / "fewer", storage=storage(bench))
    assert done.images != VALIDATION
    assert set(done.files["model.onnx"].domains) == {"ink", "neon"}, "held-out domains are not used here either"


def test_a_student_without_a_run_is_compared_on_random_images(bench: Bench, run: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(run / "student", tmp_path / "bare"))
    done = vl2v("export", str(bare), "--cache", str(bench.root / "cache"))
    assert done.returncode == 0, done.stderr
    assert "random images" in done.stderr
    report = json.loads((bare / "export" / "export.json").read_text())["files"]["model.onnx"]
    assert (report["images_are"], report["accuracy"]) == (RANDOM, None)
    refused = vl2v("export", str(bare), "--int8")
    assert refused.returncode == 2
    assert "--data" in refused.stderr


def test_a_run_that_is_not_finished_is_refused(run: Path) -> None:
    shutil.rmtree(run / "student")
    done = vl2v("export", str(run))
    assert done.returncode == 8
    assert f"vl2v distill --out {run} --resume" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_of_the_user_has_to_be_passed(bench: Bench, tmp_path: Path) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.ReLU(), torch.nn.Flatten())
    small: dict[str, Any] = {"student": {"size": 32}, "align": {"steps": 5}, "distill": {"steps": 5}}
    teacher = bench.teacher
    package.distill(
        bench.data, teacher, module, out=tmp_path / "own", held_out=["neon"], storage=storage(bench),
        settings=small | {"batch_per_domain": 2, "workers": 0, "device": "cpu", "method": "erm"}, report=False,
    )  # fmt: skip
    with pytest.raises(Vl2vError, match=r"vl2v\.export\(folder, backbone=your_module\)"):
        package.export(tmp_path / "own", storage=storage(bench))
    done = package.export(tmp_path / "own", backbone=module, storage=storage(bench))
    assert done.files["model.onnx"].embedding is None, "a linear classifier has none"
    assert vl2v_runtime.load(tmp_path / "own").metadata.classifier == "linear"


def test_a_student_with_a_removed_class_is_exported_and_calibrated_again(
    bench: Bench, run: Path, tmp_path: Path
) -> None:
    before = package.export(run, storage=storage(bench)).files["model.onnx"]
    package.remove_classes(run, ["bar"])
    done = package.export(run, storage=storage(bench)).files["model.onnx"]
    assert 0 < done.images < before.images, "images of the removed class are not used"
    assert done.agreement == 1
    data = Path(shutil.copytree(bench.data, tmp_path / "data"))
    (data / "ink" / "bar").rename(data / "ink" / "beam")
    with pytest.raises(DataError, match="is not one of the student's classes"):
        package.export(run, data=data, storage=storage(bench))
    (run / "student" / "trust.json").unlink()
    assert vl2v("trust", str(run)).returncode == 0
    model, student = vl2v_runtime.load(run), Student.load(run)
    assert len(model.classes) == 2
    assert student.trust is not None
    assert model.trust == student.trust
    assert student.trust.calibration["classes_changed"] == 1
