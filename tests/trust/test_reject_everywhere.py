"""One student with negative texts gives the same answers in `predict`, in an exported file and in the server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from exported import CLASSES, DIMENSION, Exported, cosine, linear, picture  # noqa: F401 - fixtures
from starlette.testclient import TestClient

from vl2v.commands.evaluate import classify
from vl2v.locations import StoragePaths
from vl2v.onnx_export.onnx import rewrite_trust
from vl2v.progress import Silent
from vl2v.serve.app import create_app
from vl2v.serve.running import open_service
from vl2v.serve.settings import ServeSettings
from vl2v.student.model import Student
from vl2v.trust import files as trust_file
from vl2v.trust.fit import fit
from vl2v.trust.negatives import with_negatives
from vl2v_runtime import __main__ as command
from vl2v_runtime import load
from vl2v_runtime.negatives import Negatives
from vl2v_runtime.trust import Trust


def trust_of(student: Student, coverage: float = 0.5) -> tuple[Trust, list[bool]]:
    """Return trust data with negative texts, and the pictures (about half) that they accept."""
    pictures = [picture(i) for i in range(24)]
    rows = student.embed(pictures)
    logits = student.logits(student.project(pictures)).numpy()
    trust = fit(logits, logits.argmax(axis=1), np.array(["ink"]).repeat(24), rows)
    assert trust is not None
    embeddings = np.random.default_rng(1).normal(size=(5, DIMENSION))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    texts = Negatives(tuple("abcde"), embeddings.astype(np.float16), student.logit_scale, 1.0)
    trust = with_negatives(trust, texts, logits, rows)
    # between two scores, so that rounding does not decide
    scores = np.sort(trust.scores(logits, "negatives", rows))
    trust.reject["negatives"][coverage] = float(scores[11:13].mean())  # type: ignore[index]
    return trust, trust.accepts(logits, "negatives", coverage, rows).tolist()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i:02}.png" for i in range(24)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    return paths


def test_every_path_gives_the_same_answers(
    cosine: Exported,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student = cosine.student
    trust, wanted = trust_of(student)
    assert wanted.count(True) == 12
    trust_file.save(trust, tmp_path)  # as predict reads it
    student.trust = trust_file.load(tmp_path)
    try:
        answers, _ = classify(student, pictures, coverage=0.5, score="negatives")
    finally:
        student.trust = None
    assert [answer.accepted for answer in answers] == wanted

    file = tmp_path / "model.onnx"
    shutil.copy(cosine.file, file)
    rewrite_trust(file, trust.to_dict())
    model = load(file)
    assert [a.accepted for a in model.predict(pictures, 5, score="negatives", coverage=0.5)] == wanted
    attempts = model.attempts(pictures, 7, score="negatives", coverage=0.5)
    assert [a.answer.accepted for a in attempts if a.answer] == wanted
    words = [str(file), str(tmp_path / "images"), "--reject", "--coverage", "0.5", "--format"]
    assert command.main([*words, "json"]) == 0
    assert [row["accepted"] for row in json.loads(capsys.readouterr().out)] == wanted
    assert command.main([*words, "table"]) == 0
    assert capsys.readouterr().out.count("(none of these)") == 12

    service = open_service(ServeSettings(file), StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite"), Silent())
    try:
        client = TestClient(create_app(service), base_url="http://localhost:8000")
        description = client.get("/v1/model").json()
        assert description["scores"] == ["confidence", "energy", "negatives"]
        assert description["fit"] == "squash"
        accepted = []
        for path in pictures:
            options = {"coverage": "0.5", "score": "negatives"}
            reply = client.post("/v1/predict", params=options, files={"files": path.read_bytes()})
            accepted += [answer["accepted"] for answer in reply.json()["answers"]]
        assert accepted == wanted
        refused = client.post("/v1/predict", params={"score": "texts"}, files={"files": pictures[0].read_bytes()})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "score")
    finally:
        service.stop()


def test_files_without_negative_texts_are_refused_with_the_reason(
    cosine: Exported,
    linear: Exported,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = Trust(1.0, {"confidence": {0.95: 0.1}, "energy": {0.95: 0.1}})
    for number, (one, message) in enumerate(((cosine, "vl2v trust RUN --reject"), (linear, "a linear classifier"))):
        file = tmp_path / f"{number}.onnx"
        shutil.copy(one.file, file)
        rewrite_trust(file, old.to_dict())
        assert command.main([str(file), str(pictures[0]), "--reject"]) == 6
        assert message in capsys.readouterr().err
        with pytest.raises(ValueError, match="no negative texts"):
            load(file).predict(pictures[0], score="negatives")
        assert load(file).predict(pictures[0])[0].accepted is True
    with pytest.raises(SystemExit):
        command.main([str(file), str(pictures[0]), "--reject", "--score", "energy"])
    assert "--score negatives" in capsys.readouterr().err
    service = open_service(ServeSettings(file), StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite"), Silent())
    try:
        client = TestClient(create_app(service), base_url="http://localhost:8000")
        options = {"coverage": "0.95", "score": "negatives"}
        refused = client.post("/v1/predict", params=options, files={"files": pictures[0].read_bytes()})
        assert "vl2v trust RUN --reject" in refused.json()["error"]["message"]
    finally:
        service.stop()


def test_negative_texts_of_another_space_are_refused(cosine: Exported, tmp_path: Path) -> None:
    trust, _ = trust_of(cosine.student)
    content = trust.to_dict()
    data = content["negatives"]
    content["negatives"] = {**data, "dimension": DIMENSION * 5, "texts": ["a"]}
    file = tmp_path / "model.onnx"
    shutil.copy(cosine.file, file)
    rewrite_trust(file, content)
    with pytest.raises(Exception, match="negative texts of dimension 30"):
        load(file)
    assert len(CLASSES) == 3
