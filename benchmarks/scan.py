"""Scan and quote a table of small images with a `file:` teacher: CPU time and memory of the first and second call.

With --against, only quotes of the largest table are measured, in alternation with those of an earlier version, so that
other work on the machine inflates both alike.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import circumstances, keep
from vl2v.teacher.prompts import load_templates, render

CLASSES, DOMAINS = 25, 4
SIZE = 64
FOLDER = 1000  # images in a folder
WRITTEN = 10_000  # rows of the teacher's file that are drawn at once
SCAN = """
import sys
from pathlib import Path
from vl2v.data.scan import FileIndex
from vl2v.data.table import TableListing
index = FileIndex(Path(sys.argv[2]) / "scan" / "files.sqlite")
print(len(TableListing(Path(sys.argv[1])).scan(index=index)))
"""

# A small process starts the command: the peak of a process includes that of the one which it was forked from.
LAUNCH = """
import json, os, sys
sys.stdout.flush()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def main() -> None:
    """Make the data, measure both calls for every number of rows, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="a new folder, which is deleted at the end")
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--dimension", type=int, default=512, help="of the teacher's embeddings")
    parser.add_argument("--against", type=Path, help="folder src of an earlier version")
    parser.add_argument("--rounds", type=int, default=2, help="of a comparison")
    a = parser.parse_args()
    setting = {"size": SIZE, "classes": CLASSES, "domains": DOMAINS, "dimension": a.dimension}
    a.scratch.mkdir(parents=True)
    try:
        made = time.process_time()
        write_images(a.scratch, max(a.rows))
        made = time.process_time() - made
        if a.against:
            measured = compare(a.scratch, max(a.rows), a.dimension, a.against, a.rounds)
            keep(
                "scan_compared",
                {"setting": setting | {"rows": max(a.rows)}, **measured, "circumstances": circumstances()},
            )
            return
        figures = {f"{rows:,} rows": measure(a.scratch, rows, a.dimension) for rows in sorted(a.rows)}
    finally:
        shutil.rmtree(a.scratch)
    keep("scan", {"setting": setting, "making_images_s": made, **figures, "circumstances": circumstances()})


def write_images(root: Path, rows: int) -> None:
    """Write different images of 64 x 64, JPEG and PNG by turns."""
    for start in range(0, rows, FOLDER):
        generator = np.random.default_rng(start)
        folder = root / str(start)
        folder.mkdir()
        coarse = generator.integers(0, 256, (min(FOLDER, rows - start), SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
        for i, pixels in enumerate(coarse.repeat(8, axis=1).repeat(8, axis=2)):
            data = io.BytesIO()
            options: dict[str, Any] = {"compress_level": 1} if i % 2 else {"quality": 90}
            Image.fromarray(pixels).save(data, "PNG" if i % 2 else "JPEG", **options)
            (root / path_of(start + i)).write_bytes(data.getvalue())


def path_of(row: int) -> str:
    """The path of an image, relative to the table."""
    return f"{row // FOLDER * FOLDER}/{row}.{'png' if row % 2 else 'jpg'}"


def write_table(root: Path, rows: int) -> Path:
    """Write the table of the first images."""
    table = root / f"{rows}.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "domain"])
        writer.writerows(
            (path_of(i), f"class {i // 2 % CLASSES}", f"domain {i // 2 // CLASSES % DOMAINS}") for i in range(rows)
        )
    return table


def write_teacher(root: Path, rows: int, dimension: int) -> Path:
    """Write the embeddings of the first images, by path, and of all prompts."""
    generator = np.random.default_rng(0)
    prompts = [render(t, f"class {i}") for i in range(CLASSES) for t in load_templates("photo")]
    path = root / f"{rows}.npz"

    def embeddings(count: int) -> Iterator[np.ndarray]:
        for start in range(0, count, WRITTEN):
            yield generator.normal(size=(min(WRITTEN, count - start), dimension)).astype(np.float32)

    np.savez(
        path,
        paths=np.array([path_of(i) for i in range(rows)]),
        embeddings=np.concatenate(list(embeddings(rows))),
        texts=np.array(prompts),
        text_embeddings=np.concatenate(list(embeddings(len(prompts)))),
    )
    return path


def measure(root: Path, rows: int, dimension: int) -> dict[str, Any]:
    """Measure the scan alone and the quote, each twice, in child processes."""
    table, teacher, storage_folder = (
        write_table(root, rows),
        write_teacher(root, rows, dimension),
        root / f"storage-{rows}",
    )
    quote = quote_command(table, teacher, storage_folder)
    scan = ["-c", SCAN, str(table), str(storage_folder)]
    figures: dict[str, Any] = {}
    for name, command in (("scan", scan), ("quote", quote)):
        for call in ("first", "second"):
            measured, output = child([sys.executable, *command])
            figures[f"{name}, {call} call"] = measured
            images = json.loads(output)["disk_bytes"]["pixel cache"] // (SIZE * SIZE * 3) if name == "quote" else output
            if int(images) != rows:
                raise AssertionError(f"{images} images in place of {rows}")
    teacher.unlink()
    return figures


def compare(root: Path, rows: int, dimension: int, earlier: Path, rounds: int) -> dict[str, Any]:
    """Measure the first and second quote with both versions by turns; all figures, and ratios of the median times."""
    table, teacher = write_table(root, rows), write_teacher(root, rows, dimension)
    versions = {"before": earlier.resolve(), "after": Path(__file__).resolve().parent.parent / "src"}
    runs: list[dict[str, Any]] = []
    for turn in range(rounds):
        for version, source in versions.items():
            command = quote_command(table, teacher, root / f"{version}-{turn}")
            for call in ("first", "second"):
                measured, _ = child([sys.executable, *command], {"PYTHONPATH": str(source)})
                runs.append({"version": version, "call": call, **measured})
    times = {
        (version, call): statistics.median(r["cpu_s"] for r in runs if (r["version"], r["call"]) == (version, call))
        for version in versions
        for call in ("first", "second")
    }
    ratios = {call: round(times["after", call] / times["before", call], 3) for call in ("first", "second")}
    return {"runs_in_order": runs, "cpu_after_to_before": ratios}


def quote_command(table: Path, teacher: Path, storage_folder: Path) -> list[str]:
    """Return the arguments of Python for a quote with a cache and a store in `storage_folder`."""
    return [
        *("-m", "vl2v", "quote", str(table), "--teacher", f"file:{teacher}", "--size", str(SIZE), "--json"),
        *("--cache", str(storage_folder / "cache"), "--store", str(storage_folder / "store.sqlite")),
    ]


def child(command: list[str], environment: Mapping[str, str] | None = None) -> tuple[dict[str, float], str]:
    """Run a command; return its CPU seconds (user and system), its peak resident memory, and its output."""
    start = time.perf_counter()
    launch = [sys.executable, "-S", "-c", LAUNCH, *command]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(launch, stdout=subprocess.PIPE, text=True, check=True, env=variables)
    output, _, last = done.stdout.rstrip().rpartition("\n")
    seconds, memory = json.loads(last)
    memory *= 1 if sys.platform == "darwin" else 1024
    return {"cpu_s": seconds, "wall_s": time.perf_counter() - start, "peak_mb": memory / 1e6}, output


if __name__ == "__main__":
    main()
