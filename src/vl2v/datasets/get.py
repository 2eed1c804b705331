"""Download a benchmark completely or not at all, and verify an existing one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vl2v.data.scan import Fault, read_all
from vl2v.datasets.facts import Benchmark
from vl2v.datasets.images import Image, Reading
from vl2v.datasets.registry import MANIFEST, compare, image_names, note_place, read_manifest, tally
from vl2v.datasets.sources import Files, Source, fetch
from vl2v.errors import ConfigError, DataError, DiskFullError
from vl2v.formatting import size
from vl2v.progress import Progress, Silent, warn

ROOM = 2.3  # bytes of disk per byte of download: the files, the unpacked images, and a reserve


@dataclass(frozen=True)
class Report:
    """The result of verifying a folder.

    Attributes:
        counts: number of images by domain and class.
        differences: one line for each number or name that differs from the benchmark.
        release: another known release that the numbers match; empty if there is none.
        unreadable: files that are not complete images.
        digest: SHA-256 over the sorted relative paths and contents, in hexadecimal; empty if a file is unreadable.
        manifest_digest: digest in the manifest of ``vl2v data get``; empty without a manifest.
    """

    counts: dict[str, dict[str, int]]
    differences: tuple[str, ...]
    release: str
    unreadable: tuple[Fault, ...]
    digest: str
    manifest_digest: str

    @property
    def right(self) -> bool:
        """Whether the folder contains the benchmark, complete and unchanged."""
        return not self.differences and not self.unreadable and self.manifest_digest in ("", self.digest)


def get(benchmark: Benchmark, out: Path, source: Source, *, progress: Progress | None = None) -> dict[str, Any]:
    """Download a benchmark to ``out/<domain>/<class>/<image>``, verify its counts, and write and return a manifest.

    Files are prepared in ``.<name>.partial`` next to `out`, which is renamed at the end. After an interruption,
    downloads are resumed and unpacking starts again.

    Args:
        out: target folder; must be empty or missing.

    Raises:
        ConfigError: if `out` is not empty, or contains an unfinished download of something else.
        DataError: if the source is not available or is not the benchmark.
        DiskFullError: if there is too little disk space.
    """
    progress, out = progress or Silent(), out.resolve()
    partial = out.parent / f".{out.name}.partial"
    _check_free(benchmark, out, partial, source)
    _claim(partial, benchmark, source)
    files = fetch(source, partial / "downloads", progress)
    try:
        manifest = _lay_out(benchmark, source, files, partial / "images", progress)
    except DataError:
        shutil.rmtree(partial / "images" if source.local is None else partial)  # downloads can be used again
        raise
    (partial / "images" / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if out.exists():
        out.rmdir()  # it is empty; otherwise it would have been rejected
    (partial / "images").rename(out)
    note_place(benchmark, out)
    shutil.rmtree(partial)
    return manifest


def check(benchmark: Benchmark, folder: Path, *, progress: Progress | None = None) -> Report:
    """Count and open the images of a folder, and compare them with the benchmark and the manifest.

    Raises:
        DataError: if the folder is missing or contains no image.
    """
    counts = tally(folder) if folder.is_dir() else {}
    if not counts:
        raise DataError(
            f"{folder} contains no benchmark.",
            expected=f"{folder}/<domain>/<class>/<image>",
            found="no image there" if folder.is_dir() else "no folder",
            next_step=f"check the path, or run vl2v data get {benchmark.name}",
        )
    paths = sorted(f"{d}/{c}/{name}" for d, of in counts.items() for c in of for name in image_names(folder / d / c))
    digests, faults = read_all(folder, paths, progress=progress)
    pairs = zip(paths, (row.tobytes().hex() for row in digests), strict=True)
    verdict = compare(benchmark, counts)
    manifest_digest = str(read_manifest(folder).get("digest", ""))
    digest = "" if faults else tree_digest(pairs)
    return Report(counts, verdict.differences, verdict.release, tuple(faults), digest, manifest_digest)


def tree_digest(files: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256, in hexadecimal, over ``<path> NUL <SHA-256 of the content> newline`` of the sorted files."""
    digest = hashlib.sha256()
    for path, content in sorted(files):
        digest.update(f"{path}\0{content}\n".encode())
    return digest.hexdigest()


