"""Small files in the layouts of the sources of the benchmarks, and a web server that interrupts transfers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded, noise

from vl2v.datasets.facts import Benchmark

PNG = encoded(noise(0, (2, 2)))


def image(seed: int) -> bytes:
    """Return a valid image, different for every seed."""
    return PNG + seed.to_bytes(4, "big")


def small(benchmark: Benchmark, each: int = 2) -> Benchmark:
    """Return a benchmark with `each` images of every class in every domain, which fits on any disk."""
    count = each * benchmark.class_count
    images = dict.fromkeys(benchmark.images, count)
    return replace(benchmark, images=images, images_per_class={}, releases=(), download_bytes=1)


def files_of(benchmark: Benchmark, prefix: str = "", each: int = 2) -> dict[str, bytes]:
    """Return the files of a `small` benchmark by path <prefix><domain>/<class>/<n>.png."""
    paths = [f"{d}/{c}/{n}.png" for d in benchmark.images for c in benchmark.classes for n in range(each)]
    return {prefix + path: image(i) for i, path in enumerate(paths)}


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def table(
    path: Path,
    rows: Sequence[tuple[bytes, str | None, int | str, int | str | None]],
    names: Mapping[str, Sequence[str]],
    group: int = 100,
) -> Path:
    """Parquet as the package datasets writes it: rows of (bytes, path, label, domain), class names in the metadata."""
    columns = {
        "image": [{"bytes": row[0], "path": row[1]} for row in rows],
        "label": [row[2] for row in rows],
        "domain": [row[3] for row in rows],
    }
    if all(row[3] is None for row in rows):
        del columns["domain"]
    features: dict[str, object] = {c: {"_type": "ClassLabel", "names": list(values)} for c, values in names.items()}
    features["image"] = {"_type": "Image"}
    made = pa.table(columns)
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, row_group_size=group, compression="none")
    return path


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary data folder of the user."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@dataclass
class Site:
    """The files of a server and its faults.

    Attributes:
        files: by path.
        cut: bytes after which each of the next answers breaks off; used up from the front.
        ranges: whether it understands Range.
        kind: the content type of everything.
        slow: seconds between two blocks of 64 kB.
        requests: every (method, path, Range header).
    """

    files: dict[str, bytes]
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    kind: str = "application/zip"
    slow: float = 0.0
    status: int = 200
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def ranges_of(self, name: str) -> list[str]:
        """Return the Range headers of all requests for a file."""
        return [sent for method, path, sent in self.requests if method == "GET" and path == name]


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def end_headers(self) -> None:
            self.send_header("Connection", "close")
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            sent = self.headers.get("Range", "")
            site.requests.append((self.command, path, sent))
            data = site.files.get(path)
            if data is None or site.status != 200:
                self.send_response(404 if data is None else site.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            tag = f'"{hashlib.sha256(data).hexdigest()}"'
            start = int(sent.removeprefix("bytes=").split("-")[0]) if sent and site.ranges else 0
            if self.headers.get("If-Range", tag) != tag:
                start = 0
            if start and start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Type", "application/json" if path.startswith("/api/") else site.kind)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", tag)
            self.send_header("X-Repo-Commit", "c" * 40)
            self.end_headers()
            if body:
                self.send_slowly(data[start:] if not site.cut else data[start : start + site.cut.pop(0)])

        def send_slowly(self, data: bytes) -> None:
            try:
                for i in range(0, len(data), 65536):
                    self.wfile.write(data[i : i + 65536])
                    time.sleep(site.slow)
            except OSError:
                pass  # the client was killed

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
