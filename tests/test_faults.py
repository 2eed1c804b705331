"""Errors of the system are reported with the path, the option that changes it, and a next step."""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import vl2v
from vl2v.cli import app
from vl2v.cli.common import guarded
from vl2v.data.folder import read_yaml
from vl2v.errors import AccessError, ConfigError, DamagedError, DiskFullError, MissingExtraError, RunError, Vl2vError
from vl2v.faults import explain, explained, naming
from vl2v.json_files import read_json
from vl2v.locations import StoragePaths, default_store, location_of, locations_in
from vl2v.progress import Silent
from vl2v.sqlite import open_file
from vl2v.teacher.purchase.store import EmbeddingStore

NOBODY = 65534


def stderr_of(*arguments: object, code: int | None = None) -> str:
    """Return the standard error of a command, which must not be a traceback."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert code is None or done.exit_code == code, done.output
    return done.stderr


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for domain in ("ink", "neon"):
        for kind in ("ball", "box"):
            folder = tmp_path / "photos" / domain / kind
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(generator.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def teacher(photos: Path, tmp_path: Path) -> str:
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    texts = ["a photo of a ball", "a photo of a box"]
    generator = np.random.default_rng(0)
    images, words = (generator.normal(size=(n, 8)).astype(np.float32) for n in (len(paths), 2))
    file = tmp_path / "teacher.npz"
    np.savez(file, paths=paths, embeddings=images, texts=texts, text_embeddings=words, logit_scale=20.0)
    return f"file:{file}"


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as a user other than root, who ignores permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A folder that cannot be written, even by root."""
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "--bind", path, path], capture_output=True, check=False).returncode == 0
    if not mounted or subprocess.run(["mount", "-o", "remount,ro,bind", path], capture_output=True).returncode:
        if os.geteuid() == 0:
            pytest.skip("root may not mount here, and no permission stops root")
        path.chmod(0o555)
    try:
        yield
    finally:
        gc.collect()  # a traceback keeps cursors open
        subprocess.run(["umount", path], check=True) if mounted else path.chmod(0o755)


@contextmanager
def full_disk(path: Path, size: str = "64k") -> Iterator[None]:
    path.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        gc.collect()  # a traceback keeps cursors open
        subprocess.run(["umount", path], check=True)  # fails if a file was left open


def test_a_read_only_disk_is_reported_with_the_option_of_its_path(photos: Path, teacher: str, tmp_path: Path) -> None:
    fine = {"--cache": tmp_path / "cache", "--store": tmp_path / "store.sqlite"}
    for flag, name in (("--cache", "ro"), ("--cache", "ro/deep/cache"), ("--store", "ro/s.sqlite")):
        flags = [part for pair in (fine | {flag: tmp_path / name}).items() for part in pair]
        with read_only(tmp_path / "ro"):
            message = stderr_of("quote", photos, "--teacher", teacher, "-q", *flags, code=13)
        assert flag in message, message
        assert "read-only" in message or "permission" in message
        assert str(tmp_path / "ro") in message


