"""The API: answers, faults, limits, access, and changes of classes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import NEW, bench, bomb, drawing, noise, opened, run, run_copy  # noqa: F401 - fixtures
from starlette.testclient import TestClient
from tiny_dataset import CLASSES, Bench

import vl2v_runtime
from vl2v.serve.app import create_app
from vl2v.serve.service import Service
from vl2v.trust.drift import fit_reference
from vl2v.web.limits import Limits

LIMITS = Limits(inputs=8, body_bytes=400_000, image_bytes=200_000, pixels=1_000_000)
NAMES = [name.replace("_", " ") for name in sorted(CLASSES)]


@pytest.fixture(scope="module")
def service(run: Path, bench: Bench) -> Iterator[Service]:
    running = opened(run, bench, limits=LIMITS)
    yield running
    running.stop()


@pytest.fixture
def client(service: Service) -> TestClient:
    return asking(service)


def asking(service: Service, **options: Any) -> TestClient:
    return TestClient(create_app(service, **options), base_url="http://localhost:8000")


def files(*contents: bytes | Path) -> list[tuple[str, tuple[str, bytes, str]]]:
    data = [(c.name, c.read_bytes()) if isinstance(c, Path) else ("some", c) for c in contents]
    return [("files", (name, content, "application/octet-stream")) for name, content in data]


def answers(reply: Any) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    listed: list[dict[str, Any]] = reply.json()["answers"]
    return listed


def test_three_ways_to_send_images_give_the_answers_of_the_model(client: TestClient, run: Path, bench: Bench) -> None:
    paths = [drawing(bench, kind, 3, domain) for kind in sorted(CLASSES) for domain in ("ink", "rose")]
    expected = vl2v_runtime.load(run).probabilities(paths)
    packed = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    packed[1] = f"data:image/png;base64,{packed[1]}"
    named: list[Any] = [{"name": "first.png", "image": packed[0]}, *packed[1:]]
    formed = answers(client.post("/v1/predict?top_k=3", files=files(*paths)))
    sent = answers(client.post("/v1/predict?top_k=3", json={"images": named}))
    raw = [
        answers(client.post("/v1/predict?top_k=3", content=p.read_bytes(), headers={"content-type": "image/png"}))[0]
        for p in paths
    ]
    assert [answer["name"] for answer in formed] == [path.name for path in paths]
    assert sent[0]["name"] == "first.png"
    for by_form in (formed, sent, raw):
        assert [answer["label"] for answer in by_form] == [NAMES[k] for k in expected.argmax(axis=1)]
        for one, right in zip(by_form, expected, strict=True):
            chances = {entry["name"]: entry["probability"] for entry in one["classes"]}
            assert [chances[name] for name in NAMES] == pytest.approx(list(right), abs=1e-4)
            assert one["confidence"] == max(chances.values())
            assert [*chances.values()] == sorted(chances.values(), reverse=True)
    assert len(answers(client.post("/v1/predict?top_k=1", files=files(paths[0])))[0]["classes"]) == 1


def test_a_bad_image_has_its_fault_at_its_position(client: TestClient, bench: Bench) -> None:
    good = drawing(bench)
    content = good.read_bytes()
    bad = [b"hello", b"", content[:60], bomb(), noise(270)]
    answered = answers(client.post("/v1/predict", files=files(good, *bad, good)))
    codes = [answer["error"] and answer["error"]["code"] for answer in answered]
    wrong = ["invalid_image", "invalid_image", "invalid_image", "image_too_many_pixels", "image_too_large"]
    assert codes == [None, *wrong, None]
    assert answered[0]["label"] == answered[-1]["label"] is not None
    assert all(answer["label"] is None and answer["classes"] == [] for answer in answered[1:-1])
    assert "200000 bytes" in answered[5]["error"]["message"]
    broken = answers(client.post("/v1/predict", json={"images": ["%%%", base64.b64encode(content).decode()]}))
    assert broken[0]["error"]["code"] == "bad_base64"
    assert broken[1]["label"] == answered[0]["label"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"content": b""}, 415, "unsupported_media_type"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "invalid_request"),
        ({"json": {"images": []}}, 422, "invalid_request"),
        ({"json": {"images": ["secret-words"], "top_k": 2}}, 422, "invalid_request"),
        ({"json": {"images": [{"name": "secret-words"}]}}, 422, "invalid_request"),
        ({"json": {"images": ["x"] * 9}}, 422, "too_many_images"),
        ({"files": files(*[b"x"] * 9)}, 422, "too_many_images"),
        ({"data": {"secret-words": "x"}, "files": files(b"x")}, 422, "invalid_request"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422, "invalid_request"),
        ({"content": b"x", "headers": {"content-type": b"multipart/form-data; boundary=\xe4"}}, 422, "invalid_request"),
        ({"content": b"x" * 500_000, "headers": {"content-type": "image/png"}}, 413, "too_large"),
        ({"content": iter([b"x" * 100_000] * 5), "headers": {"content-type": "image/png"}}, 413, "too_large"),
        ({"params": {"top_k": "secret-words"}, "files": files(b"x")}, 422, "invalid_request"),
        ({"params": {"neighbours": "1000"}, "files": files(b"x")}, 422, "invalid_request"),
        ({"params": {"coverge": "secret-words"}, "files": files(b"x")}, 422, "invalid_request"),
        ({"params": {"coverage": "0.123"}, "files": files(b"x")}, 422, "invalid_request"),
    ],
)
def test_all_refusals_have_one_format(client: TestClient, request_: dict[str, Any], status: int, code: str) -> None:
    reply = client.post("/v1/predict", **request_)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
    assert "secret-words" not in reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"


def test_acceptance_follows_the_trust_data_of_the_run(client: TestClient, run: Path, bench: Bench) -> None:
    model = vl2v_runtime.load(run)
    trust = model.trust
    assert trust is not None
    pictures = [drawing(bench, kind, i) for kind in CLASSES for i in range(2)]
    for coverage in trust.coverages:
        right = trust.accepts(model.logits(pictures), coverage=coverage)
        answered = answers(client.post(f"/v1/predict?coverage={coverage:g}", files=files(*pictures)))
        assert [answer["accepted"] for answer in answered] == list(right)
    assert answers(client.post("/v1/predict", files=files(pictures[0])))[0]["accepted"] is None
    assert client.post("/v1/predict", files=files(*pictures)).json()["drift"] is None  # too few images to fit it on
    assert client.get("/v1/model").json()["coverages"] == list(trust.coverages)


def test_a_drift_hint_comes_with_the_batch(service: Service, bench: Bench) -> None:
    model = service.engine.model
    trust = model.trust
    assert trust is not None
    source = np.concatenate([model.embed(bench.data / "ink"), model.embed(bench.data / "neon")])
    domains = np.repeat(np.array(["ink", "neon"]), 30)
    reference = fit_reference(np.tile(source, (4, 1)), np.tile(domains, 4), np.zeros(240, np.int64))
    changed = copy(model)
    changed.trust = replace(trust, reference=reference)
    service.engine.model = changed
    try:
        client = asking(service)
        assert client.post("/v1/predict", files=files(drawing(bench))).json()["drift"]["nearest"] == "ink"
        assert client.post("/v1/predict", files=files(b"x")).json()["drift"] is None
    finally:
        service.engine.model = model


def test_the_nearest_training_images_are_returned(client: TestClient, service: Service, bench: Bench) -> None:
    gallery = service.gallery
    assert gallery is not None
    assert set(gallery.domains) == {"ink", "neon"}  # no image of the held-out domain
    path = bench.data / gallery.paths[5]
    answered = answers(client.post("/v1/predict?neighbours=4", files=files(path)))[0]["neighbours"]
    assert answered[0]["path"] == gallery.paths[5]
    assert answered[0]["label"] == gallery.labels[5]
    assert answered[0]["similarity"] == pytest.approx(1, abs=2e-3)  # stored in half precision
    assert [near["similarity"] for near in answered] == sorted((n["similarity"] for n in answered), reverse=True)
    picture = client.get(answered[0]["picture"])
    assert Image.open(io.BytesIO(picture.content)).format == "JPEG"
    assert client.get(f"/v1/gallery/{len(gallery)}").status_code == 404
    assert client.get("/v1/gallery/-1").status_code == 404


def test_requests_from_other_sites_are_refused(client: TestClient, service: Service, bench: Bench) -> None:
    sent: dict[str, Any] = {"files": files(drawing(bench))}
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        for reply in (
            client.post("/v1/predict", headers=headers, **sent),
            client.post("/v1/classes", headers=headers, json={"names": [NEW]}),
            client.delete("/v1/classes/bar", headers=headers),
        ):
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_origin")
    own_page = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert client.post("/v1/predict", headers=own_page, **sent).status_code == 200
    rebound = {"host": "evil.example"}
    assert client.get("/v1/classes", headers=rebound).json()["error"]["code"] == "foreign_host"
    assert asking(service, local=False).get("/v1/classes", headers=rebound).status_code == 200
    assert client.get("/v1/classes").json()["classes"] == NAMES


def spent(bench: Bench, path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(bench.root / "vectors.sqlite") as database:
        query = "SELECT purpose, queries, cost FROM ledger WHERE run = ?"
        return database.execute(query, (str(path.resolve()),)).fetchall()


def test_a_class_is_added_after_its_price_is_stated(run_copy: Path, bench: Bench) -> None:
    service = opened(run_copy, bench, limits=LIMITS)
    client, file = asking(service), run_copy / "export" / "model.onnx"
    before = hashlib.sha256(file.read_bytes()).digest()
    priced = client.post("/v1/classes", json={"names": [NEW]}).json()
    assert priced["price"]["prompts"] == ["a photo of a checker board"]
    assert (priced["price"]["known"], priced["price"]["currency"]) == (0, "USD")
    assert float(priced["price"]["cost"]) == pytest.approx(0.0001)
    assert (priced["added"], priced["classes"]) == ([], NAMES)
    assert hashlib.sha256(file.read_bytes()).digest() == before
    refused = client.post("/v1/classes", json={"names": [NEW], "budget": "0.00001"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "over_budget")
    assert spent(bench, run_copy) == []

    added = client.post("/v1/classes", json={"names": [NEW], "budget": priced["price"]["cost"]}).json()
    assert (added["added"], added["classes"]) == (["checker board"], [*NAMES, "checker board"])
    assert len(spent(bench, run_copy)) == 1
    answered = answers(client.post("/v1/predict?top_k=9", files=files(drawing(bench))))[0]
    assert {entry["name"] for entry in answered["classes"]} == {*NAMES, "checker board"}
    assert vl2v_runtime.load(run_copy).classes == [*NAMES, "checker board"]
    again = client.post("/v1/classes", json={"names": ["Checker  Board"]})
    assert again.status_code == 409

    assert client.delete("/v1/classes/checker board").json()["classes"] == NAMES
    assert client.delete("/v1/classes/checker board").status_code == 404
    back = client.post("/v1/classes", json={"names": [NEW], "budget": 0}).json()
    assert (back["price"]["known"], float(back["price"]["cost"])) == (1, 0)
    assert back["classes"] == [*NAMES, "checker board"]
    assert len(spent(bench, run_copy)) == 1
    assert "vl2v_serve_classes 4.0" in client.get("/metrics").text
    service.stop()


@pytest.mark.parametrize(
    "body",
    [b"[", b"{}", b'{"names": []}', b'{"names": ["x"], "budget": -1}', b'{"names": ["x"], "confirm": true}'],
)
def test_wrong_class_names_are_refused(client: TestClient, body: bytes) -> None:
    reply = client.post("/v1/classes", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")
    assert client.post("/v1/classes", content=b'{"names": ["x"]}').status_code == 415  # as sent by an HTML form
    large = json.dumps({"names": ["x" * 200_000]}).encode()
    reply = client.post("/v1/classes", content=large, headers={"content-type": "application/json"})
    assert reply.status_code == 413
    unknown = client.post("/v1/classes", json={"names": ["a class that the file does not know"], "budget": 1})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (502, "teacher_failed")
    assert client.get("/v1/classes").json()["classes"] == NAMES


def test_edits_can_be_disabled_and_have_a_separate_budget(run_copy: Path, bench: Bench) -> None:
    for settings, why in (({"edits": False}, "--no-edits"), ({"host": "0.0.0.0"}, "this machine only")):
        service = opened(run_copy, bench, **settings)
        reply = asking(service).delete("/v1/classes/bar")
        assert reply.status_code == 403
        assert why in reply.json()["error"]["message"]
        service.stop()
    service = opened(run_copy, bench, budget=0)
    reply = asking(service).post("/v1/classes", json={"names": [NEW], "budget": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (402, "over_budget")
    service.stop()


def test_health_metrics_and_documentation_are_served(client: TestClient, bench: Bench) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    client.post("/v1/predict", files=files(drawing(bench), b"x"))
    figures = client.get("/metrics").text
    assert 'vl2v_serve_images_total{outcome="unreadable"}' in figures
    assert 'route="/v1/predict",status="200"' in figures
    description = client.get("/openapi.json").json()
    assert {*description["paths"]["/v1/predict"]["post"]["requestBody"]["content"]} >= {"multipart/form-data"}
    assert {"/v1/predict", "/v1/classes", "/v1/classes/{name}", "/health"} <= set(description["paths"])
    for path in ("/", "/docs"):
        page = client.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        for tag in ("style", "script"):
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, flags=re.S):
                digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
                assert f"'sha256-{digest}'" in policy
        named = re.findall(r'(?:src|href|action)="(?!data:|#|/)([^"]*)"', page.text)
        assert named == []
        assert not re.findall(r"\son\w+=|\sstyle=|url\(", page.text)


def test_too_many_requests_at_once_are_asked_to_retry(client: TestClient, service: Service, bench: Bench) -> None:
    service.waiting = LIMITS.queue
    try:
        reply = client.post("/v1/predict", files=files(drawing(bench)))
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
        assert reply.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 503
    finally:
        service.waiting = 0
    service.body_memory.bytes = LIMITS.held_bytes
    try:
        assert client.post("/v1/predict", files=files(drawing(bench))).status_code == 503
    finally:
        service.body_memory.bytes = 0
    assert np.isfinite(answers(client.post("/v1/predict", files=files(drawing(bench))))[0]["confidence"])
