"""The five benchmarks of domain generalisation by name, with their counts and folders.

Counts are those of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021). Checksums are MD5 sums published by projects that
check their downloads. If none is known, only the counts are verified.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from vl2v.data.folder import read_yaml
from vl2v.data.images import spelling
from vl2v.datasets.facts import BENCHMARKS, Benchmark
from vl2v.errors import ConfigError, DataError
from vl2v_runtime.formats import SUFFIXES

MANIFEST = "benchmark.json"
Counts = Mapping[str, Mapping[str, int]]
"""Number of images by domain and class."""


class BenchmarkWarning(UserWarning):
    """The folder of a benchmark differs from the benchmark."""


@dataclass(frozen=True)
class Verdict:
    """The comparison of a folder's counts with a benchmark.

    Attributes:
        differences: one line per difference, with the expected and the actual number; empty without differences.
        release: another known release that the counts match; empty if there is none.
    """

    differences: tuple[str, ...] = ()
    release: str = ""


class Names:
    """The names of a benchmark's domains and classes, looked up in any spelling."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._domains = {spelling(alias): domain for alias, domain in benchmark.aliases.items()}
        self._domains |= {spelling(domain): domain for domain in benchmark.images}
        self._classes = {spelling(name): name for name in benchmark.classes}

    def domain(self, text: str) -> str | None:
        """Return the domain with this name in any spelling; None if it is unknown."""
        return self._domains.get(spelling(text))

    def class_of(self, text: str) -> str | None:
        """Return the class with this name in any spelling; None if it is unknown. Without a list, any name is valid."""
        if self._classes:
            return self._classes.get(spelling(text))
        return text if is_plain(text) else None


def is_plain(name: str) -> bool:
    """Whether a name is valid for a file on every operating system and not hidden on any."""
    bad = set('/\\:*?"<>|') | {chr(code) for code in range(32)}
    return 0 < len(name) <= 200 and name[0] != "." and name[-1] not in ". " and not bad & set(name)


def find(name: str) -> Benchmark:
    """Return the benchmark with a name, in any spelling: ``PACS``, ``office_home``.

    Raises:
        ConfigError: if it is unknown.
    """
    if benchmark := _named(name):
        return benchmark
    raise ConfigError("Unknown benchmark.", expected=_known(), found=name[:80], next_step="vl2v data list")


def tally(folder: Path) -> dict[str, dict[str, int]]:
    """Count the image files of ``folder/<domain>/<class>/``, without opening any."""
    counts: dict[str, dict[str, int]] = {}
    for domain in _folders(folder):
        classes = {sub.name: len(image_names(sub)) for sub in _folders(domain)}
        if classes := {name: count for name, count in classes.items() if count}:
            counts[domain.name] = classes
    return counts


