"""Trust data of a small real run, from training to the command line."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dataset import CLASSES, Bench

import vl2v
from command_line import run_cli
from once import Once
from vl2v.evaluation.evaluation import Evaluation
from vl2v.locations import StoragePaths

pytestmark = pytest.mark.slow
SETTINGS: dict[str, Any] = {
    "student": {"size": 32}, "batch_per_domain": 4, "align": {"steps": 60}, "device": "cpu", "workers": 0,
    "distill": {"steps": 24, "checkpoint_every": 4, "learning_rate": 1e-3}, "data": {"holdout_fraction": 0.5},
    "measure": {"weights": ["last"]},
}  # fmt: skip


def distilled(bench: Bench, data: Path, out: Path) -> None:
    vl2v.distill(
        data, bench.teacher, bench.student, out=out, held_out=["rose"], settings=SETTINGS, report=False,
        storage=StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"),
    )  # fmt: skip


def evaluation(run: Path) -> Evaluation:
    return Evaluation.from_dict(json.loads((run / "evaluation.json").read_text()))


@pytest.fixture(scope="session")
def made(bench: Bench, once: Once) -> Path:
    """A finished run's folder."""
    return once("trusted", lambda folder: distilled(bench, bench.data, folder / "run")) / "run"


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_run_ends_with_trust_data(bench: Bench, made: Path) -> None:
    saved = json.loads((made / "student" / "trust.json").read_text())
    assert saved["calibration"]["images"] == 30
    assert sorted(saved["domains"]) == ["ink", "neon"]  # not rose, which was held out
    student = vl2v.load(made)
    assert student.trust is not None
    assert student.trust.to_dict() | {"origin": student.provenance["origin"]} == saved
    files = sorted((bench.data / "rose").rglob("*.png"))
    logits = student.logits(student.project(files))
    assert np.allclose(student.predict_proba(files), (logits / saved["temperature"]).softmax(-1).numpy(), atol=1e-6)
    assert student.predict(files) == [student.classes[k] for k in logits.argmax(-1)]
    rows = {row["domain"]: row for row in json.loads((made / "evaluation.json").read_text())["domains"]}
    for row in rows.values():
        assert 0 <= row["student_ece_calibrated"] <= 1
        assert 0 <= row["student_aurc"] <= 1
        assert 0 <= row["student_aurc_energy"] <= 1
    assert all(row.student_ece_calibrated is not None for row in evaluation(made).alternatives["last"].rows)


def test_labels_of_the_held_out_domain_change_nothing(bench: Bench, made: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bench.data, tmp_path / "data"))
    for index, name in enumerate(CLASSES):
        (other / "rose" / name).rename(other / f"moved{index}")
    for index in range(len(CLASSES)):
        (other / f"moved{index}").rename(other / "rose" / CLASSES[(index + 1) % len(CLASSES)])
    again = tmp_path / "run"
    distilled(bench, other, again)
    assert evaluation(again).rows[-1].student_aurc != evaluation(made).rows[-1].student_aurc  # the labels did change
    texts = [(run / "student" / "trust.json").read_bytes() for run in (made, again)]
    assert texts[0] == texts[1]


def test_a_folder_of_an_earlier_version_loads_and_is_fitted_again(bench: Bench, copied: Path) -> None:
    file = copied / "student" / "trust.json"
    before = json.loads(file.read_text())
    file.unlink()
    content = json.loads((copied / "evaluation.json").read_text())
    for row in content["domains"]:
        for name in ("student_ece_calibrated", "student_aurc", "student_aurc_energy"):
            del row[name]
    assert Evaluation.from_dict(content).rows[0].student_ece_calibrated is None

    student, picture = vl2v.load(copied), bench.data / "rose" / "bar" / "0.png"
    assert student.trust is None
    assert torch.equal(
        torch.from_numpy(student.predict_proba(picture)), student.logits(student.project(picture)).softmax(-1)
    )
    refused = run_cli("predict", copied, picture, "--coverage", "0.95")
    assert refused.returncode == 6
    assert "vl2v trust" in refused.stderr
    assert run_cli("predict", copied, picture).returncode == 0

    done = run_cli("trust", copied, "--json")
    assert done.returncode == 0, done.stderr
    after = json.loads(file.read_text())
    assert after["temperature"] == pytest.approx(before["temperature"], rel=0.02)  # predictions are saved in 16 bits
    assert after["domains"].keys() == before["domains"].keys()
    drift_by_domain = {row["domain"]: row for row in json.loads(done.stdout)["domains"]}
    assert drift_by_domain["rose"]["role"] == "out-of-domain"
    assert drift_by_domain["ink"]["coverages"]["0.8"]["answered"] > 0.4
    assert set(drift_by_domain["rose"]["unusual"]) == {"1", "8", "32"}
    assert "temperature" in run_cli("trust", copied).stdout


