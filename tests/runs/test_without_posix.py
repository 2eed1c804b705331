"""Windows has no fcntl, no fork and few signals: the core of vl2v runs without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_dataset import Bench, bench, environment  # noqa: F401 - a fixture

from ports import free_port

# Other libraries have code for Windows, so they are loaded first.
PRELUDE = """
import os, signal, sys, threading, time
import accelerate, fastapi, filelock, httpx, numpy, PIL.Image, sqlite3, timm, torch, torchvision, typer, uvicorn
import asyncio, matplotlib.pyplot, multiprocessing.util, onnxruntime, rich.console, subprocess, tempfile
import torch._dynamo, torch.utils.data
for name in ("fcntl", "grp", "posix", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
GONE = "fork forkpty pwrite pread preadv pwritev sched_getaffinity sysconf killpg getuid geteuid getgid fchmod"
GONE += " fchown chown mkfifo uname getloadavg register_at_fork waitpid setsid getpgid O_NOFOLLOW O_DIRECTORY O_CLOEXEC"
for name in GONE.split():
    if hasattr(os, name):
        delattr(os, name)
for name in dir(signal):
    if name.startswith("SIG") and name not in "SIGABRT SIGFPE SIGILL SIGINT SIGSEGV SIGTERM SIG_DFL SIG_IGN".split():
        delattr(signal, name)
for name in ("alarm", "pthread_sigmask", "setitimer", "sigwait", "siginterrupt", "pause"):
    delattr(signal, name)
assert not any(name.split(".")[0] == "vl2v" for name in sys.modules)
from vl2v.cli import app

def use_server(port, photo):
    "Classify an image as soon as the server is ready, and stop it as Ctrl-C does."
    for _ in range(600):
        time.sleep(0.1)
        try:
            httpx.get(f"http://127.0.0.1:{port}/health")
        except httpx.HTTPError:
            continue
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/predict", content=open(photo, "rb").read(),
                            headers={"content-type": "image/png"}, timeout=60)
        print("served:", answer.status_code, flush=True)
        signal.raise_signal(signal.SIGINT)
        return

port, photo, commands = eval(sys.stdin.read())
for command in commands:
    if command[0] == "serve":
        threading.Thread(target=use_server, args=(port, photo), daemon=True).start()
    if app(command, standalone_mode=False):
        sys.exit(1)
    print("ended:", command[0], flush=True)
"""


@pytest.mark.system
def test_the_main_commands_run_without_posix_features(bench: Bench, tmp_path: Path) -> None:
    run, store_options = tmp_path / "run", ["--store", str(tmp_path / "vectors.sqlite")]
    photo = str(next((bench.data / "rose").rglob("*.png")))
    storage_options, port = bench.flags(), free_port()
    commands = [
        ["quote", str(bench.data), "--teacher", bench.teacher, *storage_options],
        [*bench.distill(run), *store_options],
        ["predict", str(run), photo],
        ["evaluate", str(run), str(bench.data), "--domain", "rose"],
        ["export", str(run)],
        ["report", str(run)],
        ["serve", str(run), "--port", str(port), *storage_options],
    ]
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE],
        input=repr((port, photo, commands)),
        env=os.environ | environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    for command in commands:
        assert f"ended: {command[0]}" in done.stdout
    assert "served: 200" in done.stdout
