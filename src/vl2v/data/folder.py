"""Labelled images: `root/<domain>/<class>/<image>`, or `root/<class>/<image>` for a single domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vl2v.data.images import ImageDataset, spaced
from vl2v.data.layout import CLASS_FIRST, are_parts, doubtful, doubts, labels_elsewhere, part_of_folder
from vl2v.data.listing import Cells, Listing
from vl2v.data.listing import FaultyDataError as FaultyDataError
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import Fault, FileIndex, read_all
from vl2v.data.splits import TRAIN
from vl2v.data.table import unlabelled_paths
from vl2v.data.tables.base import SUFFIXES, is_table
from vl2v.data.tables.imported import is_imported, names_of_paths
from vl2v.errors import ConfigError, DataError
from vl2v.faults import UNREADABLE
from vl2v.progress import Progress
from vl2v.yaml_keys import Settings, fault_of
from vl2v_runtime.formats import COMMON
from vl2v_runtime.names import shown
from vl2v_runtime.regular import read_text
from vl2v_runtime.walking import ARCHIVES, Folder, Skipped, summary, walk

MOST_YAML, MOST_BRACKETS = 2**22, 10_000  # of a file; deep nesting takes the parser minutes


class DomainFolder(Listing):
    """A folder of labelled images with an optional level of domains and a level of classes.

    Class names are the folders' names with underscores read as spaces. A file `classes.yaml` in the root may map a
    class folder to another phrase for prompts. `vl2v_runtime.walking.walk` finds the images.

    Args:
        allow_missing_classes: accept classes that are missing from some domains.
        as_found: accept folders that look like splits, dates or swapped levels, an extra level, and empty folders.
        splits: whether first-level folders called train, val and test are the split. Otherwise they are domains.
        class_first: whether the classes are above the domains: `root/<class>/<domain>/<image>`.
        one_class: see `Listing`.

    Raises:
        DataError: if `root` is not a folder, or has no images.
    """

    LAYOUT = "a folder per class with images, or a folder per domain with a folder per class"
    NO_IMAGE = "no image in class folders"
    NEXT = "put images ({formats}) into class folders"

    def __init__(
        self,
        root: str | Path,
        *,
        allow_missing_classes: bool = False,
        as_found: bool = False,
        splits: bool = True,
        class_first: bool = False,
        one_class: bool = False,
    ) -> None:
        self._splits, self._class_first = splits, class_first
        super().__init__(root, allow_missing_classes=allow_missing_classes, as_found=as_found, one_class=one_class)
        described = [f for f, phrase in zip(self.folders, self.phrases, strict=True) if phrase != spaced(f)]
        for problem, _ in doubtful(self.folders, described):
            self.warnings.append(f"class folders: {problem}; classes.yaml can describe them")

    def _find(self) -> Cells:
        if not self.root.is_dir():
            raise DataError(
                f"{shown(self.root)} is not a folder.",
                expected=f"{self.LAYOUT}, or a table ({', '.join(SUFFIXES)})",
                found="a file" if self.root.exists() else "no such file or folder",
                next_step=_step_for(self.root),
            )
        tree = search(self.root)
        skipped = tree.all_skipped()
        for left_out in map(_left_out, skipped):
            (self._doubt if _is_archive(left_out) else self.faults.append)(left_out)
        for fault in labels_elsewhere(self.root, tree):
            self._doubt(fault)
        cells = self._by_part(tree) or self._list(tree)
        if not cells and tree.files:
            count = "1 image" if len(tree.files) == 1 else f"{len(tree.files):,} images"
            raise DataError(
                f"{shown(self.root)} contains images, but no class folders.",
                expected=self.LAYOUT,
                found=f"{count} directly in {shown(self.root)}",
                next_step="move them into a folder per class; or, if they have no labels, name the classes: --classes "
                "cat,dog",
            )
        if not cells:
            packed = [name for name in skipped if name.path.casefold().endswith(ARCHIVES)]
            step = "unpack the archives" if packed else self.NEXT.format(formats=", ".join(COMMON))
            found = "; ".join([self.NO_IMAGE, *([summary(skipped)] if skipped else [])])
            raise DataError(
                f"{shown(self.root)} contains no images.", expected=self.LAYOUT, found=found, next_step=step
            )
        return cells

    def _by_part(self, tree: Folder) -> Cells:
        """Return the images of a folder whose first level is train, val and test; empty for other folders."""
        tops = [top for top in tree.subs.values() if top.has_images()]
        if not self._splits or not are_parts([top.name for top in tops]):
            return {}
        for file in tree.files:
            self._fault(file, "an image next to the folders of the split", "move it into a class folder")
        cells: Cells = {}
        layouts = set()
        parts: dict[str, int] = {}
        for top in tops:
            part_cells = self._list(top)
            layouts.add(any(sub.files for sub in top.subs.values()))
            for key, files in part_cells.items():
                cells.setdefault(key, []).extend(files)
                parts |= dict.fromkeys(files, part_of_folder(top.name) or TRAIN)
        if len(layouts) > 1:
            names = ", ".join(shown(top.name) for top in tops)
            self._fault(names, "class folders in some, domain folders in others", "arrange all of them in the same way")
        ordered = {key: sorted(cells[key]) for key in sorted(cells)}
        self.parts = np.array([parts[file] for files in ordered.values() for file in files], np.int8)
        return ordered

    def _list(self, tree: Folder) -> Cells:
        """Return image files by (domain, class folder), sorted as in DomainBed."""
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
                    self._empty(top, "class" if (flat and not deep) or self._class_first else "domain")
        if flat and not deep:
            if self._class_first:
                remedy = f"sort them into domain folders, or drop {CLASS_FIRST}"
                self._fault(flat[0].path, "images without a domain folder in a class folder", remedy)
            return {(self.root.resolve().name, top.name): list(top.images()) for top in flat}
        upper, lower = ("class", "domain") if self._class_first else ("domain", "class")
        for top in flat:
            remedy = f"a {upper} must only contain {lower} folders"
            self._fault(top.path, f"images next to or instead of {lower} folders", remedy)
        for top in deep:
            for sub in top.subs.values():
                if not sub.has_images():
                    self._empty(sub, lower)
        for fault in doubts(deep, class_first=self._class_first):
            self._doubt(fault)
        cells = [(top, sub) for top in deep for sub in top.subs.values() if sub.has_images()]
        return {self._key(top.name, sub.name): list(sub.images()) for top, sub in cells}

    def _key(self, upper: str, lower: str) -> tuple[str, str]:
        """Return (domain, class) from the names of the folders of both levels, or the names from (domain, class)."""
        return (lower, upper) if self._class_first else (upper, lower)

    def _cell(self, domain: str, folder: str) -> str:
        return shown("/".join(self._key(domain, folder)))

    def _empty(self, folder: Folder, kind: str) -> None:
        """Report a folder without images, which would be missing among the classes or domains."""
        self._doubt(Fault(shown(folder.path), f"a {kind} folder without images", self.REMOVE))


def _step_for(path: Path) -> str:
    """Return what the user can do with a path that is not a folder."""
    if not path.exists():
        return "check the path"
    if path.name.lower().endswith((*ARCHIVES, ".gz", ".bz2", ".xz", ".zst")):
        return "unpack it, and pass the folder, or the file of labels in it"
    return "check the path; save another table, such as a spreadsheet, as .csv"


FORM = "lines of the form key: value, indented with spaces"


def read_yaml(path: Path) -> object:
    """Parse a YAML file.

    Raises:
        ConfigError: if it cannot be read or parsed. The message states the line.
    """
    try:
        text = read_text(path)
        if len(text) > MOST_YAML or text.count("[") + text.count("{") > MOST_BRACKETS:
            raise ValueError(f"more than {MOST_YAML:,} characters, or {MOST_BRACKETS:,} brackets")
        return yaml.load(text, Settings)
    except (yaml.YAMLError, *UNREADABLE) as error:  # an overlong number, a date that is none
        found, step = fault_of(error)
        raise ConfigError(f"{path} is not valid YAML.", expected=FORM, found=found, next_step=step) from error
    except OSError as error:
        found = error.strerror or str(error)
        step = "check the path, and that it is a file that this user may read"
        raise ConfigError(f"{path} cannot be read.", expected="a YAML file", found=found, next_step=step) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Parse a YAML file that contains a mapping.

    Raises:
        ConfigError: if it cannot be read or parsed, or contains something else.
    """
    content = read_yaml(path)
    if isinstance(content, dict):
        return content
    found = {type(None): "an empty file", str: "a text", list: "a list"}.get(type(content), "a single value")
    step = (
        "write keys and values into it, or leave the file out"
        if content is None
        else "put a key and a colon before each value"
    )
    raise ConfigError(f"{path} cannot be used.", expected=FORM, found=found, next_step=step)