def test_trust_is_fitted_from_saved_predictions_without_the_images(copied: Path) -> None:
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("root: ", "root: /nowhere"))
    done = run_cli("trust", copied, "--json")
    assert done.returncode == 0
    assert "drift cannot be measured" in done.stderr
    assert sorted(json.loads((copied / "student" / "trust.json").read_text())["domains"]) == ["ink", "neon"]
    (copied / "predictions.npz").unlink()
    assert run_cli("trust", copied).returncode == 8


def test_a_broken_file_is_named(copied: Path) -> None:
    (copied / "student" / "trust.json").write_text("{")
    done = run_cli("predict", copied, copied)
    assert done.returncode in (3, 6)
    with pytest.raises(vl2v.errors.StudentError, match=r"trust\.json"):
        vl2v.load(copied)
    assert run_cli("trust", copied).returncode == 0
    assert vl2v.load(copied).trust is not None


def test_predict_marks_uncertain_images(bench: Bench, copied: Path, tmp_path: Path) -> None:
    file = copied / "student" / "trust.json"
    content = json.loads(file.read_text())
    bar, noise, broken = bench.data / "ink" / "bar" / "0.png", tmp_path / "noise.png", tmp_path / "broken.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(noise)
    broken.write_text("no image")
    student = vl2v.load(copied)
    sure = np.sort(student.predict_proba([bar, noise]).max(axis=1))
    assert sure[0] < sure[1]
    content["reject"]["confidence"]["0.9"] = float(sure.mean())  # between the two
    file.write_text(json.dumps(content))
    words = ("predict", copied, bar, noise, broken, "--coverage", "0.9", "--format")
    answers = json.loads(run_cli(*words, "json").stdout)
    assert sorted(str(a["accepted"]) for a in answers) == ["False", "None", "True"]
    assert answers[2]["fault"]
    rows = list(csv.DictReader(io.StringIO(run_cli(*words, "csv").stdout)))
    assert sorted(row["accepted"] for row in rows) == ["", "no", "yes"]
    assert run_cli(*words, "table").stdout.count("unsure") == 1
    assert "unsure" not in run_cli("predict", copied, noise).stdout
    assert run_cli(*words[:5], "--coverage", "0.33").returncode == 2
    assert run_cli(*words[:5], "--coverage", "0.9", "--score", "entropy").returncode == 2


def test_predict_warns_only_of_an_unusual_batch(bench: Bench, copied: Path) -> None:
    file = copied / "student" / "trust.json"
    content = json.loads(file.read_text())
    for limit, warned in ((0.0, True), (1e6, False)):
        content["drift"]["limit"] = [limit] * len(content["drift"]["sizes"])
        file.write_text(json.dumps(content))
        done = run_cli("predict", copied, bench.data / "rose", "--format", "json")
        assert ("unlike the training domains: 30 images" in done.stderr) is warned
        assert len(json.loads(done.stdout)) == 30


def test_the_commands_of_the_page_work(bench: Bench, copied: Path, tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "trust.md"
    lines = [line.split() for line in page.read_text().splitlines() if line.startswith("    vl2v ")]
    assert [line[1] for line in lines] == ["predict", "trust", "trust", "predict", "trust"]
    nouns = tmp_path / "nouns.txt"
    nouns.write_text("dot\ngrid\n")  # the teacher file has no others
    names = {"runs/first": copied, "photos/": bench.data / "rose"}
    for line in lines:
        more = ("--reject-texts", nouns) if line[1] == "trust" and "--reject" in line else ()
        done = run_cli(*(names.get(word, word) for word in line[1:]), *more)
        assert done.returncode == 0, done.stderr
