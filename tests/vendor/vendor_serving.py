"""Servers, accounts, images and clients that the tests of the vendor share."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from ports import free_port
from vl2v.teacher.base import Embeddings, Price, Teacher, TeacherCard
from vl2v.vendor_server.accounts import Accounts
from vl2v.vendor_server.app import create_app
from vl2v.vendor_server.database import open_database
from vl2v.vendor_server.links import Links
from vl2v.vendor_server.service import Service
from vl2v.vendor_server.settings import VendorSettings
from vl2v.web.limits import Limits
from vl2v.web.running import server_config

HTTP = httpx.Client(verify=False, timeout=60)  # shared, because each client reads the system's certificates again
PRICE = Price(Decimal("0.6"), Decimal("0.1"))


def picture(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (40, 36), **options: Any) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def new_key(db: str, *, price: Price = PRICE, quota: str | None = None, rate: int | None = None) -> str:
    engine = open_database(db)
    try:
        return Accounts(engine).create("a test", price, quota=quota, requests_per_minute=rate)[1]
    finally:
        engine.dispose()


def bearer(key: str, once: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} | ({} if once is None else {"idempotency-key": once})


@dataclass
class Server:
    """A running server in a child process or (pid 0) in a thread of this process."""

    url: str
    db: str
    pid: int
    log: Path
    model: str = ""

    def wait(self) -> Server:
        """Wait until it answers."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if HTTP.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError(f"no server at {self.url}: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        while Path(f"/proc/{self.pid}").exists():
            time.sleep(0.002)

    def ask(self, key: str, body: Any, once: str | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return HTTP.post(f"{self.url}/v1/embeddings", content=content, headers=bearer(key, once))

    def usage(self, key: str) -> dict[str, Any]:
        answer = HTTP.get(f"{self.url}/v1/usage", headers=bearer(key), timeout=30)
        assert answer.status_code == 200, answer.text
        usage: dict[str, Any] = answer.json()
        return usage


@dataclass
class Spawner:
    """Starts servers that share one loaded teacher."""

    config: Path
    weights: Path
    folder: Path
    model: str
    started: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        script = Path(__file__).with_name("vendor_spawner.py")
        command = [sys.executable, str(script), str(self.config), str(self.weights)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read_line() == "ready"

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(
        self,
        db: str = "",
        port: int = 0,
        limits: dict[str, Any] | None = None,
        die: str = "",
        scheme: str = "http",
        **settings: Any,
    ) -> Server:
        number, port = len(self.started), port or free_port()
        db = db or f"sqlite:///{self.folder}/accounts{number}.sqlite"
        log = self.folder / f"server{number}.log"
        order = {"settings": {"teacher": "", "db": db, "port": port, **settings}, "limits": limits or {}, "die": die}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order | {"log": str(log)}) + "\n")
        self._process.stdin.flush()
        server = Server(f"{scheme}://127.0.0.1:{port}", db, int(self._read_line()), log, self.model)
        self.started.append(server)
        return server.wait()

    def close(self) -> None:
        for server in self.started:
            with suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait(10)


class PlainTeacher:
    """A teacher whose embeddings are computed from the bytes. It can be slow, and it counts its batches."""

    def __init__(self, seconds: float = 0.0, batch_size: int = 8) -> None:
        self.seconds, self.seen, self.batches = seconds, 0, [0][:0]
        self._batch_size = batch_size

    def describe(self) -> TeacherCard:
        return TeacherCard("plain", "1", 4, 20.0, batch_size=self._batch_size)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        return self._answer(images)

    def embed_texts(self, texts: list[str]) -> Embeddings:
        return self._answer([text.encode() for text in texts])

    def _answer(self, values: list[bytes]) -> Embeddings:
        time.sleep(self.seconds)
        self.seen += len(values)
        self.batches.append(len(values))
        return np.stack([self.vector(value) for value in values])

    @staticmethod
    def vector(value: bytes) -> Embeddings:
        return np.array([1, len(value), sum(value) % 997, sum(value[::3]) % 991], np.float32)


@contextmanager
def local_server(
    teacher: Teacher, folder: Path, *, limits: Limits | None = None, links: Links | None = None, **settings: Any
) -> Iterator[Server]:
    """Serve a teacher in a thread of this process."""
    port, db = free_port(), f"sqlite:///{folder}/local.sqlite"
    chosen = VendorSettings("", db=db, port=port, limits=limits or Limits(), **settings)
    service = Service(teacher, open_database(db), chosen, links)
    server = uvicorn.Server(server_config(create_app(service), "127.0.0.1", port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{port}", db, 0, folder / "none.log", teacher.describe().identity).wait()
    finally:
        server.should_exit = True
        thread.join(20)
