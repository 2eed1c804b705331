"""Summary of a folder: domains, classes and counts of images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vl2v.data.images import ImageDataset
from vl2v.data.splits import PARTS
from vl2v.data.tables.columns import ROLES
from vl2v_runtime.names import printable, shown

SHOWN_DOMAINS, SHOWN_CLASSES = 20, 12
CLASS_ABOVE, DOMAIN_ABOVE = "class/domain/image", "domain/class/image"


@dataclass(frozen=True)
class DomainContents:
    """Contents of a domain.

    Attributes:
        classes: number of classes with images; 0 if the images have no labels.
        fewest: number of images of the smallest of these classes.
        most: number of images of the largest class.
        held_out: whether the domain is held out for testing.
    """

    name: str
    images: int
    classes: int
    fewest: int
    most: int
    held_out: bool


@dataclass(frozen=True)
class Contents:
    """Contents of a folder or a table, as a run uses them.

    Attributes:
        domains: contents of the domains, in alphabetical order.
        classes: phrases of the trained classes, in the order of their folders.
        images: number of images of the trained classes.
        held_out_class_images: number of images of the held-out classes.
        unlabelled: number of further images without labels.
        labelled: whether the images have labels.
        columns: roles and names of the columns of a table that are used; empty for a folder.
        parts: names and numbers of images of the parts of a stated split; empty if the split is drawn.
        groups: number of groups that the split does not divide.
        layout: levels of the folders, such as domain/class/image; empty for tables and a single domain.
    """

    root: str
    domains: tuple[DomainContents, ...]
    classes: tuple[str, ...]
    held_out_classes: tuple[str, ...] = ()
    images: int = 0
    held_out_class_images: int = 0
    unlabelled: int = 0
    labelled: bool = True
    columns: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, int], ...] = ()
    groups: int = 0
    layout: str = ""

    @classmethod
    def of(
        cls,
        dataset: ImageDataset,
        held_out: Collection[str] = (),
        unseen: ImageDataset | None = None,
        unlabelled: ImageDataset | None = None,
        *,
        class_first: bool = False,
    ) -> Contents:
        """Count the images of a scanned dataset.

        Args:
            class_first: whether the class folders of a folder are above those of the domains.
        """
        domains = []
        for domain in dataset.domains:
            labels = dataset.labels[dataset.rows_of(domain)]
            counts = np.unique(labels[labels >= 0], return_counts=True)[1]
            sizes = [int(count) for count in counts] or [0]
            is_held_out = domain in held_out
            domains.append(DomainContents(domain, len(labels), len(counts), min(sizes), max(sizes), is_held_out))
        labelled = bool((dataset.labels >= 0).any())
        ordered = CLASS_ABOVE if class_first else DOMAIN_ABOVE
        return cls(
            root=printable(dataset.source or dataset.root),
            domains=tuple(domains),
            classes=dataset.names,
            held_out_classes=unseen.names if unseen else (),
            images=len(dataset),
            held_out_class_images=len(unseen) if unseen else 0,
            unlabelled=len(unlabelled) if unlabelled else 0,
            labelled=labelled,
            columns=dataset.columns,
            parts=_parts(dataset),
            groups=0 if dataset.groups is None else len(np.unique(dataset.groups)),
            layout=ordered if labelled and len(domains) > 1 and not dataset.columns else "",
        )

    def lines(self) -> list[str]:
        """Return lines of text: the total, one line per domain, and the classes."""
        classes = _count(len(self.classes), "class", "classes")
        lines = [f"{shown(self.root)}: {_count(len(self.domains), 'domain')}, {classes}, "]
        lines[0] += _count(self.images, "image") + ("" if self.labelled else " without labels")
        lines += [f"  {columns_line(self.columns)}"] if self.columns else []
        if self.layout:
            lines.append(f"  folders: {self.layout}")
        if self.parts:
            lines.append(f"  split: {', '.join(f'{count:,} {name}' for name, count in self.parts if count)} images")
        lines += [f"  {_count(self.groups, 'group')} that no split divides"] if self.groups else []
        for domain in self.domains[:SHOWN_DOMAINS]:
            lines.append(f"  {shown(domain.name)}: {_count(domain.images, 'image')}")
            if self.labelled:
                fewest = f"{domain.fewest:,} to " if domain.fewest < domain.most else ""
                lines[-1] += f", {fewest}{domain.most:,} of each class"
            if self.labelled and domain.classes < len(self.classes):
                lines[-1] += f", {domain.classes} of {len(self.classes)} classes"
            lines[-1] += ", held out" if domain.held_out else ""
        if len(self.domains) > SHOWN_DOMAINS:
            lines.append(f"  ... and {len(self.domains) - SHOWN_DOMAINS} more domains")
        lines.append(f"  classes: {_listed(self.classes)}")
        if self.held_out_classes:
            images = _count(self.held_out_class_images, "image")
            lines.append(f"  held-out classes, {images}: {_listed(self.held_out_classes)}")
        if self.unlabelled:
            lines.append(f"  without labels: {_count(self.unlabelled, 'image')}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "root": self.root,
            "images": self.images,
            "domains": [
                {"name": d.name, "images": d.images, "classes": d.classes, "held_out": d.held_out} for d in self.domains
            ],
            "classes": list(self.classes),
            "held_out_classes": list(self.held_out_classes),
            "unlabelled": self.unlabelled,
            "labelled": self.labelled,
            **({"columns": dict(self.columns)} if self.columns else {}),
            **({"layout": self.layout} if self.layout else {}),
            **({"split": dict(self.parts)} if self.parts else {}),
            **({"groups": self.groups} if self.groups else {}),
        }


def _parts(dataset: ImageDataset) -> tuple[tuple[str, int], ...]:
    if dataset.parts is None:
        return ()
    return tuple(zip(PARTS, np.bincount(dataset.parts, minlength=len(PARTS)).tolist(), strict=True))


def columns_line(columns: Sequence[tuple[str, str]]) -> str:
    """Return a line that states which columns of a table are used."""
    by_role = dict(columns)
    words = [f"{role}: column {shown(by_role[role])}" for role in ROLES if role in by_role]
    return ", ".join(words) + ("" if "domain" in by_role else "; no column of domains, so one domain")


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(map(shown, names[:SHOWN_CLASSES]))
    return text if len(names) <= SHOWN_CLASSES else f"{text} and {len(names) - SHOWN_CLASSES:,} more"
