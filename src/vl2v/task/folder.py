"""Labelled images: `root/<domain>/<class>/<image>`, or `root/<class>/<image>` for a single domain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from vl2v.errors import ConfigError, DataError
from vl2v.faults import UNREADABLE
from vl2v.progress import Progress
from vl2v.task.files import Fault, FileIndex, read_all
from vl2v.task.images import Task, spaced, spelling
from vl2v.task.layout import doubts
from vl2v.task.phrases import read_phrases
from vl2v.task.pixels import Digests, PixelCache
from vl2v.yaml_keys import Settings
from vl2v_runtime.formats import COMMON
from vl2v_runtime.names import has_control, printable, shown
from vl2v_runtime.regular import read_text
from vl2v_runtime.walking import Folder, Skipped, summary, walk

SHOWN = 30  # faults listed in full; the rest are counted
MOST_YAML, MOST_BRACKETS = (
    2**22,
    10_000,
)  # of a file; deep nesting takes the parser minutes


class FaultyDataError(DataError):
    """The data have faults; `faults` has them all, the message the first of them and the count."""

    def __init__(self, root: Path, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [f"  {f.where}: {f.problem}\n      {f.remedy}" for f in faults[:SHOWN]]
        if len(faults) > SHOWN:
            lines.append(f"  ... and {len(faults) - SHOWN} more")
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{count} in {shown(root)}; nothing was bought or trained:\n" + "\n".join(lines))


class DomainFolder:
    """A folder of labelled images with an optional level of domains and a level of classes.

    Class names are the folders' names with underscores read as spaces. A file `classes.yaml` in the root may map a
    class folder to another phrase for prompts. What counts as an image is said by `vl2v_runtime.walking.walk`.

    Args:
        root: the folder.
        allow_missing_classes: accept a class that some domain has no image of.
        as_found: accept folders that look like splits, dates or a level too many, and folders without images.

    Attributes:
        faults: problems with files, names and layout.
        warnings: conditions that may be intended.

    Raises:
        DataError: if `root` is no folder, or holds no image.
    """

    LAYOUT = "a folder per class with images, or a folder per domain with a folder per class"
    NO_IMAGE = "no image in class folders"
    NEXT = "put images ({formats}) into class folders"

    def __init__(self, root: str | Path, *, allow_missing_classes: bool = False, as_found: bool = False) -> None:
        self.root, self.as_found = Path(root), as_found
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "no such file or folder"
            raise DataError(
                f"{shown(self.root)} is not a folder.", expected=self.LAYOUT, found=found, next_step="check the path"
            )
        tree = search(self.root)
        skipped = tree.all_skipped()
        self.faults += map(_left_out, skipped)
        cells = self._list(tree)
        if not cells:
            step = self.NEXT.format(formats=", ".join(COMMON))
            found = "; ".join([self.NO_IMAGE, *([summary(skipped)] if skipped else [])])
            raise DataError(
                f"{shown(self.root)} contains no images.", expected=self.LAYOUT, found=found, next_step=step
            )
        self.domains = tuple(sorted({domain for domain, _ in cells}))
        self.folders = self._classes(cells)
        self._files = {key: cells[key] for key in sorted(cells)}
        self._check_encoding()
        self._check_names(allow_missing_classes)
        self.phrases = self._phrases()

    @property
    def paths(self) -> list[str]:
        """Every image file, relative to the root, in the order of domain, class, file name."""
        return [path for files in self._files.values() for path in files]

    def scan(
        self,
        *,
        index: FileIndex | None = None,
        cache: PixelCache | None = None,
        skip_bad: bool = False,
        progress: Progress | None = None,
    ) -> Task:
        """Read every file once and return the clean task.

        Args:
            index: remembers files across scans.
            cache: receives the decoded pixels.
            skip_bad: leave bad files out instead of refusing.
            progress: told after every file.

        Raises:
            FaultyDataError: with all faults of files, names and layout together.
        """
        paths = self.paths
        digests, bad = read_all(self.root, paths, index=index, cache=cache, progress=progress)
        keys = [key for key, files in self._files.items() for _ in files]
        good = np.asarray(digests.any(axis=1), dtype=np.bool_)
        bad = [*(fault for fault in self.faults if fault.file), *bad]
        faults = [*(fault for fault in self.faults if not fault.file), *([] if skip_bad else bad)]
        domain_of = np.array([self.domains.index(domain) for domain, _ in keys], dtype=np.int64)
        for i, domain in enumerate(self.domains):
            count = int(np.count_nonzero(good & (domain_of == i)))
            if count < 2:
                remedy = "a domain needs at least two; add images or remove the folder"
                faults.append(Fault(domain, f"a domain with {count} usable image{'' if count == 1 else 's'}", remedy))
        if skip_bad:
            faults.extend(self._emptied(keys, good))
        if faults:
            raise FaultyDataError(self.root, faults)
        labels = self._labels(keys)
        warnings = [*self.warnings, *contradictions(paths, digests, labels)]
        return Task(
            root=self.root,
            paths=[path for path, ok in zip(paths, good, strict=True) if ok],
            digests=digests[good],
            labels=labels[good],
            domain_of=domain_of[good],
            domains=self.domains,
            folders=self.folders,
            phrases=self.phrases,
            skipped=tuple(bad),
            warnings=tuple(warnings),
        )

    def _list(self, tree: Folder) -> dict[tuple[str, str], list[str]]:
        """Image files by (domain, class folder), sorted as DomainBed sorts them."""
        tops = list(tree.subs.values())
        flat = [top for top in tops if top.files]
        deep = [top for top in tops if any(sub.has_images() for sub in top.subs.values())]
        for file in tree.files:
            self._fault(file, "an image outside every class folder", "move it into a class folder")
        for top in tops:
            if not top.has_images():
                if any(folder.others for folder in top.folders()) and not top.all_skipped():
                    self.warnings.append(f"{shown(top.path)} contains no images and is ignored")
                else:
                    self._empty(top, "class" if flat and not deep else "domain")
        if flat and not deep:
            return {(self.root.resolve().name, top.name): list(top.images()) for top in flat}
        for top in flat:
            self._fault(
                top.path, "images next to or instead of class folders", "a domain must only contain class folders"
            )
        for top in deep:
            for sub in top.subs.values():
                if not sub.has_images():
                    self._empty(sub, "class")
        for fault in doubts(deep):
            self._doubt(fault)
        cells = [(top, sub) for top in deep for sub in top.subs.values() if sub.has_images()]
        return {(top.name, sub.name): list(sub.images()) for top, sub in cells}

    def _classes(self, cells: dict[tuple[str, str], list[str]]) -> tuple[str, ...]:
        """The class folders of (domain, class folder), in alphabetical order."""
        return tuple(sorted({folder for _, folder in cells}))

    def _labels(self, keys: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
        """The label of every file, by its (domain, class folder)."""
        return np.array([self.folders.index(folder) for _, folder in keys], dtype=np.int64)

    def _empty(self, folder: Folder, kind: str) -> None:
        """A class or domain that would vanish without a word."""
        self._doubt(Fault(shown(folder.path), f"a {kind} folder without images", "add images or remove the folder"))

    def _doubt(self, fault: Fault) -> None:
        """Something that can be used as it is, and is probably not what was meant."""
        if self.as_found:
            self.warnings.append(f"{fault.where}: {fault.problem}")
        else:
            self.faults.append(fault)

    def _fault(self, where: str, problem: str, remedy: str) -> None:
        self.faults.append(Fault(shown(where), problem, remedy))

    def _check_encoding(self) -> None:
        """Refuse names that no prompt and no file of results can hold; the names of images need not be UTF-8."""
        for name in sorted({*self.domains, *self.folders}):
            if printable(name) != name:
                kind = "domain" if name in self.domains else "class"
                self._fault(name, f"a {kind} name that is not UTF-8", "rename the folder; convmv renames many")
            elif name in self.folders and has_control(spaced(name)):  # no student can carry it
                self._fault(name, "a class name with a control character", "rename the folder")

    def _check_names(self, allow_missing: bool) -> None:
        spellings: dict[str, set[str]] = defaultdict(set)
        for folder in self.folders:
            spellings[spelling(folder)].add(folder)
        for names in spellings.values():
            if len(names) > 1:
                where = ", ".join(shown(f"{d}/{f}") for d, f in self._files if f in names)
                self.faults.append(Fault(where, "two spellings of one class", "rename the folders to one spelling"))
        if len(spellings) < 2:
            where = f"{self.domains[0]}/{self.folders[0]}"
            self.faults.append(Fault(where, "the only class", "a classifier needs at least two class folders"))
        for domain in [] if allow_missing else self.domains:
            has = {spelling(folder) for d, folder in self._files if d == domain}
            for lacking in sorted(spellings.keys() - has):
                name = min(spellings[lacking])
                remedy = "add images of it, drop the class everywhere, or allow it: --allow-missing-classes"
                self.faults.append(Fault(domain, f"no image of class '{name}'", remedy))

    def _emptied(self, keys: Sequence[tuple[str, str]], good: NDArray[np.bool_]) -> list[Fault]:
        left = {key for key, ok in zip(keys, good, strict=True) if ok}
        remedy = "it has no readable file; add images or remove the folder"
        return [Fault("/".join(key), "a class without usable images", remedy) for key in self._files if key not in left]

    def _phrases(self) -> tuple[str, ...]:
        phrases = read_phrases(self.root, self.folders)
        values = tuple(phrases[folder] for folder in self.folders)
        for phrase in sorted({p for p in values if values.count(p) > 1}):
            if len({spelling(f) for f in self.folders if phrases[f] == phrase}) > 1:
                self.faults.append(
                    Fault(
                        "classes.yaml", f"two classes have the description '{phrase}'", "give each its own description"
                    )
                )
        return values


def read_yaml(path: Path) -> object:
    """Parse a YAML file.

    Raises:
        ConfigError: if it cannot be read or parsed; the message has the line.
    """
    try:
        text = read_text(path)
        if len(text) > MOST_YAML or text.count("[") + text.count("{") > MOST_BRACKETS:
            raise ValueError(f"more than {MOST_YAML:,} characters, or {MOST_BRACKETS:,} brackets")
        return yaml.load(text, Settings)
    except (yaml.YAMLError, *UNREADABLE) as error:  # an overlong number, a date that is none
        found = " ".join(str(error).split())[:500]
        step = "correct the file; text with a colon or a quote needs quotes around it"
        if "given twice" in found:
            step = "keep one of the lines"
        raise ConfigError(f"{path} is not valid YAML.", expected="YAML", found=found, next_step=step) from error
    except OSError as error:
        found = error.strerror or str(error)
        raise ConfigError(f"{path} cannot be read.", expected="a YAML file", found=found) from error


def search(root: Path) -> Folder:
    """The images of a folder at any depth.

    Raises:
        DataError: if it cannot be listed.
    """
    try:
        return walk(root)
    except OSError as error:
        found = error.strerror or str(error)
        step = "make it readable for this user"
        raise DataError(f"{shown(root)} cannot be listed.", expected="a folder", found=found, next_step=step) from error


def contradictions(paths: Sequence[str], digests: Digests, labels: NDArray[np.int64]) -> list[str]:
    """A warning if the same picture stands in several classes.

    Args:
        paths: N image files.
        digests: [N, 32] uint8, SHA-256 of each; zeros for a bad one.
        labels: [N] int64, the class of each.
    """
    first: dict[bytes, int] = {}
    pairs = []
    for i in np.flatnonzero(digests.any(axis=1)):
        other = first.setdefault(digests[i].tobytes(), int(i))
        if labels[other] != labels[i]:
            pairs.append((other, int(i)))
    if not pairs:
        return []
    count = "1 image is" if len(pairs) == 1 else f"{len(pairs):,} images are"
    example = " and ".join(shown(paths[i]) for i in pairs[0])
    return [f"{count} in two classes, with contradictory labels: {example}"]


def _left_out(skipped: Skipped) -> Fault:
    return Fault(shown(skipped.path), skipped.problem, f"{skipped.remedy}, or skip it: --skip-bad", file=True)


def unlabelled_images(
    root: str | Path,
    *,
    index: FileIndex | None = None,
    cache: PixelCache | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Task:
    """Read a folder of images without labels, at any depth; every label is -1.

    Raises:
        DataError: if the folder is missing or holds no image, or (`FaultyDataError`) holds a bad file.
    """
    root = Path(root)
    tree = search(root) if root.is_dir() else Folder("")
    paths, left_out = list(tree.images()), [_left_out(skipped) for skipped in tree.all_skipped()]
    if not paths:
        step = "check the path of the unlabelled images"
        raise DataError(
            f"{shown(root)} contains no images.", expected="a folder of images", found="none", next_step=step
        )
    title = "reading unlabelled images"
    digests, bad = read_all(root, paths, index=index, cache=cache, progress=progress, title=title)
    bad = [*left_out, *bad]
    if bad and not skip_bad:
        raise FaultyDataError(root, bad)
    good = np.asarray(digests.any(axis=1), dtype=np.bool_)
    count = int(good.sum())
    kept = [path for path, ok in zip(paths, good, strict=True) if ok]
    none, zero = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    return Task(root, kept, digests[good], none, zero, ("unlabelled",), (), (), tuple(bad))
