"""`vl2v serve` from the command line."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from serving import bench, drawing, opened, run, run_copy  # noqa: F401 - fixtures
from tiny_dataset import Bench, vl2v

from fork_server import fork_vl2v
from ports import free_port
from vl2v.errors import ConfigError
from vl2v.web.running import check_port


@pytest.mark.system
def test_a_run_is_exported_and_served_until_it_is_stopped(run_copy: Path, bench: Bench) -> None:
    shutil.rmtree(run_copy / "export")
    port = free_port()
    flags = ["--port", str(port), "--threads", "1", *bench.flags()]
    process = fork_vl2v("serve", str(run_copy), *flags)
    try:
        end = time.monotonic() + 240
        while True:
            assert time.monotonic() < end
            assert process.poll() is None, process.stderr
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            time.sleep(0.1)
        sent = {"files": ("a.png", drawing(bench).read_bytes())}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/predict?neighbours=1", files=sent).json()["answers"][0]
        assert answer["label"]
        assert len(answer["neighbours"]) == 1
        assert httpx.get(f"http://127.0.0.1:{port}/v1/model").json()["name"] == "run"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    log = process.stderr
    assert process.returncode in (0, 130), log
    assert "not exported yet" in log
    assert f"http://127.0.0.1:{port}" in log
    assert (run_copy / "export" / "model.onnx").is_file()
    assert (run_copy / "export" / "gallery.npz").is_file()


def test_a_used_port_and_an_unfinished_run_are_reported(run: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="cannot listen on"):
            check_port("127.0.0.1", other.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot listen on"):
        check_port("192.0.2.1", 8000)  # not an address of this machine
    shutil.copy(run / "config.yaml", tmp_path / "config.yaml")
    done = vl2v("serve", str(tmp_path), "--port", str(free_port()))
    assert done.returncode == 8, done.stderr
    assert "is an unfinished run" in done.stderr
    assert "--resume" in done.stderr
    missing = vl2v("serve", str(tmp_path / "missing"), "--port", str(free_port()))
    assert missing.returncode == 6, missing.stderr
    assert "contains no student" in missing.stderr
    assert "not exported yet" not in done.stderr + missing.stderr


def test_an_exported_file_is_enough(run: Path, bench: Bench, tmp_path: Path) -> None:
    shutil.copy(run / "export" / "model.onnx", tmp_path / "alone.onnx")
    service = opened(tmp_path / "alone.onnx", bench)
    about = service.about()
    assert (about.gallery, about.editable, about.classes) == (0, False, 3)
    assert "exported file alone" in str(about.no_gallery)
    assert "exported file alone" in str(about.no_edits)
    assert service.gallery is None
    service.stop()


def test_a_gallery_works_without_its_images_and_only_with_its_student(
    run_copy: Path, bench: Bench, tmp_path: Path
) -> None:
    service = opened(run_copy, bench, gallery=False)
    assert service.about().no_gallery == "--no-gallery"
    service.stop()
    config = run_copy / "config.yaml"
    config.write_text(config.read_text().replace(str(bench.data), str(tmp_path / "gone")))
    service = opened(run_copy, bench)
    assert service.about().gallery > 0
    service.stop()
    (run_copy / "export" / "gallery.npz").unlink()
    service = opened(run_copy, bench)
    assert "have moved" in str(service.about().no_gallery)
    service.stop()


def test_clients_cannot_read_files_that_untrusted_settings_name(run_copy: Path, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password: hunter2")
    (run_copy / "config.yaml").unlink()
    (run_copy / "config.yaml").symlink_to(tmp_path / "secret.txt")
    (run_copy / "export" / "gallery.npz").unlink(missing_ok=True)
    service = opened(run_copy, bench)
    assert service.about().no_gallery == "the settings of the run cannot be read; the log of the server says why."
    assert "hunter2" not in service.about().model_dump_json()
    assert "password" not in service.about().model_dump_json()
    service.stop()
