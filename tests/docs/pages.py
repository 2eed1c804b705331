"""Commands of a page: blocks fenced as `sh`, and the output that the page shows after them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tiny_dataset import healthy

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PORT = "8000"  # the port on the page, which is replaced by a free one


@dataclass(frozen=True)
class Step:
    """Commands of a page and their output on the page, or an empty string."""

    commands: str
    shown: str


def steps(page: Path) -> list[Step]:
    """Return the `sh` blocks of a page, each with the `text` block that directly follows."""
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    parsed = []
    for (kind, body), (following, output) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "sh":
            parsed.append(Step(body, output if following == "text" else ""))
    return parsed


def without_figures(output: str) -> list[str]:
    """Return lines without figures, rules and spacing, which depend on the machine."""
    plain = (re.sub(r"[─━┏┓┗┛┡┩├┤└┘┳┻╇┼┬┴╪ ]+", " ", line) for line in output.splitlines())
    return [line for text in plain if (line := re.sub(r"-?\d[\d.,e+-]*", "#", text).strip())]


class Terminal:
    """Runs the blocks of a page in one folder, in order."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_DATA_HOME": str(folder / ".data"),
            "XDG_CACHE_HOME": str(folder / ".cache"),
            "COLUMNS": "100",
            "ACCELERATE_USE_CPU": "1",
        }

    def run(self, step: Step) -> str:
        """Run a block, which has to succeed and print the output on the page; return stdout and stderr."""
        done = subprocess.run(
            self._script(step), cwd=self.folder, env=self.environment, text=True, timeout=900, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{step.commands}\n{done.stdout}"
        printed = without_figures(done.stdout)
        lacking = [line for line in without_figures(step.shown) if line != "…" and line not in printed]
        assert not lacking, f"{step.commands}\nshown on the page, but not printed: {lacking}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def serving(self, step: Step) -> Iterator[None]:
        """Run a block with a server in the background."""
        log = self.folder / "server.log"
        with log.open("w") as file:
            server = subprocess.Popen(
                self._script(Step(f"exec {step.commands.strip()} --port {PORT}", "")),
                cwd=self.folder, env=self.environment, stdout=file, stderr=file,
            )  # fmt: skip
            try:
                deadline = time.monotonic() + 180
                while not healthy(self.port):
                    assert server.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.3)
                yield
            finally:
                server.send_signal(signal.SIGINT)
                server.wait(timeout=30)

    def _script(self, step: Step) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", step.commands.replace(PORT, self.port)]