def test_the_ledger_is_read_from_a_read_only_disk(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir()
    EmbeddingStore(tmp_path / "ro" / "s.sqlite").close()
    with read_only(tmp_path / "ro"):
        assert stderr_of("ledger", "--store", tmp_path / "ro" / "s.sqlite", code=0) == ""


def test_a_missing_ledger_is_not_created(tmp_path: Path) -> None:
    assert "is missing" in stderr_of("ledger", "--store", tmp_path / "none.sqlite", code=13)
    assert not (tmp_path / "none.sqlite").exists()


@pytest.mark.parametrize("damage", ["cut", "noise", "folder", "zeroed tail"])
@pytest.mark.parametrize("command", ["quote", "ledger"])
def test_a_damaged_store_is_not_changed(photos: Path, teacher: str, tmp_path: Path, damage: str, command: str) -> None:
    store = tmp_path / "s.sqlite"
    with closing(open_file(store)) as db:
        EmbeddingStore(store).close()
        db.executemany("INSERT INTO images VALUES (1, 0, ?, ?)", [(os.urandom(32), bytes(999)) for _ in range(500)])
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        Path(f"{store}{suffix}").unlink(missing_ok=True)
    content = store.read_bytes()
    if damage == "folder":
        store.unlink()
        store.mkdir()
    else:
        store.write_bytes({
            "cut": content[: len(content) // 2],
            "noise": np.random.default_rng(0).bytes(3000),
            "zeroed tail": content[:4096] + bytes(len(content) - 4096),
        }[damage])  # fmt: skip
    before = store.read_bytes() if store.is_file() else b""
    more = [photos, "--teacher", teacher, "-q", "--cache", tmp_path / "c"] if command == "quote" else []
    message = stderr_of(command, *more, "--store", store)
    assert str(store) in message, message
    assert "next:" in message
    if damage == "folder":
        assert "a folder instead of a file" in message
    else:
        assert ".recover" in message
        assert store.read_bytes() == before


def test_a_store_of_another_program_or_of_a_newer_version_is_not_changed(tmp_path: Path) -> None:
    other, newer = tmp_path / "other.sqlite", tmp_path / "newer.sqlite"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE photos (name TEXT)")
    EmbeddingStore(newer).close()
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 99")
    for file, words in ((other, "another program"), (newer, "newer version (format 99; this version supports 1)")):
        message = stderr_of("ledger", "--store", file)
        assert words in message, message
        for read_only in (False, True):
            with pytest.raises(Vl2vError, match=re.escape(words)):
                EmbeddingStore(file, read_only=read_only)
    with closing(sqlite3.connect(other)) as db:
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["photos"]


def test_a_store_that_another_process_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.sqlite.PATIENCE", 0.1)
    store = tmp_path / "s.sqlite"
    EmbeddingStore(store).close()
    with closing(sqlite3.connect(store, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError) as caught:
            EmbeddingStore(store)
    explained = explain(caught.value, locations_in({"store": store}))
    assert isinstance(explained, AccessError)
    assert "locked by another process" in str(explained)
    assert str(store) in str(explained)


def test_waiting_for_another_purchase_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.locking.SOON", 0.1)
    first, second = (EmbeddingStore(tmp_path / "s.sqlite") for _ in range(2))
    warned = threading.Event()

    class Told(Silent):
        def warn(self, text: str) -> None:
            assert "another process is buying" in text
            warned.set()

    def buy() -> None:
        with second.alone(Told()):
            pass

    with closing(first), closing(second):
        with first.alone():
            waiting = threading.Thread(target=buy)
            waiting.start()
            assert warned.wait(10)
        waiting.join(10)
        assert not waiting.is_alive()


@pytest.mark.parametrize("flag", ["--cache", "--store"])
def test_a_full_disk_is_reported_with_its_option(photos: Path, teacher: str, tmp_path: Path, flag: str) -> None:
    flags_of_paths = {"--cache": tmp_path / "cache", "--store": tmp_path / "store.sqlite"}
    flags_of_paths[flag] = tmp_path / "full" / "x"
    flags = [part for pair in flags_of_paths.items() for part in pair]
    with full_disk(tmp_path / "full"):
        (tmp_path / "full" / "ballast").write_bytes(b"")
        with (tmp_path / "full" / "ballast").open("wb", buffering=0) as handle:
            try:
                while handle.write(bytes(4096)):
                    pass
            except OSError:
                pass
        message = stderr_of("quote", photos, "--teacher", teacher, "-q", *flags, code=9)
    assert flag in message, message
    other = {"--cache": "--store", "--store": "--cache"}[flag]
    assert other not in message.partition("next:")[2], message


def test_a_limit_on_file_sizes_is_reported(photos: Path, teacher: str, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        message = stderr_of(
            "quote", photos, "--teacher", teacher, "-q", "--cache", tmp_path / "c", "--store", tmp_path / "s.sqlite"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "ulimit -f allows files of at most 1,000 bytes" in message, message
    assert "next: raise the limit for this shell (ulimit -f unlimited)" in message


def test_an_unusable_home_is_reported(
    photos: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    message = stderr_of("quote", photos, "--teacher", teacher, "-q", code=13)
    assert "--cache" in message
    assert "/dev/null" in message
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _: "~/.local/share/vl2v")  # no entry in the list of users
    with pytest.raises(ConfigError, match="HOME"):
        default_store()

    def fails(_: str) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_dir", fails)
    message = stderr_of("quote", photos, "--teacher", teacher, "-q", code=2)
    assert "XDG_CACHE_HOME" in message
    assert "--cache" in message
    flags = ["--cache", tmp_path / "c", "--store", tmp_path / "s.sqlite"]
    assert stderr_of("quote", photos, "--teacher", teacher, "-q", *flags, code=0) == "", "stated paths need no HOME"


def test_the_option_of_a_path_is_found(tmp_path: Path) -> None:
    locations = locations_in({"cache": tmp_path / "a", "store": tmp_path / "a" / "s.sqlite", "out": tmp_path / "out"})
    explained = {
        "a/pixels-64.u8": "--cache", "a/s.sqlite": "--store", "a/s.sqlite-wal": "--store", "a/s.lock": "--store",
        "out/x/y": "--out", "outer": None,
    }  # fmt: skip
    for path, option in explained.items():
        location = location_of(tmp_path / path, locations)
        assert (location and location.option) == option, path


@pytest.mark.parametrize("command", ["export", "report"])
def test_a_command_that_can_write_elsewhere_advises_it_for_a_run_that_is_read_only(
    tmp_path: Path, command: str
) -> None:
    (location,) = [location for location in locations_in({"run": tmp_path}, command) if location.path == tmp_path]
    assert location.advice == f"choose another folder: vl2v {command} {tmp_path} --out FOLDER"


def test_a_missing_permission_is_reported(photos: Path, teacher: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    storage_options = ["--cache", tmp_path / "c", "--store", tmp_path / "s.sqlite"]
    stderr_of(
        "quote", photos, "--teacher", teacher, "-q", *storage_options, code=0
    )  # imports files that the other user cannot read
    (photos / "ink" / "ball").chmod(0)
    flags = ["--cache", tmp_path / "open" / "c", "--store", tmp_path / "open" / "s.sqlite"]
    with unprivileged():
        message = stderr_of("quote", photos, "--teacher", teacher, "-q", *flags)
    assert "ink" in message, message
    (photos / "ink" / "ball").chmod(0o755)
    flags = ["--cache", tmp_path / "open" / "c", "--store", tmp_path / "closed" / "s.sqlite"]
    with unprivileged():
        message = stderr_of("quote", photos, "--teacher", teacher, "-q", *flags, code=13)
    assert "no permission" in message
    assert "--store" in message


def test_too_many_open_files_are_reported(photos: Path, teacher: str, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    flags = ["--cache", tmp_path / "c", "--store", tmp_path / "s.sqlite", "-q"]
    stderr_of("quote", photos, "--teacher", teacher, *flags, code=0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/proc/self/fd").iterdir()]) + 1, before[1]))
    try:
        message = stderr_of("quote", photos, "--teacher", teacher, *flags)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "open" in message, message
    assert "next:" in message


def test_dangling_outputs_and_outputs_among_the_images_are_refused(photos: Path, teacher: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    base = ["distill", photos, "--teacher", teacher, "--student", "timm:test_resnet", "-q"]
    base += ["--cache", tmp_path / "c", "--store", tmp_path / "s.sqlite"]
    message = stderr_of(*base, "--out", tmp_path / "link")
    assert "is a link to" in message, message
    assert "--out" in message
    message = stderr_of(*base, "--out", photos / "run", code=8)
    assert "inside the folder of images" in message, message
    assert not (photos / "run").exists()


@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
def test_wrong_numbers_are_refused(photos: Path, teacher: str, tmp_path: Path, number: str) -> None:
    base = ["distill", photos, "--teacher", teacher, "--student", "timm:test_resnet", "-q", "--out", tmp_path / "r"]
    for flag in ("--learning-rate", "--image-weight", "--budget", "--price-per-1000-images"):
        assert flag.strip("-").replace("-", "_")[:6] in stderr_of(*base, f"{flag}={number}", code=2).lower()
    assert stderr_of("export", tmp_path, f"--tolerance={number}", code=2)
    assert stderr_of("benchmark", "run", "--out", tmp_path, f"--cpus-per-job={number}", code=2)


def test_wrong_certificates_and_proxies_of_the_environment_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    check = ["teacher", "check", "http://127.0.0.1:9/v1#model=m,price=0", "-q", "--store", tmp_path / "s.sqlite"]
    check += ["--cache", tmp_path / "c"]
    (tmp_path / "text.pem").write_text("no certificate")
    for file, words in ((tmp_path / "none.pem", "does not exist"), (tmp_path / "text.pem", "cannot be read")):
        with monkeypatch.context() as patched:
            patched.setenv("SSL_CERT_FILE", str(file))
            message = stderr_of(*check)
            assert f"SSL_CERT_FILE={file}" in message, message
            assert words in message
    monkeypatch.setenv("ALL_PROXY", "foo://user:secret@127.0.0.1:1")
    with pytest.raises(ConfigError, match="ALL_PROXY") as caught, explained({}):
        httpx.Client()
    assert "secret" not in str(caught.value)


def test_a_socks_proxy_names_its_package() -> None:
    explained = explain(ImportError("Using SOCKS proxy, but the 'socksio' package is not installed."))
    assert isinstance(explained, MissingExtraError)
    assert "vl2v[socks]" in str(explained)


def test_a_missing_folder_for_temporary_files_is_reported() -> None:
    error = FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")
    assert "TMPDIR" in str(explain(error))


def test_a_full_standard_output_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)

        def command(as_json: bool = False) -> None:
            print("words")

        with pytest.raises(typer.Exit) as caught:
            guarded(command)()
        assert caught.value.exit_code == DiskFullError.exit_code


def test_files_with_other_content_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for content in (b'{"a": ', b"\xff\xfe", b"[" * 100_000, b"", b"{]"):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"x\.json cannot be read"):
            read_json(file)
    for text in ("a: 2024-13-45", "[" * 5000, "\0", "a: [", "? {b: c}\n: d", "a: !!python/object:os.system {}"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"x\.json"):
            read_yaml(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(file)


def test_python_raises_the_same_errors(photos: Path, teacher: str, tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    store.write_bytes(b"no database" * 300)
    with pytest.raises(DamagedError, match=r"\.recover"):
        vl2v.quote(photos, teacher, storage=StoragePaths(tmp_path / "c", store))
    with pytest.raises(AccessError, match="--cache"):
        vl2v.quote(photos, teacher, storage=StoragePaths(store / "c", tmp_path / "t.sqlite"))


def test_other_errors_are_not_changed() -> None:
    for error in (KeyError("x"), ZeroDivisionError(), BrokenPipeError(32, "Broken pipe")):
        with pytest.raises(type(error)), explained({}):
            raise error


def test_an_unexpected_fault_has_a_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(as_json: bool = True) -> None:
        raise KeyError("x")

    with pytest.raises(typer.Exit) as caught:
        guarded(command)(as_json=True)
    assert caught.value.exit_code == 70
    monkeypatch.setenv("VL2V_TRACEBACK", "1")
    with pytest.raises(KeyError):
        guarded(command)()


def test_an_error_of_writing_is_named(tmp_path: Path) -> None:
    def write() -> None:
        with naming(tmp_path / "a"), Path("/dev/full").open("w") as full:
            full.write("x")
            full.flush()

    with pytest.raises(OSError, match="No space") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a")


def test_a_system_error_of_safetensors_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path / "a"):  # e.g. the run folder was deleted
        save_file({"x": torch.zeros(1)}, tmp_path / "missing" / "a")
    assert caught.value.filename == str(tmp_path / "a")


def test_errors_are_printed_as_json(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_bytes(b"no database" * 300)
    message = json.loads(stderr_of("ledger", "--store", tmp_path / "s.sqlite", "--json", code=14))
    assert message["error"] == "DamagedError"
    assert message["next"]
