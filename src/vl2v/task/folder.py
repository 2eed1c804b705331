"""The client's images: `root/<domain>/<class>/<image>`, or `root/<class>/<image>` for a single domain."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from vl2v.errors import ConfigError, DataError
from vl2v.progress import Progress
from vl2v.task.files import Fault, FileIndex, read_all
from vl2v.task.images import Task, spaced, spelling
from vl2v.task.pixels import PixelCache
from vl2v_runtime.formats import SUFFIXES

FOREIGN = frozenset({".gif", ".heic", ".heif", ".avif", ".jp2", ".svg", ".psd", ".raw", ".dng", ".tga"})
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
        super().__init__(f"{count} in {root}; nothing was bought or trained:\n" + "\n".join(lines))


class DomainFolder:
    """A folder of labelled images, one level for domains (optional) and one for classes.

    Class names are the folders' names with underscores read as spaces. A file `classes.yaml` in the root may map a
    class folder to another phrase for prompts. Hidden files and folders are passed over; links are followed.

    Args:
        root: the folder.
        allow_missing_classes: accept a class that some domain has no image of.

    Raises:
        DataError: if `root` is no folder, or holds no image.
    """

    def __init__(self, root: str | Path, *, allow_missing_classes: bool = False) -> None:
        self.root = Path(root)
        self.faults: list[Fault] = []
        layout = "one folder per class, or one per domain with one per class inside, holding images"
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing of that name"
            raise DataError(f"{self.root} is not a folder.", expected=layout, found=found, next_step="check the path")
        tree = self._list()
        if not tree:
            suffixes = ", ".join(sorted(SUFFIXES))
            step = f"put images ({suffixes}) into class folders"
            raise DataError(f"{self.root} holds no image.", expected=layout, found="no image file", next_step=step)
        self.domains = tuple(sorted({domain for domain, _ in tree}))
        self.folders = tuple(sorted({folder for _, folder in tree}))
        self._files = {key: tree[key] for key in sorted(tree)}
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
        labels = np.array([self.folders.index(folder) for _, folder in keys], dtype=np.int64)
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
        )

    def _list(self) -> dict[tuple[str, str], list[str]]:
        """Image files by (domain, class folder), sorted as DomainBed sorts them."""
        tree: dict[tuple[str, str], list[str]] = {}
        tops = _folders(self.root)
        flat = [top for top in tops if _images(top)]
        deep = [top for top in tops if any(_images(sub, deep=True) for sub in _folders(top))]
        for file in _images(self.root):
            self._fault(self.root / file, "an image outside every class folder", "move it into a class folder")
        if flat and not deep:
            for top in flat:
                tree[self.root.resolve().name, top.name] = self._paths(top)
            return tree
        for top in flat:
            self._fault(top, "images beside or in place of class folders", "every domain holds class folders only")
        for top in deep:
            for sub in _folders(top):
                if files := self._paths(sub):
                    tree[top.name, sub.name] = files
                else:
                    self._fault(sub, "a class folder without images", "add images or remove the folder")
        return tree

    def _paths(self, folder: Path) -> list[str]:
        found = []
        for base, names, files in os.walk(folder, followlinks=True):
            names[:] = sorted(name for name in names if not name.startswith("."))
            for file in sorted(files):
                path = Path(base, file)
                if file.startswith("."):
                    continue
                if path.suffix.lower() in SUFFIXES:
                    found.append(path.relative_to(self.root).as_posix())
                elif path.suffix.lower() in FOREIGN:
                    remedy = "convert it to PNG or JPEG, or go on without it: --skip-bad"
                    self._fault(path, f"a format that is not read ({path.suffix})", remedy, file=True)
        return found

    def _fault(self, where: Path, problem: str, remedy: str, *, file: bool = False) -> None:
        self.faults.append(Fault(where.relative_to(self.root).as_posix(), problem, remedy, file))

    def _check_names(self, allow_missing: bool) -> None:
        spellings: dict[str, set[str]] = defaultdict(set)
        for folder in self.folders:
            spellings[spelling(folder)].add(folder)
        for names in spellings.values():
            if len(names) > 1:
                where = ", ".join(f"{d}/{f}" for d, f in self._files if f in names)
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
        remedy = "no readable file is left in it; add images or remove the folder"
        return [Fault("/".join(key), "a class left without images", remedy) for key in self._files if key not in left]

    def _phrases(self) -> tuple[str, ...]:
        phrases = {folder: spaced(folder) for folder in self.folders}
        path = self.root / "classes.yaml"
        if path.exists():
            given = read_yaml(path)
            step = f"write lines such as '{self.folders[0]}: {phrases[self.folders[0]]}'"
            if not isinstance(given, dict) or not all(isinstance(v, str) and v.strip() for v in given.values()):
                expected = "a mapping of class folder to phrase, both text"
                raise ConfigError(f"{path} cannot be used.", expected=expected, found=repr(given)[:80], next_step=step)
            if unknown := sorted(str(key) for key in given if key not in phrases):
                expected = f"class folders among {', '.join(self.folders)}"
                raise ConfigError(
                    f"{path} names no class.", expected=expected, found=", ".join(unknown), next_step=step
                )
            phrases.update({folder: phrase.strip() for folder, phrase in given.items()})
        values = tuple(phrases[folder] for folder in self.folders)
        for phrase in sorted({p for p in values if values.count(p) > 1}):
            if len({spelling(f) for f in self.folders if phrases[f] == phrase}) > 1:
                self.faults.append(
                    Fault("classes.yaml", f"two classes are called '{phrase}'", "give each its own name")
                )
        return values


def read_yaml(path: Path) -> object:
    """Parse a YAML file.

    Raises:
        ConfigError: if it cannot be read or parsed; the message has the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > MOST_YAML or text.count("[") + text.count("{") > MOST_BRACKETS:
            raise ValueError(f"more than {MOST_YAML:,} characters, or {MOST_BRACKETS:,} brackets")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an overlong number, a date that is none
        found = " ".join(str(error).split())[:500]
        step = "correct the file; text with a colon or a quote needs quotes around it"
        raise ConfigError(f"{path} is not valid YAML.", expected="YAML", found=found, next_step=step) from error
    except OSError as error:
        found = error.strerror or str(error)
        raise ConfigError(f"{path} cannot be read.", expected="a YAML file", found=found) from error


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
    paths = [path.relative_to(root).as_posix() for path in _images(root, deep=True)] if root.is_dir() else []
    if not paths:
        step = "check the path given for unlabelled images"
        raise DataError(f"{root} holds no image.", expected="a folder of images", found="none", next_step=step)
    title = "reading unlabelled images"
    digests, bad = read_all(root, paths, index=index, cache=cache, progress=progress, title=title)
    if bad and not skip_bad:
        raise FaultyDataError(root, bad)
    good = np.asarray(digests.any(axis=1), dtype=np.bool_)
    count = int(good.sum())
    kept = [path for path, ok in zip(paths, good, strict=True) if ok]
    none, zero = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    return Task(root, kept, digests[good], none, zero, ("unlabelled",), (), (), tuple(bad))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path, *, deep: bool = False) -> list[Path]:
    found = []
    for base, names, files in os.walk(folder, followlinks=True):
        names[:] = sorted(name for name in names if deep and not name.startswith("."))
        found += [Path(base, f) for f in sorted(files) if Path(f).suffix.lower() in SUFFIXES and f[0] != "."]
    return found