def image_names(folder: Path) -> list[str]:
    """List the image files directly in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if Path(e.name).suffix.lower() in SUFFIXES and e.name[0] != ".")


def compare(benchmark: Benchmark, counts: Counts) -> Verdict:
    """Compare counts by domain and class with those of a benchmark."""
    images_by_domain = {domain: sum(classes.values()) for domain, classes in counts.items()}
    for release in benchmark.releases:
        if images_by_domain == release.images:
            return Verdict(_class_names(benchmark, counts), release.about)
    lines = []
    for domain in sorted({*benchmark.images, *images_by_domain}):
        expected, have = benchmark.images.get(domain, 0), images_by_domain.get(domain, 0)
        if expected != have:
            lines.append(f"{domain}: expected {_images(expected)}, found {_images(have)}")
    for domain, classes in benchmark.images_per_class.items():
        have_of = counts.get(domain, {})
        lines += [
            f"{domain}/{name}: expected {_images(count)}, found {_images(have_of.get(name, 0))}"
            for name, count in classes.items()
            if domain in counts and have_of.get(name, 0) != count
        ]
    return Verdict((*lines, *_class_names(benchmark, counts)))


def resolve(name_or_path: str | Path, root: str | Path | None = None) -> Path:
    """Return the folder of a benchmark, or a user's own folder unchanged.

    A string that is the name of a benchmark denotes the benchmark; for a folder with that name, pass ``./PACS`` or a
    `Path`. The counts of a benchmark's folder are checked once per process. A difference, or another release, is
    reported as a `BenchmarkWarning`.

    Args:
        name_or_path: name of a benchmark, or a folder ``<domain>/<class>/<image>``.
        root: folder that contains benchmarks, e.g. ``root/PACS`` or ``root/office_home`` (DomainBed); by default the
            folder to which ``vl2v data get`` last downloaded the benchmark.

    Raises:
        ConfigError: if it is neither a benchmark nor a folder.
        DataError: if the benchmark is missing.
    """
    benchmark = _named(name_or_path) if isinstance(name_or_path, str) else None
    if benchmark is None:
        folder = Path(name_or_path).expanduser()
        if not folder.is_dir():
            expected = f"a folder of images, a table that lists images, or one of {_known()}"
            step = "check the path, or see vl2v data list"
            raise ConfigError(f"{folder} is not a folder.", expected=expected, found="none of them", next_step=step)
        return folder
    folder = _in_root(benchmark, Path(root).expanduser()) if root is not None else _noted(benchmark)
    for line in _checked(benchmark.name, folder.resolve()):
        warnings.warn(f"{benchmark.name} in {folder}: {line}", BenchmarkWarning, stacklevel=2)
    return folder


def default_folder(benchmark: Benchmark) -> Path:
    """Return the default folder of a benchmark."""
    return Path(platformdirs.user_data_dir("vl2v")) / "benchmarks" / benchmark.name


def note_place(benchmark: Benchmark, folder: Path) -> None:
    """Save the path of a benchmark for `resolve`."""
    note = default_folder(benchmark).with_suffix(".place")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(folder.resolve()), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, object]:
    """Read the manifest of ``vl2v data get``; empty if there is none."""
    path = folder / MANIFEST
    content = read_yaml(path) if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _named(name: str) -> Benchmark | None:
    return next((benchmark for benchmark in BENCHMARKS if spelling(benchmark.name) == spelling(name)), None)


def _known() -> str:
    return ", ".join(benchmark.name for benchmark in BENCHMARKS)


@cache
def _checked(name: str, folder: Path) -> tuple[str, ...]:
    verdict = compare(find(name), tally(folder))
    return (*verdict.differences, *([verdict.release] if verdict.release else []))


def _in_root(benchmark: Benchmark, root: Path) -> Path:
    folders = [sub for sub in _folders(root) if spelling(sub.name) == spelling(benchmark.name)]
    if folders:
        return folders[0]
    if root.is_dir() and set(benchmark.images) <= {sub.name for sub in _folders(root)}:
        return root
    raise _absent(benchmark, str(root / benchmark.name))


def _noted(benchmark: Benchmark) -> Path:
    note = default_folder(benchmark).with_suffix(".place")
    folder = Path(note.read_text(encoding="utf-8")) if note.exists() else default_folder(benchmark)
    if not folder.is_dir():
        raise _absent(benchmark, str(folder))
    return folder


def _absent(benchmark: Benchmark, where: str) -> DataError:
    return DataError(
        f"{benchmark.name} is missing.",
        expected=where,
        found="no such folder",
        next_step=f"vl2v data get {benchmark.name}, or pass its path",
    )


def _class_names(benchmark: Benchmark, counts: Counts) -> tuple[str, ...]:
    names = {name for classes in counts.values() for name in classes}
    if benchmark.classes:
        lines = [f"no image of class '{name}'" for name in benchmark.classes if name not in names]
        return (*lines, *(f"'{name}' is not one of its classes" for name in sorted(names - set(benchmark.classes))))
    expected = benchmark.class_count
    return () if len(names) == expected else (f"expected {expected} classes, found {len(names)}",)


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
