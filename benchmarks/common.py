"""Functions that the benchmark scripts share: provenance and output of figures, and servers."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def shared() -> Path | None:
    """The maintainers' folder of benchmark data next to the checkout, or the folder in VL2V_SHARED."""
    path = Path(os.environ.get("VL2V_SHARED", ROOT.parent / "shared"))
    return path if path.is_dir() else None


def need_shared() -> Path:
    """`shared`, for a script that cannot run without it.

    Raises:
        SystemExit: if it is missing.
    """
    folder = shared()
    if folder is None:
        raise SystemExit("The maintainers' folder of benchmark data is missing; set VL2V_SHARED.")
    return folder


def scratch_option(description: str | None) -> Path:
    """Parse the command line of a script whose only option is ``--scratch``, a folder for intermediate files."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for links, pixels and features")
    scratch: Path = parser.parse_args().scratch
    return scratch


def circumstances(seeds: Sequence[int] = (0,)) -> dict[str, Any]:
    """Return machine, software and commit of a measurement."""
    from vl2v.reports.comparison import processor  # later, for scripts that measure imports and memory

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "load_before": os.getloadavg()[0],
        "seeds": list(seeds),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum, maximum and number of values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def keep(name: str, figures: dict[str, Any]) -> None:
    """Print figures and write them to `benchmarks/results/<name>.json`."""
    text = json.dumps(figures, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def write_table(page: Path, name: str, rows: Sequence[str]) -> None:
    """Write the rows of a Markdown table between ``<!-- name -->`` and ``<!-- end of name -->`` of a page."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    body = "\n".join((start, "", *rows, "", end))
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(f"{start}.*?{end}", lambda _: body, text, flags=re.DOTALL), encoding="utf-8")


@contextmanager
def served(serve: Callable[..., None], *arguments: str) -> Iterator[tuple[int, int | None]]:
    """Run a server in another process until the block ends; yield its port and the number of the process.

    Args:
        serve: called in the process with the arguments and the port; it must be importable.

    Raises:
        SystemExit: if the server does not answer within two minutes.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(*arguments, port), daemon=True)
    server.start()
    try:
        end = time.monotonic() + 120
        while not _answers(port):
            if time.monotonic() > end:
                raise SystemExit("The server does not answer.")
            time.sleep(0.2)
        yield port, server.pid
    finally:
        server.terminate()
        server.join()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.HTTPError:
        return False


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)