def search(root: Path) -> Folder:
    """Return the images of a folder at any depth.

    Raises:
        DataError: if the folder cannot be listed.
    """
    try:
        return walk(root)
    except OSError as error:
        found = error.strerror or str(error)
        step = "make it readable for this user" if isinstance(error, PermissionError) else "check the path"
        raise DataError(f"{shown(root)} cannot be listed.", expected="a folder", found=found, next_step=step) from error


def _left_out(skipped: Skipped) -> Fault:
    return Fault(shown(skipped.path), skipped.problem, f"{skipped.remedy}, or skip it: --skip-bad", file=True)


def _is_archive(left_out: Fault) -> bool:
    return left_out.where.casefold().endswith(ARCHIVES)


def unlabelled_images(
    root: str | Path,
    *,
    image: str | None = None,
    index: FileIndex | None = None,
    cache: PixelCache | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> ImageDataset:
    """Read images without labels from a folder, at any depth, or from a table. Their labels are -1.

    Args:
        root: path of the folder or the table.
        image: column of the paths. If the table has no such column, one with a common name is used.
        skip_bad: skip unreadable files instead of raising an error.

    Raises:
        DataError: if `root` is missing or has no images, or (`FaultyDataError`) has unreadable files.
    """
    root = source = Path(root)
    if is_table(root):
        (paths, left_out), root = unlabelled_paths(root, image), root.parent
    else:
        tree = search(root) if root.is_dir() else Folder("")
        paths, left_out = list(tree.images()), [_left_out(skipped) for skipped in tree.all_skipped()]
    if not paths and (not is_table(source) or not left_out):
        raise DataError(
            f"{shown(source)} {'contains no images' if source.exists() else 'is missing'}.",
            expected=f"a folder of images, or a table that lists images ({', '.join(SUFFIXES)})",
            found="none" if source.exists() else "no such file or folder",
            next_step="check the path of the unlabelled images",
        )
    title = "reading unlabelled images"
    digests, bad = read_all(root, paths, index=index, cache=cache, progress=progress, title=title)
    packed = [fault for fault in left_out if _is_archive(fault)]
    names = names_of_paths(source, [fault.where for fault in bad])
    bad = [replace(fault, where=shown(names.get(fault.where, fault.where))) for fault in bad]
    bad = [*(fault for fault in left_out if fault not in packed), *bad]
    if bad and not (skip_bad and paths and all(fault.file for fault in bad)):
        raise FaultyDataError(source, bad)
    good = np.asarray(digests.any(axis=1), dtype=np.bool_)
    count = int(good.sum())
    readable = [path for path, ok in zip(paths, good, strict=True) if ok]
    none, zero = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    warnings = tuple(f"{fault.where}: {fault.problem}" for fault in packed)
    return ImageDataset(
        root, readable, digests[good], none, zero, ("unlabelled",), (), (), tuple(bad), warnings,
        imported=source if is_imported(source) else None,
    )  # fmt: skip
