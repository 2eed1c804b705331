from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmark_files import PNG, Site, home, serving, table, zipped  # noqa: F401 - a fixture

from vl2v.datasets import download as downloads
from vl2v.datasets.download import download
from vl2v.datasets.facts import PACS
from vl2v.errors import DataError

DATA = bytes(range(256)) * 4000  # 1 MB


def site(**settings: object) -> Site:
    return Site({"/a.zip": DATA}, **settings)  # type: ignore[arg-type]


def test_a_download_leaves_only_the_complete_file(tmp_path: Path) -> None:
    with serving(site()) as server:
        got = download(f"{server.address}/a.zip", tmp_path / "a.zip")
    assert got.path.read_bytes() == DATA
    assert (got.bytes, got.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_existing_file_is_not_requested(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(DATA)
    with serving(site()) as server:
        assert download(f"{server.address}/a.zip", tmp_path / "a.zip").bytes == len(DATA)
        assert server.requests == []


def test_an_interrupted_answer_continues_where_it_stopped(tmp_path: Path) -> None:
    with serving(site(cut=[300_000, 200_000, 0])) as server:
        got = download(f"{server.address}/a.zip", tmp_path / "a.zip", pause=0.01)
        assert server.ranges_of("/a.zip") == ["", "bytes=300000-", "bytes=500000-", "bytes=500000-"]
    assert got.path.read_bytes() == DATA


def test_a_partial_file_of_another_process_is_continued(tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:400_000])
    with serving(site()) as server:
        download(f"{server.address}/a.zip", tmp_path / "a.zip")
        assert server.ranges_of("/a.zip") == ["bytes=400000-"]
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_server_without_ranges_sends_the_complete_file_again(tmp_path: Path) -> None:
    with serving(site(cut=[300_000], ranges=False)) as server:
        got = download(f"{server.address}/a.zip", tmp_path / "a.zip", pause=0.01)
    assert got.path.read_bytes() == DATA


def test_a_file_that_changed_during_the_download_is_downloaded_again(tmp_path: Path) -> None:
    with serving(site(cut=[300_000] + [0] * 9)) as server:
        with pytest.raises(DataError, match="300,000 bytes are downloaded"):
            download(f"{server.address}/a.zip", tmp_path / "a.zip", pause=0.01)
        server.cut.clear()
        server.files["/a.zip"] = DATA[::-1]
        download(f"{server.address}/a.zip", tmp_path / "a.zip", pause=0.01)
        assert server.ranges_of("/a.zip")[-1] == "bytes=300000-"
    assert (tmp_path / "a.zip").read_bytes() == DATA[::-1]


def test_a_kill_between_the_last_byte_and_the_renaming_is_recovered(tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA)
    with serving(site()) as server:
        download(f"{server.address}/a.zip", tmp_path / "a.zip")
        assert server.ranges_of("/a.zip") == [f"bytes={len(DATA)}-"]
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_partial_file_that_is_too_long_is_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA + b"x")
    with serving(site()) as server:
        download(f"{server.address}/a.zip", tmp_path / "a.zip", pause=0.01)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_file_with_a_wrong_checksum_is_refused_and_moved_aside(tmp_path: Path) -> None:
    right = hashlib.md5(DATA).hexdigest()
    with serving(site()) as server:
        assert download(f"{server.address}/a.zip", tmp_path / "a.zip", md5=right).bytes == len(DATA)
        server.files["/a.zip"] = DATA[:-1] + b"!"
        (tmp_path / "a.zip").unlink()
        with pytest.raises(DataError, match=f"expected: MD5 {right}"):
            download(f"{server.address}/a.zip", tmp_path / "a.zip", md5=right)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.mismatch"]


@pytest.mark.parametrize(
    ("settings", "path", "match"),
    [
        ({"kind": "text/html; charset=utf-8"}, "/a.zip", "a web page, as Google Drive"),
        ({}, "/none.zip", "HTTP 404"),
        ({"status": 403}, "/a.zip", "HTTP 403"),
        ({"status": 503}, "/a.zip", "HTTP 503"),
        ({"cut": [0] * 20}, "/a.zip", "cannot be downloaded"),
    ],
)
def test_an_error_of_the_server_is_reported(tmp_path: Path, settings: dict[str, object], path: str, match: str) -> None:
    with serving(site(**settings)) as server, pytest.raises(DataError, match=match):
        download(f"{server.address}{path}", tmp_path / "a.zip", pause=0.001)
    assert not (tmp_path / "a.zip").exists()


def test_a_missing_server_is_reported(tmp_path: Path) -> None:
    with serving(site()) as server:
        pass
    with pytest.raises(DataError, match="again to resume") as caught:
        download(f"{server.address}/a.zip", tmp_path / "a.zip", pause=0.001)
    assert "--from" in caught.value.next_step


def test_new_bytes_reset_the_number_of_retries(tmp_path: Path) -> None:
    with serving(site(cut=[1000] * (downloads.TRIES * 2))) as server:
        download(f"{server.address}/a.zip", tmp_path / "a.zip", pause=0.0)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def environment(**more: str) -> dict[str, str]:
    source = str(Path(__file__).resolve().parents[2] / "src")
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"} | more


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "vl2v", "data", *words]


