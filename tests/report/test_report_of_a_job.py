"""The end of a real run: the saved embeddings, the report, and an error of the report that does not lose the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny_dataset import Bench, vl2v

from recorders import MessageRecorder
from vl2v.api import distill, load
from vl2v.locations import StoragePaths


@pytest.mark.slow
def test_a_run_saves_its_embeddings_and_ends_with_a_report(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    store = str(tmp_path / "vectors.sqlite")
    priced = ["--price-per-1000-images", "0.10", "--budget", "1", "--store", store]
    done = vl2v(*bench.distill(out, "--report"), *priced)
    assert done.returncode == 0, done.stderr
    assert f"report: {out / 'report.html'}" in done.stdout
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "this run paid 0.0090 USD" in html
    usage = json.loads((out / "evaluation.json").read_text())["asked"]
    assert usage["price_per_1000_images"] == "0.10"

    embeddings, predictions = np.load(out / "embeddings.npz"), np.load(out / "predictions.npz")
    assert embeddings["path"].tolist() == predictions["path"].tolist(), "fewer than a thousand images are all there"
    student = load(out)
    images = [bench.data / path for path in embeddings["path"]]
    pixels = torch.stack([student.preprocess.pixels(path) for path in images])
    pretrained = timm.create_model("test_resnet", num_classes=0)
    pretrained.load_state_dict(
        {k: v for k, v in load_file(bench.root / "student.safetensors").items() if "fc" not in k}
    )
    with torch.no_grad():
        features = pretrained.eval()(student.preprocess.normalise(pixels))
        aligned = F.normalize(student.projection(features), dim=-1)
    assert np.abs(embeddings["features"] - features.numpy()).max() < 0.01, "the backbone before it was trained"
    assert np.abs(embeddings["aligned"] - aligned.numpy()).max() < 0.01
    assert np.abs(embeddings["distilled"] - student.embed(images)).max() < 0.01
    assert np.abs(embeddings["distilled"] - embeddings["aligned"]).max() > 0.01, "Distill changed something"
    assert student.head is not None
    assert np.abs(embeddings["texts"] - student.head.numpy()).max() < 0.01
    assert embeddings["teacher"].shape == embeddings["distilled"].shape

    (out / "report.html").unlink()
    again = vl2v("report", str(out), "--store", store, "--hour-price", "0.40", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["report"] == str(out / "report.html")
    assert "assumes 0.40 USD per hour" in (out / "report.html").read_text(encoding="utf-8")


def test_an_error_of_the_report_does_not_lose_the_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("vl2v.reports.run.write_run_report", fails)
    notes, storage = MessageRecorder(), StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    settings = {"align": {"steps": 4}, "distill": {"steps": 2, "checkpoint_every": 2}, "batch_per_domain": 4}
    done = distill(
        bench.data, bench.teacher, bench.student, out=tmp_path / "run", held_out=["rose"], storage=storage,
        progress=notes, settings=settings | {"student": {"size": 32}, "device": "cpu"},
    )  # fmt: skip
    assert done is not None
    assert (tmp_path / "run" / "evaluation.json").exists()
    assert (tmp_path / "run" / "embeddings.npz").exists()
    assert not (tmp_path / "run" / "report.html").exists()
    assert [note for note in notes.lines if "ZeroDivisionError: a fault" in note and "vl2v report" in note]
    assert not (tmp_path / "run" / "work").exists()
