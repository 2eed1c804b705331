"""A named pipe instead of a file is refused, ignored or replaced, and never blocks a command."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_run import make_run
from PIL import Image

from command_line import run_cli

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such files there")
SAMPLE, SAMPLES = 0.05, 100  # seconds, and the number of idle samples after which a command counts as blocked


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, a finished run and a pipe."""
    folder = tmp_path_factory.mktemp("world")
    make_run(folder)
    shutil.rmtree(folder / "data")
    for domain in ("ink", "rose"):
        for number, kind in enumerate(("cat", "dog")):
            (folder / "data" / domain / kind).mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (8, 8), (i, number, 9)).save(folder / "data" / domain / kind / f"{i}.png")
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.csv")
    for name in ("npz", "parquet", "pt", "onnx", "zip", "jsonl"):
        os.mkfifo(folder / f"pipe.{name}")
    return folder


@contextmanager
def unblocked(*pipes: Path) -> Iterator[list[Path]]:
    """Open the other end of pipes on which the process is blocked, and list these pipes."""
    waited: list[Path] = []
    done = threading.Event()

    def watch() -> None:
        used, idle = 0.0, 0
        while idle < SAMPLES and not done.wait(SAMPLE):
            now = time.process_time() - time.thread_time()  # CPU seconds of the other threads, few on a busy machine
            used, idle = (now, 0) if now > used + 0.001 else (used, idle + 1)
        if not done.is_set():
            waited.extend(pipes)
            while not done.wait(SAMPLE):
                for pipe in pipes:
                    try:
                        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
                    except OSError:
                        continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield waited
    finally:
        done.set()
        watcher.join()


def attempt(pipe: Path, *words: str | Path) -> tuple[int, str]:
    with unblocked(pipe) as waited:
        done = run_cli(*words)
    text = " ".join((done.stdout + done.stderr).split())
    assert waited == [], text
    assert "Unexpected" not in text
    return done.returncode, text


QUOTE = ["quote", "data", "--teacher", "offline:", "--student", "offline:"]
OPTIONS = [
    ["quote", "pipe", "--teacher", "offline:"],
    ["quote", "pipe.csv", "--teacher", "offline:"],
    ["quote", "pipe.jsonl", "--teacher", "offline:"],
    ["quote", "pipe.parquet", "--teacher", "offline:"],
    ["quote", "data", "--teacher", "file:pipe.npz"],
    ["quote", "data", "--teacher", "file:pipe.parquet"],
    ["quote", "data", "--teacher", "open_clip:ViT-B-32/pipe.pt"],
    [*QUOTE, "--prompts", "pipe"],
    [*QUOTE, "--classes", "pipe"],
    [*QUOTE, "--config", "pipe"],
    [*QUOTE, "--unlabelled", "pipe"],
    [*QUOTE, "--store", "pipe"],
    [*QUOTE, "--cache", "pipe"],
    ["quote", "data", "--teacher", "offline:", "--student", "open_clip:ViT-B-32/pipe.pt"],
    ["benchmark", "run", "--data", "data", "--teacher", "offline:", "--student", "offline:", "--out", "b", "--plan",
     "--variants", "pipe"],
    ["benchmark", "run", "--data", "data", "--teacher", "offline:", "--student", "timm:test_resnet@pipe", "--out", "b",
     "--plan"],
    ["benchmark", "run", "--data", "data", "--teacher", "offline:", "--student", "offline:", "--out", "pipe"],
    ["benchmark", "table", "pipe"],
    ["distill", "data", "--teacher", "offline:", "--student", "offline:", "--out", "pipe"],
    ["predict", "pipe.onnx", "data"],
    ["predict", "pipe", "data"],
    ["serve", "pipe.onnx"],
    ["serve", "pipe"],
    ["evaluate", "run", "pipe.csv"],
    pytest.param(["report", "run", "--out", "pipe"], marks=pytest.mark.slow),
    ["report", "pipe"],
    ["trust", "pipe"],
    ["export", "pipe"],
    ["classes", "list", "pipe"],
    ["ledger", "--store", "pipe"],
    ["data", "get", "pacs", "--from", "pipe.zip"],
    ["data", "get", "pacs", "--from", "pipe.parquet"],
    ["data", "check", "pacs", "pipe"],
    ["data", "draw", "pipe"],
    ["vendor", "keys", "list", "--db", "sqlite:///pipe"],
    ["vendor", "serve", "--teacher", "file:pipe.npz"],
    ["vendor", "serve", "--teacher", "offline:", "--tls-cert", "pipe", "--tls-key", "pipe"],
    ["push", "pipe", "me/x"],
]  # fmt: skip


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_a_pipe_as_an_option_does_not_block(workspace: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("vl2v.vendor_server.running.check_port", lambda *_: None)
    pipe = next(
        workspace / word.rpartition("@")[2].rpartition("/")[2].rpartition(":")[2] for word in words if "pipe" in word
    )
    code, text = attempt(pipe, *words)
    assert code in (2, 3, 4, 6, 8, 12, 13, 14), text
    assert "expected:" in text or "Invalid value" in text


@pytest.mark.parametrize(
    "name", ["classes.yaml", "classes.yml", "ink/classes.yaml", "ink/cat/p.png", "list.txt", "metadata.csv"]
)
def test_a_pipe_among_the_images_does_not_block(workspace: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(workspace / "data", tmp_path / "data")
    os.mkfifo(tmp_path / "data" / name)
    storage_options: list[str | Path] = ["--cache", tmp_path / "c", "--store", tmp_path / "s"]
    attempt(tmp_path / "data" / name, "quote", tmp_path / "data", "--teacher", "offline:", *storage_options)


FILES = [
    "config.yaml", "metrics.jsonl", "state.safetensors", "state.json", "teacher.json", "evaluation.json", "places.json",
    "predictions.npz", "embeddings.npz", "student/student.json", "student/model.safetensors", "student/trust.json",
    "export/export.json", "export/model.onnx", "export/gallery.npz", "spending.jsonl", "tracking.json", "owner.json",
    "run.lock", "report.html", "student.lock",
]  # fmt: skip
COMMANDS = [
    ["classes", "list", "RUN"], ["classes", "remove", "RUN", "owl"], ["trust", "RUN"], ["predict", "RUN", "IMAGES"],
    ["distill", "--out", "RUN", "--resume"], pytest.param(["report", "RUN"], marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0] + words[1][:4])
def test_a_pipe_in_a_run_does_not_block(workspace: Path, tmp_path: Path, name: str, words: list[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(workspace / "run", run)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    replaced: dict[str, str | Path] = {"RUN": run, "IMAGES": workspace / "data" / "ink" / "cat"}
    attempt(run / name, *(replaced.get(word, word) for word in words))