def killed_when(words: list[str], ready: object, where: dict[str, str]) -> None:
    """Start a command and kill it as soon as `ready` returns true."""
    assert callable(ready)
    process = subprocess.Popen(words, env=where, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def pacs_images(size: int = 2000) -> list[tuple[bytes, str, int, str]]:
    """Return rows of as many images as PACS has, each of about `size` bytes."""
    return [
        (PNG + f"{domain}{label}{n}".encode() + bytes(size), f"pic_{n:03d}.png", c, domain)
        for domain, classes in PACS.images_per_class.items()
        for c, (label, count) in enumerate(classes.items())
        for n in range(count)
    ]


@pytest.mark.system
def test_a_killed_download_from_a_url_continues(tmp_path: Path, home: Path) -> None:
    files = {f"kfold/{d}/{PACS.classes[c]}/{name}": data + os.urandom(500) for data, name, c, d in pacs_images(0)}
    content = zipped(tmp_path / "made.zip", files).read_bytes()
    out, where = tmp_path / "data" / "PACS", environment(XDG_DATA_HOME=str(home))
    part = tmp_path / "data" / ".PACS.partial" / "downloads" / "PACS.zip.part"
    with serving(Site({"/PACS.zip": content}, slow=0.05)) as server:
        words = command("get", "pacs", "--out", str(out), "--from", f"{server.address}/PACS.zip", "--yes", "--json")
        killed_when(words, lambda: part.exists() and part.stat().st_size > 1_000_000, where)
        assert not out.exists()
        had, server.slow = part.stat().st_size, 0.0
        assert had < len(content)
        done = subprocess.run(words, env=where, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        assert server.ranges_of("/PACS.zip") == ["", f"bytes={had}-"]
    manifest = json.loads(done.stdout)
    assert manifest["images"] == 9_991
    assert manifest["files"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert sorted(p.name for p in out.parent.iterdir()) == ["PACS"]
    assert (out / "photo" / "dog" / "pic_000.png").read_bytes() == files["kfold/photo/dog/pic_000.png"]


def hub(repository: str, files: dict[str, bytes]) -> Site:
    """A hub with one dataset that answers the requests of the client of the hub."""
    commit = "c" * 40
    about = {"id": repository, "sha": commit, "siblings": [{"rfilename": path} for path in files]}
    tree = [
        {
            "type": "file",
            "path": path,
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
            "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134},
        }
        for path, data in files.items()
    ]
    served = {f"/datasets/{repository}/resolve/{commit}/{path}": data for path, data in files.items()}
    served[f"/api/datasets/{repository}/revision/{PACS.revision}"] = json.dumps(about).encode()
    served[f"/api/datasets/{repository}"] = json.dumps(about).encode()
    served[f"/api/datasets/{repository}/tree/{commit}"] = json.dumps(tree).encode()
    return Site(served, kind="application/octet-stream")


@pytest.mark.system
def test_a_killed_download_from_the_hub_continues(tmp_path: Path, home: Path) -> None:
    rows = pacs_images()
    name = "data/train-00000-of-00001.parquet"
    content = table(tmp_path / "made.parquet", rows, {"label": PACS.classes}, group=500).read_bytes()
    out = tmp_path / "data" / "PACS"
    part = tmp_path / "data" / ".PACS.partial" / "downloads" / f"{name}.part"
    with serving(hub("flwrlabs/pacs", {name: content, "README.md": b"a card"})) as server:
        where = environment(XDG_DATA_HOME=str(home), HF_ENDPOINT=server.address, HF_HOME=str(tmp_path / "hf"))
        server.slow = 0.05
        words = command("get", "PACS", "--out", str(out), "--yes", "--json")
        killed_when(words, lambda: part.exists() and part.stat().st_size > 1_000_000, where)
        assert not out.exists()
        had, server.slow = part.stat().st_size, 0.0
        done = subprocess.run(words, env=where, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        requests = server.ranges_of(f"/datasets/flwrlabs/pacs/resolve/{'c' * 40}/{name}")
        assert requests == ["", f"bytes={had}-"]
        assert not [path for _, path, _ in server.requests if path.endswith("README.md")]
    manifest = json.loads(done.stdout)
    assert manifest["images"] == 9_991
    assert manifest["revision"] == "c" * 40
    assert manifest["files"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert (out / "sketch" / "person" / "pic_159.png").read_bytes() == rows[-1][0]
    gone = subprocess.run(
        command("get", "PACS", "--out", str(tmp_path / "again"), "--yes", "-q"),
        env=where, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert gone.returncode == 3
    assert "flwrlabs/pacs cannot be downloaded from the hub." in gone.stderr
    assert "again to resume" in gone.stderr
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_a_missing_dataset_of_the_hub_is_reported(tmp_path: Path, home: Path) -> None:
    with serving(hub("flwrlabs/pacs", {})) as server:
        where = environment(XDG_DATA_HOME=str(home), HF_ENDPOINT=server.address, HF_HOME=str(tmp_path / "hf"))
        words = command("get", "PACS", "--out", str(tmp_path / "out"), "--from", "some/where", "--yes", "-q")
        done = subprocess.run(words, env=where, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 3, done.stderr
    assert "some/where cannot be" in done.stderr
    assert "Traceback" not in done.stderr
