from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_dataset import Bench, Runs, environment, metrics, vl2v

import vl2v as package
from fork_server import Child, fork_vl2v
from vl2v.locations import StoragePaths

pytestmark = pytest.mark.slow


@pytest.fixture
def finished(runs: Runs) -> Path:
    return runs.get().folder


def test_the_table_of_results_is_printed(bench: Bench, tmp_path: Path) -> None:
    done = vl2v(*bench.distill(tmp_path / "run", "--steps", "2", "--align-steps", "2"))
    assert done.returncode == 0, done.stderr
    assert "out-of-domain" in done.stdout
    assert "zero-shot" in done.stdout
    assert "report" not in done.stdout


def test_the_run_folder_has_its_files(bench: Bench, finished: Path) -> None:
    assert {p.name for p in finished.iterdir()} >= {
        "config.yaml", "metrics.jsonl", "state.safetensors", "state.json", "student", "evaluation.json",
    }  # fmt: skip
    evaluation = json.loads((finished / "evaluation.json").read_text())
    roles = {row["domain"]: row["role"] for row in evaluation["domains"]}
    assert roles == {"ink": "in-domain", "neon": "in-domain", "rose": "out-of-domain"}
    assert [line["stage"] for line in metrics(finished)] == ["align"] * 16 + ["distill"] * 7
    assert sum(len(line["losses"]) for line in metrics(finished)) == 60 + 24
    card = json.loads((finished / "student" / "student.json").read_text())
    assert card["classes"] == ["bar", "blank", "zebra stripe"]
    assert card["provenance"]["seed"] == 0
    assert not (finished / "report.html").exists(), "--no-report"


def test_the_reported_accuracy_is_that_of_the_saved_student(bench: Bench, finished: Path) -> None:
    reported = {r["domain"]: r["student"] for r in json.loads((finished / "evaluation.json").read_text())["domains"]}
    student = package.load(finished)
    files = sorted((bench.data / "rose").rglob("*.png"))
    right = [
        said == path.parent.name.replace("_", " ") for said, path in zip(student.predict(files), files, strict=True)
    ]
    assert np.mean(right) == reported["rose"]
    again = vl2v("evaluate", str(finished), str(bench.data), "--json", "--cache", str(bench.root / "cache"))
    assert again.returncode == 0, again.stderr
    measured = {row["domain"]: row["student"] for row in json.loads(again.stdout)["domains"]}
    assert measured == reported


def test_training_images_among_other_images_are_reported(bench: Bench, finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bench.data, tmp_path / "copy"))
    (copy / "ink" / "blank" / "0.png").rename(
        copy / "ink" / "blank" / "renamed.png"
    )  # no longer the dataset of the run
    command = ["evaluate", str(finished), str(copy), "--cache", str(bench.root / "cache")]
    made = json.loads((finished / "student" / "student.json").read_text())["provenance"]["data"]
    count = made["training_images"]
    assert 0 < count == len(made["training_sample"]) < 60, "the training part of two domains of 30 images"
    completed = vl2v(*command)
    assert completed.returncode == 0, completed.stderr
    assert f"about {count} of the {count} training images of the student are among these 90 images" in completed.stderr
    unseen = vl2v(*command, "--domain", "rose")
    assert unseen.returncode == 0, unseen.stderr
    assert "training images" not in unseen.stderr


def test_the_averaged_weights_are_saved(finished: Path) -> None:
    from safetensors.torch import load_file

    saved, state = load_file(finished / "student" / "model.safetensors"), load_file(finished / "state.safetensors")
    name = "conv1.0.weight" if "backbone.conv1.0.weight" in saved else "conv1.weight"
    assert not np.array_equal(saved[f"backbone.{name}"].numpy(), state[f"backbone/{name}"].numpy())
    assert all(
        (saved[f"backbone.{n}"] == state[f"backbone/{n}"]).all() for n in ("bn1.running_mean", "bn1.running_var")
    )


def test_the_student_learns_the_dataset(finished: Path) -> None:
    lines = metrics(finished)
    assert np.mean(lines[-1]["losses"]) < np.mean(lines[0]["losses"]) - 0.2
    assert lines[-1]["val_loss"] < lines[0]["val_loss"]


