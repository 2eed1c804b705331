"""Map the files of a source to the images of a benchmark and their target paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vl2v.data.parquet_images import rows
from vl2v.datasets.camera_traps import Places, is_annotation, places
from vl2v.datasets.facts import Benchmark
from vl2v.datasets.registry import Names, is_plain
from vl2v.datasets.unpack import members
from vl2v.errors import DataError
from vl2v_runtime.formats import SUFFIXES, alternatives, format_of

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Image:
    """An image and where it belongs.

    Attributes:
        domain: as the benchmark names it.
        label: the class.
        name: the file's name, plain; the same every time for the same files.
        data: the file's bytes.
        row: its position among all rows, if it comes from a table.
    """

    domain: str
    label: str
    name: str
    data: bytes
    row: int | None = None


@dataclass
class Reading:
    """Goes through a source's files once.

    Attributes:
        benchmark: whose images they are.
        paths: files of `benchmark_sources.Files`.
        left_out: how many files belong to no domain and class, by a word on why.
        examples: a few of their names.
    """

    benchmark: Benchmark
    paths: Sequence[Path]
    left_out: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names = Names(self.benchmark)

    def __iter__(self) -> Iterator[Image]:
        tables = [path for path in self.paths if path.suffix.lower() == ".parquet"]
        if tables:
            yield from self._of_tables(tables)
            return
        traps = self.benchmark.name == "TerraIncognita"
        annotated = places(self.paths, self._names) if traps else {}
        listed = _listed(self.paths)
        for path in self.paths:
            if path.suffix.lower() == ".txt" or (traps and is_annotation(path)):
                continue
            for member in members(path):
                yield from self._of_member(member.path, member.read, annotated, listed)

    def _of_member(
        self, path: PurePosixPath, read: Callable[[], bytes], annotated: Places, listed: set[str]
    ) -> Iterator[Image]:
        if path.suffix.lower() not in SUFFIXES:
            return
        where = annotated.get(path.name, []) if annotated else self._place(path)
        if not where:
            reason = "no annotation with these domains and classes" if annotated else "no known <domain>/<class>/"
            self._leave_out(str(path), reason)
        elif listed and "/".join(path.parts[-3:]) not in listed:
            self._leave_out(str(path), "not in the lists")
        elif not is_plain(path.name):
            raise DataError(
                f"The name of an image is not valid on all systems: {str(path)!r}.", expected="a plain file name",
                found=repr(path.name)[:200], next_step="use another source",
            )  # fmt: skip
        else:
            data = read()
            suffix_of(data, str(path))
            for domain, label in where:
                yield Image(domain, label, path.name, data)

    def _place(self, path: PurePosixPath) -> list[tuple[str, str]]:
        """The last two folders are the domain and the class."""
        if len(path.parts) < 3:
            return []
        domain, label = self._names.domain(path.parts[-3]), self._names.class_of(path.parts[-2])
        return [(domain, label)] if domain and label else []

    def _of_tables(self, tables: Sequence[Path]) -> Iterator[Image]:
        number = 0
        for table in tables:
            # A data set without the column may keep a domain per file or folder: sketch-00000-of-00001.parquet.
            own = self._names.domain(table.stem.split("-")[0]) or self._names.domain(table.parent.name)
            for row in rows(table):
                domain = self._names.domain(row.domain) if row.domain else own
                label = self._names.class_of(row.label)
                if domain and label:
                    yield Image(domain, label, _name(row.path, row.data, number), row.data, number)
                else:
                    self._leave_out(f"{table.name}: {row.domain or '?'}/{row.label}", "no known domain and class")
                number += 1

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[reason] += 1
        if len(self.examples) < 3:
            self.examples.append(name)


def suffix_of(data: bytes, where: str) -> str:
    """The suffix that an image file's first bytes ask for.

    Raises:
        DataError: if they are not those of an image that is read here.
    """
    if form := format_of(data):
        return form.suffixes[0]
    raise DataError(
        f"{where} is not an image.",
        expected=alternatives(),
        found=f"{len(data):,} bytes that begin with {data[:8]!r}",
        next_step="download the files again, or from another source",
    )


def _name(path: str, data: bytes, number: int) -> str:
    """The name an image had, or else its row's number."""
    name, suffix = PurePosixPath(path.replace("\\", "/")).name, suffix_of(data, f"row {number}")
    if not is_plain(name):
        return f"{number:07d}{suffix}"
    return name if PurePosixPath(name).suffix.lower() in SUFFIXES else f"{name}{suffix}"


def _listed(paths: Sequence[Path]) -> set[str]:
    """The images that lists such as DomainNet's ``real_train.txt`` name, as domain/class/file; empty without lists."""
    found = set()
    for path in paths:
        if path.suffix.lower() == ".txt" and path.stem.rsplit("_", 1)[-1] in SPLITS:
            for line in path.read_text(encoding="utf-8").splitlines():
                if name := line.rsplit(" ", 1)[0].strip():
                    found.add("/".join(PurePosixPath(name).parts[-3:]))
    return found
