"""A running server uses changes of its file, such as classes that `vl2v classes add` adds."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from pathlib import Path

import onnx
import pytest
from exported import Exported, cosine  # noqa: F401 - a fixture
from serving import NEW, opened, run, run_copy, storage  # noqa: F401 - fixtures
from starlette.testclient import TestClient
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture

from vl2v.commands.classes import add_classes
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.serve.app import create_app
from vl2v.serve.running import open_service
from vl2v.serve.settings import ServeSettings


def client_of(path: Path, folder: Path) -> TestClient:
    service = open_service(ServeSettings(path), StoragePaths(folder / "cache", folder / "store.sqlite"), Silent())
    return TestClient(create_app(service), base_url="http://localhost:8000")


def renamed(path: Path, out: Path) -> list[str]:
    """Write the file with other class names and return them."""
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "vl2v")
    metadata = json.loads(entry.value)
    metadata["classes"] = [f"new {name}" for name in metadata["classes"]]
    entry.value = json.dumps(metadata)
    onnx.save(model, out)
    return list(metadata["classes"])


@pytest.mark.slow
def test_a_replaced_file_is_served_from_the_next_request_on(
    cosine: Exported, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(cosine.file.read_bytes())
    client = client_of(file, tmp_path)
    before = client.get("/v1/classes").json()["classes"]
    names = renamed(file, tmp_path / "next.onnx")
    (tmp_path / "next.onnx").replace(file)
    assert client.get("/v1/classes").json()["classes"] == names != before
    assert client.get("/v1/model").json()["classes"] == len(names)
    with caplog.at_level(logging.ERROR):
        for content in (b"junk", b""):
            file.write_bytes(content)
            assert client.get("/v1/classes").json()["classes"] == names
            assert client.get("/health").status_code == 200
        file.unlink()
        assert client.get("/v1/classes").json()["classes"] == names
    assert caplog.text.count("the previous one remains in use") == 2, "once for each change"


@pytest.mark.slow
def test_classes_added_by_another_program_are_known_and_can_be_removed(run_copy: Path, bench: Bench) -> None:
    client = TestClient(create_app(opened(run_copy, bench)), base_url="http://localhost:8000")
    before = client.get("/v1/classes").json()["classes"]
    add_classes(run_copy, [NEW], budget=Decimal(1), storage=storage(bench))
    assert client.get("/v1/classes").json()["classes"] == [*before, "checker board"]
    assert client.delete("/v1/classes/checker board").json()["classes"] == before
