"""Images at URLs are downloaded once, from servers that fail, hang and redirect, and from a store through fsspec."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.registry import known_implementations
from pictures import encoded, folder_of, noise

from command_line import run_cli
from vl2v.config import DataConfig
from vl2v.data.images import ImageDataset
from vl2v.data.listing import FaultyDataError
from vl2v.errors import DataError, MissingExtraError
from vl2v.planning.prepare import list_folder
from vl2v.sources import remote
from vl2v.sources.importing import import_table
from vl2v.sources.remote import plain_address


class Server(ThreadingHTTPServer):
    """Serves images by number: /3.png is the image of seed 3. Other paths have faults."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: Counter[str] = Counter()
        self.well = False  # whether the failing paths now work
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests[path] += 1
        kind = path.strip("/").partition(".")[0]
        if kind.startswith("hang") and not self.server.well:
            time.sleep(5)
            return
        if kind.startswith("drip"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(50):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
            return
        if kind in ("404", "500", "503once") and not (self.server.well or self.server.requests["/503once.png"] > 1):
            self.send_error(int(kind[:3]))
            return
        if kind == "moved":
            self.send_response(302)
            self.send_header("location", "/1.png" if self.server.well else "/moved.png")
            self.end_headers()
            return
        data = b"<html>log in</html>" if kind == "page" else encoded(noise(int(kind[:2]) if kind[:1].isdigit() else 77))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Do not log."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "SECONDS", 30.0)
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def table_of(folder: Path, images: list[str], name: str = "t.csv") -> Path:
    lines = ["path,label", *(f"{image},{('cat', 'dog')[i % 2]}" for i, image in enumerate(images))]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def imported(table: Path, folder: Path) -> Path:
    faults_found = import_table(table, str(table), folder / "tables", {})
    assert faults_found is not None
    return faults_found


def scan(table: Path, skip_bad: bool = False) -> ImageDataset:
    return list_folder(DataConfig(root=table)).scan(skip_bad=skip_bad)


def faults(table: Path) -> dict[str, str]:
    with pytest.raises(FaultyDataError) as caught:
        scan(table)
    return {fault.where.partition(":")[0]: fault.problem for fault in caught.value.faults}


def test_urls_are_downloaded_once_and_mixed_with_paths(server: Server, tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(encoded(noise(50)))
    images = [f"{server.url}/{i}.png" for i in range(5)] + [
        f"{server.url}/0.png?again=1",
        "own.png",
        f"{server.url}/3.png",
    ]
    table = imported(table_of(tmp_path, images), tmp_path)
    assert sum(server.requests.values()) == 6, "one URL is in two rows"
    with pytest.raises(FaultyDataError, match="different classes"):
        scan(table)
    dataset = scan(imported(table_of(tmp_path, images[:5] + images[6:7]), tmp_path))
    assert len(dataset) == 6
    assert {*dataset.known_as(range(6))} == {*images[:5], str(tmp_path / "own.png")}
    assert {dataset.read(row) for row in range(6)} == {encoded(noise(i)) for i in (0, 1, 2, 3, 4, 50)}
    assert sum(server.requests.values()) == 6, "images of one table are available for the next"


def test_faults_of_urls_have_rows_and_can_be_skipped(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SECONDS", 2.0)
    bad = ["404", "500", "hang", "moved", "page"]
    images = [f"{server.url}/{name}.png?key=secret" for name in (*"012345", *bad)]
    images += ["ftp://host/a.png", "file:///etc/passwd", "http://127.0.0.1:1/closed.png", "https://user:pw@[bad/x.png"]
    path = table_of(tmp_path, images)
    table = imported(path, tmp_path)
    faults_found = faults(table)
    address = server.url
    assert faults_found["row 8"] == f"{address}/404.png cannot be fetched (404 Not Found)"
    assert faults_found["row 9"] == f"{address}/500.png cannot be fetched (500 Internal Server Error)"
    assert server.requests["/500.png"] == remote.ATTEMPTS
    assert server.requests["/404.png"] == 1
    assert faults_found["row 10"] == f"{address}/hang.png cannot be fetched (no response within 2 s)"
    assert "TooManyRedirects" in faults_found["row 11"]
    assert faults_found["row 12"].endswith("but an HTML page")
    assert faults_found["row 13"] == "an address with the scheme ftp"
    assert faults_found["row 14"].startswith("not a JPEG"), "a path on this machine, like any other"
    assert "cannot be fetched (ConnectError" in faults_found["row 15"]
    assert "cannot be fetched" in faults_found["row 16"]
    assert len(faults_found) == 9
    assert not any("secret" in problem or "pw@" in problem for problem in faults_found.values())
    before = sum(server.requests.values())
    server.well = True
    again = faults(imported(path, tmp_path))
    assert set(again) == {"row 12", "row 13", "row 14", "row 15", "row 16"}
    assert sum(server.requests.values()) - before == 5, "four that failed, and a redirect"


def test_a_failing_url_is_skipped_with_skip_bad(server: Server, tmp_path: Path) -> None:
    images = [f"{server.url}/{name}.png" for name in (*"012345", "404")]
    dataset = scan(imported(table_of(tmp_path, images), tmp_path), skip_bad=True)
    assert len(dataset) == 6
    assert [fault.where for fault in dataset.skipped] == ["row 8"]


def test_a_download_is_retried_after_a_short_outage(server: Server, tmp_path: Path) -> None:
    images = [f"{server.url}/{name}.png" for name in ("1", "2", "3", "503once")]
    assert len(scan(imported(table_of(tmp_path, images), tmp_path))) == 4
    assert server.requests["/503once.png"] == 2


def test_slow_servers_take_a_bounded_time(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SECONDS", 0.2)
    monkeypatch.setattr(remote, "GIVE_UP", 4)
    monkeypatch.setattr(remote, "AT_ONCE", 2)
    images = ["0.png"] + [f"{server.url}/hang{i}.png" for i in range(30)] + [f"{server.url}/drip.png"]
    (tmp_path / "0.png").write_bytes(encoded(noise(0)))
    started = time.monotonic()
    faults_found = faults(imported(table_of(tmp_path, images), tmp_path))
    assert time.monotonic() - started < 60 * remote.SECONDS, "less than the waiting time of 30 URLs"
    tried = [problem for problem in faults_found.values() if "no response within" in problem]
    assert 4 <= len(tried) <= 6
    assert sum("was skipped" in problem for problem in faults_found.values()) >= 1
    assert sum(server.requests.values()) <= 6


def test_a_file_that_is_too_large_is_not_read_to_its_end(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MOST_BYTES", 100)
    faults_found = faults(imported(table_of(tmp_path, [f"{server.url}/1.png", str(tmp_path / "gone.png")]), tmp_path))
    assert faults_found["row 2"] == f"{server.url}/1.png cannot be fetched (more than 100 bytes)"


def test_a_store_is_read_through_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FILES", {"memory": "fsspec", "gs": "gcsfs"})
    system = fsspec.filesystem("memory")
    for i in range(4):
        with system.open(f"memory://bucket/{i}.png", "wb") as file:
            file.write(encoded(noise(i)))
    images = [f"{'memory' if i else 'MEMORY'}://bucket/{i}.png" for i in range(5)]
    faults_found = imported(table_of(tmp_path, images), tmp_path)
    assert faults(faults_found) == {"row 6": "memory://bucket/4.png cannot be fetched (no such file)"}
    assert len(scan(faults_found, skip_bad=True)) == 4
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"gs://(.|\n)*vl2v\[gcs\]"):
        imported(table_of(tmp_path, ["gs://a/b.png", "x.png"]), tmp_path)


def test_fsspec_supports_the_stores_of_the_extras() -> None:
    assert remote.FILES == {"s3": "s3fs", "gs": "gcsfs"}
    for scheme, package in remote.FILES.items():
        assert known_implementations[scheme]["class"].partition(".")[0] == package


def test_tables_of_paths_are_not_copied(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos")
    rows = [f.relative_to(root).as_posix() for f in sorted(root.rglob("*.png"))]
    assert import_table(table_of(root, rows), "t", tmp_path / "tables", {}) is None
    (root / "u.csv").write_text("path,label,page\n" + "".join(f"{r},cat,https://x.org/{r}\n" for r in rows))
    assert import_table(root / "u.csv", "u", tmp_path / "tables", {}) is None
    assert not (tmp_path / "tables").exists()


def test_downloads_work_within_a_running_event_loop(server: Server, tmp_path: Path) -> None:
    table = table_of(tmp_path, [f"{server.url}/{i}.png" for i in range(4)])

    async def notebook() -> Path:
        return imported(table, tmp_path)

    assert len(scan(asyncio.run(notebook()))) == 4


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:pw@host:8/a/b.png?X-Amz-Signature=1#f", "https://host:8/a/b.png"),
        ("s3://bucket/key?versionId=2", "s3://bucket/key"),
    ],
)
def test_messages_contain_no_keys(address: str, shown: str) -> None:
    assert plain_address(address) == shown


def teacher(folder: Path) -> str:
    digests = [hashlib.sha256(encoded(noise(i))).hexdigest() for i in range(20, 40)]
    texts = ["a photo of a cat", "a photo of a dog"]
    embeddings = np.eye(20, 8, dtype=np.float32) + 1
    embeddings_file = {"sha256": np.array(digests), "embeddings": embeddings, "texts": np.array(texts)}
    np.savez(folder / "teacher.npz", **embeddings_file, text_embeddings=embeddings[:2])  # type: ignore[arg-type]
    return f"file:{folder / 'teacher.npz'}"


def test_quote_downloads_the_images_of_a_table(server: Server, tmp_path: Path) -> None:
    images = [f"{server.url}/{i}.png" for i in range(20, 40)]
    lines = [json.dumps({"url": image, "kind": ("cat", "dog")[i % 2]}) for i, image in enumerate(images)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    flags = ["--image", "url", "--label", "kind", "--teacher", teacher(tmp_path), "--json", "-q"]
    storage_options = ["--cache", str(tmp_path / "c"), "--store", str(tmp_path / "s" / "v.sqlite")]
    done = run_cli("quote", tmp_path / "t.jsonl", *flags, *storage_options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["images"] == 20
    assert sum(server.requests.values()) == 20


def test_missing_credentials_are_reported_without_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        pass

    addresses = []

    class Store:
        async_impl = False

        def info(self, address: str) -> None:
            addresses.append(address)
            raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(fsspec, "filesystem", lambda _: Store())
    with pytest.raises(DataError, match="no credentials: NoCredentialsError: Unable to locate"):
        imported(table_of(tmp_path, ["s3://bucket/0.png"]), tmp_path)
    assert addresses == ["s3://bucket/0.png"]