def test_a_second_run_buys_nothing(bench: Bench, finished: Path) -> None:
    store = ["--store", str(finished.parent / "vectors.sqlite")]
    quote = ["quote", str(bench.data), "--teacher", bench.teacher, "--held-out", "ink", "--json"]
    quoted = vl2v(*bench.flags(*quote), *store)
    assert quoted.returncode == 0, quoted.stderr
    result = json.loads(quoted.stdout)
    assert (result["image_queries"], result["text_queries"]) == (0, 0)
    assert sum(part["needed"] for part in result["images"].values()) == 90


def test_predictions_are_printed_in_every_format(bench: Bench, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    shutil.copy(bench.data / "ink" / "blank" / "0.png", tmp_path / "good.png")
    as_json = vl2v("predict", str(finished), str(tmp_path), "--format", "json")
    assert as_json.returncode == 3
    answers = json.loads(as_json.stdout)
    assert [Path(a["path"]).name for a in answers] == ["broken.png", "good.png"]
    assert answers[0]["fault"]
    assert answers[1]["label"] in ("blank", "bar", "zebra stripe")
    as_csv = vl2v("predict", str(finished / "student"), str(tmp_path / "good.png"), "--format", "csv")
    assert as_csv.returncode == 0
    assert next(csv.DictReader(io.StringIO(as_csv.stdout)))["label"] == answers[1]["label"]
    as_table = vl2v("predict", str(finished), str(tmp_path / "good.png"))
    assert answers[1]["label"] in as_table.stdout


def wait_for_lines(run: Path, count: int, process: Child) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) >= count:
            return
        time.sleep(0.005)


def resume(bench: Bench, run: Path) -> list[str]:
    return bench.flags("distill", "--out", str(run), "--resume", "--no-report")