def _check_free(benchmark: Benchmark, out: Path, partial: Path, source: Source) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        there = out.is_dir() and (out / MANIFEST).exists()
        if there and not (partial / "images").exists():
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed just before it was removed
        raise ConfigError(
            f"{out} is not {'empty' if out.is_dir() else 'a folder'}.",
            expected="a new or an empty folder",
            found="an existing benchmark" if there else "a folder with files" if out.is_dir() else "a file",
            next_step=f"verify it: vl2v data check {benchmark.name} {out}" if there else "choose another --out",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    if source.local is None:
        have = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        need = int(benchmark.download_bytes * ROOM) - have
        free = shutil.disk_usage(out.parent).free
        if free < need:
            raise DiskFullError(
                f"{benchmark.name} does not fit on the disk of {out.parent}.",
                expected=f"about {size(need)} free",
                found=size(free),
                next_step="free some space or choose another --out",
            )


def _claim(partial: Path, benchmark: Benchmark, source: Source) -> None:
    """Create the folder for a download, or resume the same one; another unfinished download is an error."""
    dataset = json.dumps({"benchmark": benchmark.name, "source": source.text, "revision": source.revision})
    note = partial / "task.json"
    downloads = partial / "downloads"
    fetched = downloads.is_dir() and any(path.is_file() for path in downloads.rglob("*"))
    if fetched and note.exists() and note.read_text(encoding="utf-8") != dataset:
        raise ConfigError(
            f"There is an unfinished download in {partial}.",
            expected=f"{benchmark.name} from {source.text}",
            found=note.read_text(encoding="utf-8"),
            next_step=f"finish it with the same command, or delete {partial}",
        )
    partial.mkdir(exist_ok=True)
    note.write_text(dataset, encoding="utf-8")
    if (partial / "images").exists():
        shutil.rmtree(partial / "images")


def _lay_out(benchmark: Benchmark, source: Source, files: Files, into: Path, progress: Progress) -> dict[str, Any]:
    reading = Reading(benchmark, files.paths)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    entries: list[tuple[str, str]] = []
    size = 0
    into.mkdir()
    with progress.stage(f"arranging {benchmark.name}", benchmark.total) as advance:
        for image in reading:
            name = _write(into, image)
            if name is None:
                continue
            counts[image.domain][image.label] += 1
            entries.append((f"{image.domain}/{image.label}/{name}", hashlib.sha256(image.data).hexdigest()))
            size += len(image.data)
            advance(1)
    for reason, count in reading.left_out.items():
        warn(progress, f"{count:,} images skipped, {reason}, e.g. {reading.examples[0]}")
    verdict = compare(benchmark, counts)
    if verdict.differences:
        raise _wrong(benchmark, source, verdict.differences, reading)
    return {
        "benchmark": benchmark.name,
        "source": source.text,
        "revision": files.revision or source.revision,
        "files": list(files.notes),
        "release": verdict.release,
        "images": len(entries),
        "bytes": size,
        "domains": {domain: sum(counts[domain].values()) for domain in sorted(counts)},
        "classes": {domain: dict(sorted(counts[domain].items())) for domain in sorted(counts)},
        "digest": tree_digest(entries),
        "licence": benchmark.licence,
        "vl2v": version("vl2v"),
    }


def _write(into: Path, image: Image) -> str | None:
    """Write an image and return its file name, with the row number if it is not unique; None for a duplicate."""
    folder = into / image.domain / image.label
    folder.mkdir(parents=True, exist_ok=True)
    name = image.name
    if (folder / name).exists():
        if image.row is None:
            if (folder / name).read_bytes() == image.data:
                return None
            raise DataError(
                f"Two different images have the path {image.domain}/{image.label}/{name}.", expected="one image",
                found="two in the source", next_step="use another source",
            )  # fmt: skip
        name = f"{Path(name).stem}-{image.row:07d}{Path(name).suffix}"
    with (folder / name).open("xb") as file:
        file.write(image.data)
    return name


def _wrong(benchmark: Benchmark, source: Source, differences: tuple[str, ...], reading: Reading) -> DataError:
    lines = [*differences[:12], *([f"and {len(differences) - 12} more"] if len(differences) > 12 else [])]
    if reading.left_out:
        lines.append(f"{reading.left_out.total():,} images skipped, e.g. {', '.join(reading.examples)}")
    return DataError(
        f"{source.text} does not match {benchmark.name}; nothing was written.",
        expected=f"{benchmark.total:,} images in {len(benchmark.images)} domains and {benchmark.class_count} classes",
        found="; ".join(lines),
        next_step="choose another source with --from; any folder <domain>/<class>/<image> can be used by its path",
    )
