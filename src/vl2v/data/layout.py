"""Detect folders that are probably not domains and classes: splits, dates, an extra level."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vl2v.data.scan import Fault
from vl2v.data.splits import TRAIN, part_of
from vl2v_runtime.names import shown
from vl2v_runtime.walking import Folder

DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")
IMAGES = frozenset({"images", "imgs", "jpegimages", "upload", "media"})
LABELS = frozenset({"annotations", "labels", "synsets.txt", "train.txt", "val.txt", "test.txt", "default.txt"})
LISTS = (".csv", ".tsv", ".xml", ".json", ".jsonl", ".ndjson", ".parquet")
ACCEPT = "or accept them as they are: --layout-as-found"


def doubts(domains: Sequence[Folder]) -> list[Fault]:
    """Return probable mistakes in a layout `root/<domain>/<class>/`."""
    return [fault for found in (splits(domains), _dates(domains), _deeper(domains)) for fault in found]


def _cells(domains: Sequence[Folder]) -> list[Folder]:
    return [folder for domain in domains for folder in domain.subs.values() if folder.has_images()]


def part_of_folder(name: str) -> int | None:
    """Return the part of a split that a folder name such as ``train`` or ``val_2`` means; None for other names."""
    return part_of(name.strip("_- 0123456789"))


def are_parts(names: Sequence[str]) -> bool:
    """Return whether folders are the parts of a split: at least two, all with such names, one of them for training."""
    parts = {part_of_folder(name) for name in names}
    return len(names) > 1 and None not in parts and TRAIN in parts


def labels_elsewhere(root: Path, tree: Folder) -> Iterator[Fault]:
    """Report a single folder of images next to a file that probably has the labels, as labelling tools write it."""
    tops = [top.name for top in tree.subs.values() if top.has_images()]
    if len(tops) != 1 or tree.files or tops[0].casefold() not in IMAGES:
        return
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if lists := [name for name in names if name.casefold() in LABELS or Path(name).suffix.lower() in LISTS]:
        problem = f"a folder of images next to {shown(lists[0])}, which may contain the labels"
        remedy = f"pass the file of labels: a table, or an export of Label Studio or CVAT; {ACCEPT}"
        yield Fault(shown(tops[0]), problem, remedy)


def splits(domains: Sequence[Folder]) -> Iterator[Fault]:
    """Report domain folders that have names of parts of a split."""
    names = [domain.name for domain in domains]
    if len(names) > 1 and all(part_of_folder(name) is not None for name in names):
        remedy = f"name the folders after the domains (camera, site, style), {ACCEPT}"
        if not are_parts(names):
            remedy = f"add a folder train with images to train on, {ACCEPT}"
        yield Fault(", ".join(names), "splits of one dataset, taken as domains", remedy)


def _dates(domains: Sequence[Folder]) -> Iterator[Fault]:
    names = sorted({cell.name for cell in _cells(domains)})
    if names and all(DATE.fullmatch(name) for name in names):
        example = f"{domains[0].path}/{names[0]}"
        remedy = (
            f"if {shown(domains[0].name)} is a class, put all classes into one folder, as in "
            f"all/{shown(example)}/..., {ACCEPT}"
        )
        yield Fault(shown(example), "a date, taken as a class", remedy)


def _deeper(domains: Sequence[Folder]) -> Iterator[Fault]:
    """Report class folders that all contain the same folders, which may be the classes, and no images."""
    cells = _cells(domains)
    below = [{sub.name for sub in cell.subs.values() if sub.has_images()} for cell in cells]
    common = set.intersection(*below) if below else set()
    if len(common) < 2 or any(cell.files for cell in cells) or all(DATE.fullmatch(name) for name in common):
        return
    if len({cell.name for cell in cells}) < 2:
        return
    names = ", ".join(map(shown, sorted(common)[:5]))
    remedy = f"if these are the classes, pass the folder one level below, such as {shown(domains[0].path)}, {ACCEPT}"
    yield Fault(f"{shown(cells[0].path)}", f"taken as a class, but all of them contain the folders {names}", remedy)