@pytest.mark.system
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(bench: Bench, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    arguments = bench.distill(out)
    killed = 0
    for lines in (0, 5, 17, 20):  # before training, within Align, at the start of Distill, within it
        process = fork_vl2v(*arguments)
        if lines == 0:
            while not (out / "config.yaml").exists() and process.poll() is None:
                time.sleep(0.005)
        wait_for_lines(out, lines, process)
        killed += process.kill() == -signal.SIGKILL
        arguments = resume(bench, out)
    assert killed >= 3
    done = vl2v(*arguments)
    assert done.returncode == 0, done.stderr
    one, two = (run / "student" / "model.safetensors" for run in (finished, out))
    assert one.read_bytes() == two.read_bytes()
    assert (finished / "metrics.jsonl").read_text() == (out / "metrics.jsonl").read_text()


@pytest.mark.system
@pytest.mark.parametrize("align", [{"average": "ema", "ema_decay": 0.9}, {"average": "swad"}, {"solver": "ridge"}])
def test_a_run_killed_within_align_ends_bit_for_bit_the_same(
    bench: Bench, finished: Path, tmp_path: Path, align: dict[str, Any]
) -> None:
    settings = ["--config", str(tmp_path / "settings.yaml"), "--learning-rate", "1e-3"]
    content = {"data": {"root": "."}, "teacher": {"spec": "file:"}, "student": {"spec": ""}}
    (tmp_path / "settings.yaml").write_text(json.dumps(content | {"align": {"learning_rate": 1e-3} | align}))
    uninterrupted, killed = tmp_path / "whole", tmp_path / "killed"
    done = vl2v(*bench.distill(uninterrupted, *settings))
    assert done.returncode == 0, done.stderr
    process = fork_vl2v(*bench.distill(killed, *settings))
    wait_for_lines(killed, 5, process)
    process.kill()
    assert len(metrics(killed)) < len(metrics(uninterrupted))
    done = vl2v(*resume(bench, killed))
    assert done.returncode == 0, done.stderr
    one, two, plain = (run / "student" / "model.safetensors" for run in (uninterrupted, killed, finished))
    assert one.read_bytes() == two.read_bytes() != plain.read_bytes()
    assert (uninterrupted / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    lines = [line for line in metrics(uninterrupted) if line["stage"] == "align"]
    if "solver" in align:
        assert [len(line["losses"]) for line in lines] == [1]
        assert lines[0]["losses"][0] < metrics(finished)[15]["losses"][-1] + 0.05


@pytest.mark.system
def test_ctrl_c_saves_and_shows_how_to_continue(bench: Bench, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = fork_vl2v(*bench.distill(out, "--checkpoint-every", "4"))
    wait_for_lines(out, 18, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130, process.stderr
    assert f"vl2v distill --out {out} --resume" in process.stderr
    assert "Traceback" not in process.stderr
    done = vl2v(*resume(bench, out))
    assert done.returncode == 0, done.stderr
    one, two = (run / "student" / "model.safetensors" for run in (finished, out))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.system
def test_two_processes_give_the_loss_curve_of_one(bench: Bench, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command = [*command, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "vl2v", *bench.distill(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("out-of-domain") == 2, "one process prints, one row and one mean"
    one, two = metrics(finished), metrics(out)
    curves = [[loss for line in lines for loss in line["losses"]] for lines in (one, two)]
    assert len(curves[0]) == len(curves[1]) == 84
    assert np.abs(np.subtract(curves[0], curves[1])).max() < 1e-4
    config = (out / "config.yaml").read_text()
    assert "processes: '2'" in config


def test_the_python_api_accepts_a_module_and_a_teacher_object(bench: Bench, tmp_path: Path) -> None:
    import torch

    from vl2v.teacher.file import FileTeacher

    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.AdaptiveAvgPool1d(16),
    )  # fmt: skip
    small = {"student": {"size": 32}, "align": {"steps": 5}, "distill": {"steps": 5, "checkpoint_every": 2}}
    run = package.distill(
        bench.data,
        FileTeacher(bench.teacher.removeprefix("file:")),
        module,
        out=tmp_path / "own",
        held_out=["neon"],
        storage=StoragePaths(bench.root / "cache", tmp_path / "v.sqlite"),
        settings=small | {"batch_per_domain": 2, "workers": 0, "device": "cpu"},
        report=False,
    )
    assert run is not None
    assert run.image_queries == 90
    assert {row.domain for row in run.evaluation.rows} == {"ink", "neon", "rose"}
    with pytest.raises(package.Vl2vError, match="custom module"):
        package.load(tmp_path / "own")
    again = package.load(tmp_path / "own", backbone=module)
    files = sorted((bench.data / "ink").rglob("*.png"))[:3]
    assert np.array_equal(again.predict_proba(files), run.student.predict_proba(files))


def test_views_unlabelled_images_and_few_labels_are_quoted_and_bought(bench: Bench, tmp_path: Path) -> None:
    class Colour:
        def describe(self) -> Any:
            from vl2v.teacher.base import TeacherCard

            return TeacherCard("colour", "1", 3, 10.0)

        def embed_images(self, images: list[bytes]) -> Any:
            from vl2v_runtime.imaging import decode

            return np.stack([np.asarray(decode(data)).reshape(-1, 3).mean(0) + 1 for data in images])

        def embed_texts(self, texts: list[str]) -> Any:
            return np.eye(3)[: len(texts)]

    more = tmp_path / "more"
    shutil.copytree(bench.data / "rose", more)
    settings = {
        "data": {"unlabelled": str(more), "labels_per_class": 3},
        "teacher": {"views": 3, "accept": True},  # images of one colour share an embedding
        "student": {"size": 32},
        "align": {"steps": 4},
        "distill": {"steps": 4, "checkpoint_every": 2, "weights": "best"},
        "batch_per_domain": 2,
        "unlabelled_per_batch": 2,
        "workers": 0,
        "device": "cpu",
    }
    run = package.distill(
        bench.data,
        Colour(),
        bench.student,
        out=tmp_path / "run",
        held_out=["rose"],
        storage=StoragePaths(tmp_path / "cache", tmp_path / "v.sqlite"),
        settings=settings,
        report=False,
    )
    assert run is not None
    # 2 domains x 3 classes x 3 labels and 30 unlabelled, three views each; the zero-shot row then needs the 6 images
    # of validation (one a class and domain), while those of 'rose' are known from the unlabelled folder.
    assert run.image_queries == 3 * (18 + 30) + len([r for r in run.evaluation.rows if r.role == "in-domain"]) * 3
