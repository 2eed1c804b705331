"""Domains and classes of TerraIncognita from the annotations of Caltech Camera Traps.

The rules are those of DomainBed: four locations are the domains, an image belongs to every class that one of its
annotations names, and classes other than the ten are left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from vl2v.datasets.registry import Names
from vl2v.datasets.unpack import is_archive, members
from vl2v.errors import DataError

MAX_JSON = 2 << 30  # bytes
Labels = dict[str, list[tuple[str, str]]]
"""The (domain, class) pairs of an image, by its file name."""


def is_annotation(path: Path) -> bool:
    """Whether a file contains only annotations: a JSON file, or an archive whose name says so."""
    name = path.name.lower()
    return name.endswith(".json") or (is_archive(path) and ("json" in name or "annotation" in name))


def read_labels(sources: Iterable[Path], names: Names) -> Labels:
    """Read annotations in JSON files, archives and folders: (domain, class) pairs by file name.

    Raises:
        DataError: if a JSON file has another format.
    """
    labels: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for source in sources:
        if source.suffix.lower() == ".json":
            _collect(source, source.read_bytes(), names, labels)
        elif source.is_dir() or is_annotation(source):
            for member in members(source, max_file=MAX_JSON):
                if member.path.suffix.lower() == ".json":
                    _collect(source / member.path, member.read(), names, labels)
    return {file: sorted(pairs) for file, pairs in labels.items()}


def _collect(path: Path, content: bytes, names: Names, labels: defaultdict[str, set[tuple[str, str]]]) -> None:
    try:
        data = json.loads(content)
        categories = {entry["id"]: str(entry["name"]) for entry in data["categories"]}
        images = {entry["id"]: _place(entry, names) for entry in data["images"]}
        annotations = [(entry["image_id"], categories[entry["category_id"]]) for entry in data["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a COCO Camera Traps file.",
            expected="JSON with images (id, file_name, location), categories and annotations (image_id, category_id)",
            found=f"{type(error).__name__}: {error}"[:200],
            next_step="use the annotations from lila.science/datasets/caltech-camera-traps",
        ) from error
    for image, category in annotations:
        location = images.get(image)
        label = names.class_of(category)
        if location and label:
            labels[location[1]].add((location[0], label))


def _place(entry: dict[str, Any], names: Names) -> tuple[str, str] | None:
    domain = names.domain(f"location_{entry['location']}")
    return (domain, PurePosixPath(entry["file_name"]).name) if domain else None
