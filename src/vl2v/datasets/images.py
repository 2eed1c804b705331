"""Map the files of a source to the images of a benchmark and their target paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vl2v.data.parquet_images import rows
from vl2v.datasets.camera_traps import Labels, is_annotation, read_labels
from vl2v.datasets.facts import Benchmark
from vl2v.datasets.registry import Names, is_plain
from vl2v.datasets.unpack import members
from vl2v.errors import DataError
from vl2v_runtime.formats import SUFFIXES, alternatives, format_of

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Image:
    """An image of a benchmark.

    Attributes:
        name: name of the file, without a path; reproducible.
        row: row number, if the source is a table.
    """

    domain: str
    label: str
    name: str
    data: bytes
    row: int | None = None


@dataclass
class Reading:
    """An iterator over the images in the files of a source.

    Attributes:
        paths: paths of the files; see `vl2v.datasets.sources.Files`.
        left_out: number of skipped files by reason.
        examples: names of a few skipped files.
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
        annotated = read_labels(self.paths, self._names) if traps else {}
        images_in_lists = _listed(self.paths)
        for path in self.paths:
            if path.suffix.lower() == ".txt" or (traps and is_annotation(path)):
                continue
            for member in members(path):
                yield from self._of_member(member.path, member.read, annotated, images_in_lists)

    def _of_member(
        self, path: PurePosixPath, read: Callable[[], bytes], annotated: Labels, images_in_lists: set[str]
    ) -> Iterator[Image]:
        if path.suffix.lower() not in SUFFIXES:
            return
        labels = annotated.get(path.name, []) if annotated else self._labels_of(path)
        if not labels:
            reason = "no annotation with these domains and classes" if annotated else "no known <domain>/<class>/"
            self._leave_out(str(path), reason)
        elif images_in_lists and "/".join(path.parts[-3:]) not in images_in_lists:
            self._leave_out(str(path), "not in the lists")
        elif not is_plain(path.name):
            raise DataError(
                f"The name of an image is not valid on all systems: {str(path)!r}.", expected="a plain file name",
                found=repr(path.name)[:200], next_step="use another source",
            )  # fmt: skip
        else:
            data = read()
            suffix_of(data, str(path))
            for domain, label in labels:
                yield Image(domain, label, path.name, data)

    def _labels_of(self, path: PurePosixPath) -> list[tuple[str, str]]:
        """Return domain and class according to the last two folders of a path."""
        if len(path.parts) < 3:
            return []
        domain, label = self._names.domain(path.parts[-3]), self._names.class_of(path.parts[-2])
        return [(domain, label)] if domain and label else []

    def _of_tables(self, tables: Sequence[Path]) -> Iterator[Image]:
        number = 0
        for table in tables:
            # A dataset without this column may have a file or folder per domain: sketch-00000-of-00001.parquet.
            table_domain = self._names.domain(table.stem.split("-")[0]) or self._names.domain(table.parent.name)
            for row in rows(table):
                domain = self._names.domain(row.domain) if row.domain else table_domain
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
    """Return the suffix for an image file according to its first bytes.

    Raises:
        DataError: if it is not a supported image.
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
    """Return the original name of an image, or else its row number."""
    name, suffix = PurePosixPath(path.replace("\\", "/")).name, suffix_of(data, f"row {number}")
    if not is_plain(name):
        return f"{number:07d}{suffix}"
    return name if PurePosixPath(name).suffix.lower() in SUFFIXES else f"{name}{suffix}"


def _listed(paths: Sequence[Path]) -> set[str]:
    """Return the images in lists such as ``real_train.txt`` of DomainNet, as domain/class/file; empty without lists."""
    images = set()
    for path in paths:
        if path.suffix.lower() == ".txt" and path.stem.rsplit("_", 1)[-1] in SPLITS:
            for line in path.read_text(encoding="utf-8").splitlines():
                if name := line.rsplit(" ", 1)[0].strip():
                    images.add("/".join(PurePosixPath(name).parts[-3:]))
    return images
