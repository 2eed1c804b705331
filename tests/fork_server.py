"""Real processes of `vl2v`, forked from one that has imported everything, so that a test that kills some is quick.

As a script it is that process. Orders come as lines of JSON on its standard input, and each gets the process id of the
new child as an answer; a child's exit status and CPU time appear in a file once it has ended.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command_line import Done, environment

HEAVY = (
    "accelerate", "matplotlib.pyplot", "matplotlib.backends.backend_svg", "timm", "torch", "torchvision.transforms.v2",
    "torch.distributed", "torch._dynamo", "vl2v.api", "vl2v.benchmark.sweep", "vl2v.cli.printing",
    "vl2v.commands.distill", "vl2v.reports.run",
)  # fmt: skip


@dataclass
class Child:
    """A process of `vl2v` with the part of the interface of `subprocess.Popen` that tests need."""

    pid: int
    folder: Path
    returncode: int | None = field(default=None)

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while the process runs."""
        ended = self.folder / "ended.json"
        if self.returncode is None and ended.exists():
            from tiers import add_cpu_seconds

            result = json.loads(ended.read_text())
            self.returncode = int(result["status"])
            add_cpu_seconds(result["seconds"])
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Wait for the end and return the exit status."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"still running\n{self.stderr}"
            time.sleep(0.005)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill the process and wait for its end; return the exit status."""
        self.send_signal(signal.SIGKILL)
        return self.wait()

    @property
    def stdout(self) -> str:
        """Return the standard output so far."""
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """Return the standard error so far."""
        return (self.folder / "stderr").read_text()

    @property
    def done(self) -> Done:
        """Return the result once the process has ended."""
        return Done(self.wait(), self.stdout, self.stderr)


def fork_vl2v(*arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Child:
    """Start `vl2v ARGUMENTS` as a child process in a separate process group.

    Args:
        arguments: the words after `vl2v`.
        env: variables on top of `command_line.environment()`.
        cwd: where it starts; where the tests are, if None.
    """
    return _server().start(
        [str(argument) for argument in arguments], environment() | dict(env or {}), cwd or Path.cwd()
    )


class _Server:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vl2v-forks-")
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, arguments: list[str], env: dict[str, str], cwd: Path) -> Child:
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        folder.mkdir()
        order = {"arguments": arguments, "env": env, "cwd": str(cwd), "folder": str(folder)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Child(int(self._answer()), folder)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._folder.cleanup()


@functools.cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server


def _run(order: dict[str, Any]) -> None:
    """Become `vl2v`; never returns."""
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(order["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.argv = ["vl2v", *order["arguments"]]
    status = 1
    try:
        from vl2v.cli import main

        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _watch(order: dict[str, Any]) -> None:
    """Fork the child, report its process id, and record its exit status; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        _run(order)
    print(child, flush=True)
    _, status, usage = os.wait4(child, 0)
    content = {"status": os.waitstatus_to_exitcode(status), "seconds": usage.ru_utime + usage.ru_stime}
    written = Path(order["folder"], "ended.part")
    written.write_text(json.dumps(content))
    written.rename(written.with_name("ended.json"))
    os._exit(0)


def _serve() -> None:
    import importlib

    for name in HEAVY:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # a fork has no other threads
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        if not os.fork():
            _watch(json.loads(line))


if __name__ == "__main__":
    _serve()
