"""A small distilled run, pictures and servers that the tests of serving share."""

from __future__ import annotations

import io
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from tiny_dataset import Bench, shared_bench, vl2v

from once import Once
from ports import free_port
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.serve.app import create_app
from vl2v.serve.running import open_service
from vl2v.serve.service import Service
from vl2v.serve.settings import ServeSettings
from vl2v.web.running import server_config

NEW, LATER = "checker_board", "dotted_paper"  # classes of the teacher that the student lacks


def make_served(bench: Bench) -> None:
    """Make a distilled and exported run whose teacher charges for texts and has two additional classes."""
    with np.load(bench.root / "teacher.npz") as file:
        known = dict(file)
    rows = np.random.default_rng(7).normal(size=(2, 16)).astype(np.float32)
    known["texts"] = np.append(known["texts"], ["a photo of a checker board", "a photo of a dotted paper"])
    known["text_embeddings"] = np.concatenate([known["text_embeddings"], rows])
    np.savez(bench.root / "teacher.npz", **known)
    out = bench.root / "run"
    done = vl2v(*bench.distill(out, "--price-per-1000-texts", "0.10", "--budget", "1"))
    assert done.returncode == 0, done.stderr
    exported = vl2v("export", str(out), "--cache", str(bench.root / "cache"))
    assert exported.returncode == 0, exported.stderr
    opened(out, bench).stop()  # writes the gallery


def served(once: Once) -> Bench:
    """A copy of the small dataset with the served run, which tests must not change."""
    return Bench.at(once("served", lambda folder: make_served(shared_bench(once).copy(folder))))


@pytest.fixture(scope="module")
def bench(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The dataset of the served run, with a separate store for each module."""
    dataset, root = served(once), tmp_path_factory.mktemp("serve")
    shutil.copy(dataset.root / "vectors.sqlite", root)
    return dataset.with_separate_storage(root)


@pytest.fixture(scope="session")
def run(once: Once) -> Path:
    """The served run, which tests must not change."""
    return served(once).root / "run"


@pytest.fixture
def run_copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that can be changed."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def storage(bench: Bench) -> StoragePaths:
    return StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")


def opened(path: Path, bench: Bench, **settings: Any) -> Service:
    return open_service(ServeSettings(path, **settings), storage(bench), Silent())


def drawing(bench: Bench, kind: str = "bar", number: int = 0, domain: str = "ink") -> Path:
    return bench.data / domain / kind / f"{number}.png"


def bomb() -> bytes:
    """Return a PNG of a few bytes whose header states 900 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "PNG")
    content = buffer.getvalue()
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def noise(side: int) -> bytes:
    """Return a PNG of incompressible pixels."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


class Server:
    """A real server in a thread of this process, which can be stopped and restarted at its URL."""

    def __init__(self, service: Service) -> None:
        self.service, self.port = service, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = server_config(create_app(self.service), "127.0.0.1", self.port)
        config.lifespan = "off"
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"no server at {self.url}")

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True  # browsers do not close connections
        self._thread.join(20)


@contextmanager
def serving(service: Service) -> Iterator[Server]:
    server = Server(service)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        service.stop()
