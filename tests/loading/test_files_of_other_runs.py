"""Files that were computed with the student of a run are not confused with those of another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_file import changed, make_exported
from made_folder import change, student_of
from tiny_dataset import Bench, Runs, vl2v

from vl2v.errors import RunError, StudentError
from vl2v.evaluation.predictions import read_predictions
from vl2v.onnx_export.exported import change_exports, changeable_exports
from vl2v.onnx_export.onnx import get_metadata, set_metadata
from vl2v.origin import ORIGIN
from vl2v.reports.source import evaluation_of_run, read_run
from vl2v.runs.folder import RunFolder
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.training.student import new_origin

OTHER = "0" * 32
ANOTHER = "belongs to another student"


@pytest.fixture
def run(runs: Runs, tmp_path: Path) -> Path:
    return runs.get().copy(tmp_path / "run")


def give_arrays(file: Path, origin: str | None) -> None:
    """Write the arrays of a file again, with another origin or without any."""
    with np.load(file) as loaded:
        arrays: dict[str, Any] = {name: loaded[name] for name in loaded.files if name != ORIGIN}
    np.savez(file, **arrays | ({} if origin is None else {ORIGIN: np.array(origin)}))


def give(run: Path, origin: str | None) -> None:
    """Give the files of a run another origin, as if they were copied from another run, or remove it."""

    def edit(content: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in content.items() if key != ORIGIN}
        return rest if origin is None else rest | {ORIGIN: origin}

    change(run / "evaluation.json", edit)
    change(run / "student" / "trust.json", edit)
    give_arrays(run / "predictions.npz", origin)


def test_every_file_has_the_origin_of_the_student(run: Path) -> None:
    origin = json.loads((run / "student" / "student.json").read_text())["provenance"][ORIGIN]
    assert len(origin) == 32
    for name in ("evaluation.json", "student/trust.json"):
        assert json.loads((run / name).read_text())[ORIGIN] == origin
    with np.load(run / "predictions.npz") as loaded:
        assert str(loaded[ORIGIN]) == origin
    assert read_run(run).missing.keys() == {"embeddings", "export"}


def test_the_origin_depends_on_the_training_and_not_on_the_classes() -> None:
    student = student_of()
    origin = new_origin(student)
    student.add_class("zebra", np.ones(4, np.float32))
    assert new_origin(student) == origin
    next(student.backbone.parameters()).data += 1
    assert new_origin(student) != origin


def test_files_of_another_run_are_refused_and_the_advice_helps(bench: Bench, run: Path, tmp_path: Path) -> None:
    give(run, OTHER)
    image = str(bench.data / "rose" / "bar" / "0.png")
    for words, problem in (
        (("trust", run), f"predictions.npz {ANOTHER}"),
        (("expect", run, image), f"predictions.npz {ANOTHER}"),
        (("final", run, "--out", tmp_path / "out"), f"evaluation.json {ANOTHER}"),
        (("report", run), f"evaluation.json {ANOTHER}"),
        (("predict", run, image), "trust data of another student"),
    ):
        done = vl2v(*words)
        assert done.returncode != 0, words
        message = " ".join(done.stderr.split())
        assert problem in message, message
        if "predict" not in words:
            assert f"--out {run} --resume" in message
    again = vl2v("distill", "--out", run, "--resume", "--no-report", "-q")
    assert again.returncode == 0, again.stderr
    assert vl2v("predict", run, image).returncode == 0
    assert vl2v("trust", run).returncode == 0


def test_trust_data_of_another_run_are_fitted_again(run: Path) -> None:
    before = json.loads((run / "student" / "trust.json").read_text())
    styled = read_predictions(run / "predictions.npz").styled_temperature
    assert styled is not None
    assert before["temperature"] >= styled
    change(run / "student" / "trust.json", lambda content: content | {ORIGIN: OTHER, "temperature": 7.0})
    with pytest.raises(StudentError, match="another student"):
        Student.load(run)
    done = vl2v("trust", run)
    assert done.returncode == 0
    after = json.loads((run / "student" / "trust.json").read_text())
    assert after[ORIGIN] == before[ORIGIN]
    assert after["temperature"] == pytest.approx(before["temperature"], rel=0.02)  # from logits in half precision


def test_files_without_an_origin_are_read(bench: Bench, run: Path) -> None:
    give(run, None)
    evaluation_of_run(RunFolder(run))
    assert vl2v("trust", run).returncode == 0
    assert vl2v("predict", run, bench.data / "rose" / "bar" / "0.png").returncode == 0
    change(run / "student" / "student.json", lambda card: card | {"provenance": without_origin(card["provenance"])})
    give(run, OTHER)  # a student of an earlier version
    evaluation_of_run(RunFolder(run))
    assert vl2v("trust", run).returncode == 0


def without_origin(provenance: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in provenance.items() if key != ORIGIN}


def test_a_report_omits_the_parts_of_another_run(run: Path) -> None:
    give_arrays(run / "predictions.npz", OTHER)
    with np.load(run / "predictions.npz") as loaded:
        arrays = {name: loaded[name] for name in ("domain", "role", "path", "label", ORIGIN)}
    np.savez(run / "embeddings.npz", classes=np.array(["a", "b", "c"]), **arrays)
    (run / "export").mkdir()
    (run / "export" / "export.json").write_text(json.dumps({"files": {}, ORIGIN: OTHER}))
    source = read_run(run)
    assert (source.predictions, source.embeddings, source.export) == (None, None, None)
    assert all("student from another training" in source.missing[name] for name in ("predictions", "embeddings"))


def test_metrics_and_training_state_of_another_run_are_refused(run: Path, tmp_path: Path) -> None:
    folder, other = RunFolder(run), RunFolder(tmp_path / "other")
    config, state = folder.config(), folder.load_state()
    lines = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    assert state is not None
    assert {len(config.origin)} == {32}
    assert {state.values[ORIGIN], *(line[ORIGIN] for line in lines)} == {config.origin}
    other.create(config.model_copy(update={"seed": 1}))
    assert other.config().origin != config.origin
    other.add_metrics(lines[0])
    other.save_state(state.tensors, state.values)
    assert other.load_state() is not None
    shutil.copy(folder.state_file, tmp_path)
    shutil.copy(other.state_file, run)
    with pytest.raises(RunError, match=r"state.safetensors belongs to another run(.|\n)*delete it to train"):
        folder.load_state()
    shutil.copy(tmp_path / folder.state_file.name, run)
    assert not read_run(run).missing.keys() & {"metrics"}
    shutil.copy(other.metrics_file, run)
    with pytest.raises(RunError, match=r"metrics.jsonl belongs to another run(.|\n)*delete it to go on"):
        folder.load_state()
    assert read_run(run).metrics == ()
    assert "of a run from another training" in read_run(run).missing["metrics"]
    folder.write_config(config.model_copy(update={ORIGIN: ""}))  # of an earlier version
    assert RunFolder(run).load_state() is not None
    assert len(read_run(run).metrics) == 1


def test_exported_files_of_another_student_are_not_changed(tmp_path: Path) -> None:
    student = student_of(origin="1" * 32)
    student.provenance[CHANGES] = [{"at": "2026-01-01", "before": student.classes}]
    (tmp_path / "export").mkdir()
    file = make_exported(tmp_path / "export" / "model.onnx")
    assert changeable_exports(tmp_path, "1" * 32) == [file]  # of an earlier version

    def give_origin(model: Any) -> None:
        metadata = get_metadata(model, str(file))
        set_metadata(model, type(metadata)(**(vars(metadata) | {"provenance": {ORIGIN: OTHER}})))

    changed(file, file, give_origin)
    before = file.read_bytes()
    assert changeable_exports(tmp_path, OTHER) == [file]
    with pytest.raises(RunError, match=r"model.onnx belongs to another student(.|\n)*vl2v export RUN"):
        change_exports(tmp_path, student)
    assert file.read_bytes() == before
