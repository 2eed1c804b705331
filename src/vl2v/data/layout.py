"""Detect folders and cells that are probably not domains and classes: splits, dates, numbers, an extra level."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from vl2v.data.scan import Fault
from vl2v.data.splits import TRAIN, part_of
from vl2v.data.tables.base import SUFFIXES
from vl2v_runtime.names import shown
from vl2v_runtime.walking import Folder

DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")
IMAGES = frozenset({"images", "imgs", "jpegimages", "upload", "media"})
LABELS = frozenset({"annotations", "labels", "synsets.txt", "train.txt", "val.txt", "test.txt", "default.txt"})
LISTS = (*SUFFIXES, ".xml", ".json")
CLASS_FIRST = "--class-first"
STYLES = frozenset(
    {"art", "artistic", "cartoon", "cartoons", "clip", "clipart", "comic", "drawing", "drawings", "graphic"}
    | {"infograph", "line", "lines", "natural", "painting", "paintings", "photo", "photograph", "photographs"}
    | {"photos", "picture", "product", "quickdraw", "real", "render", "rendered", "rendering", "sketch", "sketches"}
    | {"synthetic", "world", "style", "domain", "camera", "cam", "phone", "scanner", "webcam", "dslr", "site"}
    | {"location", "hospital", "indoor", "indoors", "outdoor", "outdoors", "day", "night", "summer", "winter"}
    | {"spring", "autumn"}
)
"""Words in names of domains that are rarely classes."""
NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
AMOUNT = re.compile(rf"({NUMBER.pattern}(e[-+]?\d+)?|[-+]?inf|0x[0-9a-f]+) ?%?", re.IGNORECASE)
CLOCK = r"\d?\d:\d\d(:\d\d(\.\d+)?)?"
TIME = re.compile(rf"{DATE.pattern}([T ]{CLOCK})?|\d{{1,4}}(?P<mark>[./])\d\d?(?P=mark)\d{{1,4}}|{CLOCK}")
TRUTH = frozenset({"true", "false", "yes", "no", "on", "off"})
MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "nil", "-", "?"})
SEVERAL = re.compile(r"[,;|/]")
ACCEPT = "or accept them: --layout-as-found"
DESCRIBE = "describe each in classes.yaml in the table's folder"


def doubts(domains: Sequence[Folder], *, class_first: bool = False) -> list[Fault]:
    """Return probable mistakes in a layout of two levels.

    Args:
        domains: the folders of the first level, which contain folders of images.
        class_first: whether the first level are classes, and the second domains.
    """
    checks = (_deeper,) if class_first else (splits, _swapped, _dates, _deeper)
    return [fault for check in checks for fault in check(domains)]


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
        yield Fault(", ".join(names), "splits of one dataset, read as domains", remedy)


def _swapped(domains: Sequence[Folder]) -> Iterator[Fault]:
    """Report class folders that are named like domains, below domain folders that are not."""
    below = [{sub.name for sub in domain.subs.values() if sub.has_images()} for domain in domains]
    names = sorted(set().union(*below))
    if len(domains) < 2 or len(names) < 2 or not all(map(_is_style, names)) or all(_is_style(d.name) for d in domains):
        return
    if any(sum(name in folder for folder in below) < 2 for name in names):  # one class has such a folder by chance
        return
    uppers = ", ".join(shown(domain.name) for domain in domains[:3]) + (", ..." if len(domains) > 3 else "")
    remedy = f"if {uppers} are the classes, add {CLASS_FIRST}; {ACCEPT}"
    yield Fault(", ".join(map(shown, names[:5])), "read as classes, but named like domains", remedy)


def _is_style(name: str) -> bool:
    """Return whether all words of a name occur in names of domains, such as ``art_painting`` and ``camera 3``."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return bool(words) and all(word in STYLES for word in words)


def _dates(domains: Sequence[Folder]) -> Iterator[Fault]:
    names = sorted({cell.name for cell in _cells(domains)})
    if names and all(DATE.fullmatch(name) for name in names):
        example = f"{domains[0].path}/{names[0]}"
        remedy = (
            f"if {shown(domains[0].name)} is a class, put all classes into one folder, as in "
            f"all/{shown(example)}/..., {ACCEPT}"
        )
        yield Fault(shown(example), "a date, read as a class", remedy)


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
    yield Fault(f"{shown(cells[0].path)}", f"read as a class, but all of them contain the folders {names}", remedy)


def doubtful(names: Sequence[str], described: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Iterate over problems and remedies of classes that a teacher probably cannot interpret.

    Args:
        names: all classes.
        described: those that `classes.yaml` describes.
    """
    plain = [name for name in names if name not in described]
    if plain and all(AMOUNT.fullmatch(n) or TIME.fullmatch(n) or n.casefold() in TRUTH for n in plain):
        kind = "numbers" if all(map(NUMBER.fullmatch, plain)) else "values"
        remedy = f"the teacher needs class names: use a column of names (--label), or {DESCRIBE}, {ACCEPT}"
        yield f"{kind} instead of class names, such as {_listed(plain)}", remedy
    if len(plain) > 1 and all(part_of(name) is not None for name in plain):
        yield (
            f"splits of one dataset, read as classes: {_listed(plain)}",
            f"use a column of names (--label), {ACCEPT}",
        )
    if missing := [name for name in plain if name.casefold() in MISSING]:
        yield (
            f"probably missing values, read as a class: {_listed(missing)}",
            f"remove the rows, or {DESCRIBE}, {ACCEPT}",
        )
    for same in equal_numbers(names):
        yield f"two spellings of one number: {_listed(same)}", f"use one spelling in all rows, {ACCEPT}"
    known = {name.casefold() for name in names}
    parts = {name: [part.strip().casefold() for part in SEVERAL.split(name)] for name in plain}
    if several := [name for name in plain if len(parts[name]) > 1 and known.issuperset(parts[name])]:
        yield f"several classes in one cell: {_listed(several)}", f"give each image one class, {ACCEPT}"


def equal_numbers(names: Sequence[str]) -> list[list[str]]:
    """Return the names that spell one number in several ways, such as 1 and 1.0."""
    equal: dict[Decimal, list[str]] = defaultdict(list)
    for name in filter(NUMBER.fullmatch, names):
        equal[Decimal(name.replace(",", "."))].append(name)
    return [same for same in equal.values() if len(same) > 1]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:5]))
