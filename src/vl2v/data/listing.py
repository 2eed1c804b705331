"""Listed images by domain and class: the interface between the readers of datasets and all later steps."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.data.images import ImageDataset, spaced, spelling
from vl2v.data.layout import equal_numbers
from vl2v.data.phrases import read_phrases
from vl2v.data.pixels import Digests, PixelCache
from vl2v.data.scan import Fault, FileIndex, read_all
from vl2v.data.splits import TRAIN
from vl2v.digests import first_rows
from vl2v.errors import DataError
from vl2v.hints import fitting
from vl2v.progress import Progress
from vl2v_runtime.metadata import MAX_NAME
from vl2v_runtime.names import has_control, printable, shown

SHOWN = 30  # faults listed in full; the rest are counted
MISSING = 10  # classes named that a domain lacks
Cells = dict[tuple[str, str], list[str]]


class FaultyDataError(DataError):
    """The data have faults. `faults` contains all of them, the message the first ones and the count."""

    def __init__(self, root: Path, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [f"  {f.where}: {f.problem}\n      {fitting(f.remedy, step=True)}" for f in _shown(faults)]
        if len(faults) > SHOWN:
            lines.append(f"  ... and {len(faults) - SHOWN} more")
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{count} in {shown(root)}; nothing was bought or trained:\n" + "\n".join(lines))


def _shown(faults: Sequence[Fault]) -> list[Fault]:
    """Return the first faults of each kind in their order, at most `SHOWN`."""
    turns: list[tuple[int, int]] = []
    counts: Counter[tuple[str, str]] = Counter()
    for i, fault in enumerate(faults):
        counts[fault.problem, fault.remedy] += 1
        turns.append((counts[fault.problem, fault.remedy], i))
    return [faults[i] for i in sorted(i for _, i in sorted(turns)[:SHOWN])]


class Listing(ABC):
    """Images by domain and class. `scan` reads the files.

    A reader implements `_find`. A file `classes.yaml` in the root may map classes to other phrases for prompts.

    Args:
        root: folder that paths are relative to.
        allow_missing_classes: accept classes that are missing from some domains.
        as_found: accept a layout that is usable, but probably a mistake.
        one_class: accept images of a single class, which can be evaluated, but not trained on.

    Attributes:
        source: folder or table that lists the images.
        columns: roles and names of the columns of a table that are used; empty for a folder.
        folders: classes as written in the data, in alphabetical order.
        phrases: phrase of each class for prompts.
        faults: problems with files, names and layout.
        warnings: conditions that may be intended.
        parts: [N] part of the stated split, in the order of `paths`; None if no split is stated.
        groups: [N] number of the group, in the order of `paths`; None if there are no groups.
        imported: the table, if it was imported from a dataset of another tool.

    Raises:
        DataError: if no image is listed.
    """

    RENAME = "rename the folders to one spelling"
    RECODE = "rename the folder; convmv renames many"
    REMOVE = "add images or remove the folder"
    TWO = "a classifier needs at least two class folders"

    def __init__(
        self,
        root: str | Path,
        *,
        allow_missing_classes: bool = False,
        as_found: bool = False,
        one_class: bool = False,
    ) -> None:
        self.root, self.as_found, self._one_class = Path(root), as_found, one_class
        self.source = self.root
        self.columns: tuple[tuple[str, str], ...] = ()
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self.parts: NDArray[np.int8] | None = None
        self.groups: NDArray[np.int64] | None = None
        self.imported: Path | None = None
        cells = self._find()
        self.domains = tuple(sorted({domain for domain, _ in cells}))
        self.folders = self._classes(cells)
        self._files = {key: cells[key] for key in sorted(cells)}
        self._check_encoding()
        self._check_domains()
        self._check_names(allow_missing_classes)
        self._check_parts(allow_missing_classes)
        self.phrases = self._phrases()

    @abstractmethod
    def _find(self) -> Cells:
        """Return at least one image file by (domain, class), relative to the root or absolute."""

    def _described_in(self) -> Path:
        """Return the folder that may contain `classes.yaml`."""
        return self.root

    def _cell(self, domain: str, folder: str) -> str:
        """Return the name of a class in a domain for messages."""
        return shown(f"{domain}/{folder}")

    def _bad(self, rows: NDArray[np.int64], faults: list[Fault]) -> list[Fault]:
        """Return the faults of files as messages for the user; `rows` are their indices in `paths`."""
        return faults

    @property
    def paths(self) -> list[str]:
        """Paths of the image files relative to the root, in the order of domain, class and file name."""
        return [path for files in self._files.values() for path in files]

    @property
    def counts(self) -> dict[str, int]:
        """Number of image files of each domain, before they are read."""
        counts = dict.fromkeys(self.domains, 0)
        for (domain, _), files in self._files.items():
            counts[domain] += len(files)
        return counts

    def scan(
        self,
        *,
        index: FileIndex | None = None,
        cache: PixelCache | None = None,
        skip_bad: bool = False,
        progress: Progress | None = None,
    ) -> ImageDataset:
        """Read each file once, and return the dataset of the usable files.

        Args:
            skip_bad: skip unreadable files instead of raising an error.

        Raises:
            FaultyDataError: with all faults of files, names and layout together.
        """
        paths = self.paths
        digests, bad = read_all(self.root, paths, index=index, cache=cache, progress=progress)
        good = np.asarray(digests.any(axis=1), dtype=np.bool_)
        bad = self._bad(np.flatnonzero(~good), bad)
        bad = [*(fault for fault in self.faults if fault.file), *bad]
        faults = [*(fault for fault in self.faults if not fault.file), *([] if skip_bad else bad)]
        domain_of = self._of_files([self.domains.index(domain) for domain, _ in self._files])
        for i, domain in enumerate(self.domains):
            count = int(np.count_nonzero(good & (domain_of == i)))
            if count < 2 and (skip_bad or good.any() or not bad):  # else it is said that no file is usable
                remedy = f"a domain needs at least two; {self.REMOVE}"
                faults.append(Fault(domain, f"a domain with {count} usable image{'' if count == 1 else 's'}", remedy))
        if skip_bad:
            faults.extend(self._emptied(self._of_files(range(len(self._files)))[good]))
        if faults:
            raise FaultyDataError(self.source, faults)
        labels = self._of_files(self._labels())
        dataset = ImageDataset(
            root=self.root,
            paths=paths,
            digests=digests,
            labels=labels,
            domain_of=domain_of,
            domains=self.domains,
            folders=self.folders,
            phrases=self.phrases,
            skipped=tuple(bad),
            warnings=(*self.warnings, *contradictions(paths, digests, labels)),
            source=self.source,
            columns=self.columns,
            parts=self.parts,
            groups=self.groups,
            imported=self.imported,
        )
        return dataset if good.all() else dataset.take(np.flatnonzero(good))

    def _classes(self, cells: Cells) -> tuple[str, ...]:
        """Return the class folders in alphabetical order."""
        return tuple(sorted({folder for _, folder in cells}))

    def _labels(self) -> list[int]:
        """Return the label of the files of each (domain, class folder)."""
        return [self.folders.index(folder) for _, folder in self._files]

    def _of_files(self, values: Sequence[int]) -> NDArray[np.int64]:
        """Return the value of each file, given those of each (domain, class folder)."""
        return np.repeat(np.array(values, np.int64), [len(files) for files in self._files.values()])

    def _doubt(self, fault: Fault) -> None:
        """Report what is usable, but probably a mistake: as a warning with `as_found`, otherwise as a fault."""
        if self.as_found:
            self.warnings.append(f"{fault.where}: {fault.problem}")
        else:
            self.faults.append(fault)

    def _fault(self, where: str, problem: str, remedy: str) -> None:
        self.faults.append(Fault(shown(where), problem, remedy))

    def _check_encoding(self) -> None:
        """Report names of domains and classes that are not UTF-8, and control characters in classes."""
        for name in sorted({*self.domains, *self.folders}):
            if printable(name) != name:
                kind = "domain" if name in self.domains else "class"
                self._fault(name, f"a {kind} name that is not UTF-8", self.RECODE)
            elif name in self.folders and has_control(spaced(name)):  # no student can carry it
                self._fault(name, "a class name with a control character", "rename the folder")
            elif name in self.folders and len(name) > MAX_NAME:
                problem = f"a class name of {len(name):,} characters, where a student takes {MAX_NAME:,}"
                self._fault(f"{name[:60]}...", problem, "use a column of short names")

    def _check_domains(self) -> None:
        """Report spellings of one domain. If one of them is held out, the other one is trained on."""
        spellings: dict[str, list[str]] = defaultdict(list)
        for domain in self.domains:
            spellings[spelling(domain)].append(domain)
        for names in [*(names for names in spellings.values() if len(names) > 1), *equal_numbers(self.domains)]:
            where, remedy = ", ".join(map(shown, names)), f"{self.RENAME}, or accept them: --layout-as-found"
            self._doubt(Fault(where, f"two spellings of one domain{_unseen(names)}", remedy))

    def _check_names(self, allow_missing: bool) -> None:
        spellings: dict[str, set[str]] = defaultdict(set)
        for folder in self.folders:
            spellings[spelling(folder)].add(folder)
        for names in spellings.values():
            if len(names) > 1:
                where = ", ".join(self._cell(d, f) for d, f in self._files if f in names)
                self.faults.append(Fault(where, f"two spellings of one class{_unseen(names)}", self.RENAME))
        if len(spellings) < 2 and not self._one_class:
            where = self._cell(self.domains[0], self.folders[0])
            self.faults.append(Fault(where, "the only class", self.TWO))
        for domain in [] if allow_missing else self.domains:
            has = {spelling(folder) for d, folder in self._files if d == domain}
            if lacking := [f"'{min(spellings[name])}'" for name in sorted(spellings.keys() - has)]:
                few = ", ".join(lacking[:MISSING]) + (", ..." if len(lacking) > MISSING else "")
                problem = f"no image of {f'{len(lacking)} classes:' if len(lacking) > 1 else 'class'} {few}"
                remedy = "add images, drop these classes everywhere, or allow it: --allow-missing-classes"
                self.faults.append(Fault(domain, problem, remedy))

    def _check_parts(self, allow_missing: bool) -> None:
        """Report a stated split without training images, and classes without training images."""
        if self.parts is None:
            return
        if not (self.parts == TRAIN).any():
            self._fault("the split", "no image to train on", "mark images with train")
        elif not allow_missing:
            labels = self._of_files(self._labels())
            trained = set(labels[self.parts == TRAIN].tolist())
            for i in sorted(set(labels.tolist()) - trained):
                remedy = "move some of its images to train, drop the class, or allow it: --allow-missing-classes"
                self._fault(self.folders[i], "a class without an image in train", remedy)

    def _emptied(self, left: NDArray[np.int64]) -> list[Fault]:
        """Return the faults of cells without usable files; `left` has the indices of the cells of usable files."""
        there = set(left.tolist())
        remedy = f"it has no readable file; {self.REMOVE}"
        return [
            Fault(self._cell(*key), "a class without usable images", remedy)
            for i, key in enumerate(self._files)
            if i not in there
        ]

    def _phrases(self) -> tuple[str, ...]:
        phrases = read_phrases(self._described_in(), self.folders)
        values = tuple(phrases[folder] for folder in self.folders)
        for folder in [folder for folder in self.folders if not spelling(phrases[folder])]:
            self._fault(repr(folder), "a class name without letters", "rename it, or describe it in classes.yaml")
        for phrase in sorted({p for p in values if values.count(p) > 1}):
            if len({spelling(f) for f in self.folders if phrases[f] == phrase}) > 1:
                problem = f"two classes have the description '{phrase}'"
                self._fault("classes.yaml", problem, "give each its own description")
        return values


def _unseen(names: Collection[str]) -> str:
    """Return a note if names look alike on a screen."""
    same = len({unicodedata.normalize("NFC", name) for name in names}) == 1
    return " that differ in their Unicode form only (composed and decomposed accents)" if same else ""


def contradictions(paths: Sequence[str], digests: Digests, labels: NDArray[np.int64]) -> list[str]:
    """Return a warning if the same image is in several classes.

    Args:
        digests: [N, 32] uint8, SHA-256 of each image; zeros for unreadable files.
        labels: [N] int64, the class of each image.
    """
    first = first_rows(digests)
    others = np.flatnonzero((labels[first] != labels) & digests.any(axis=1))
    if not len(others):
        return []
    count = "1 image is" if len(others) == 1 else f"{len(others):,} images are"
    example = " and ".join(shown(paths[i]) for i in (first[others[0]], others[0]))
    return [f"{count} in two classes, with contradictory labels: {example}"]
