"""Domains and classes of TerraIncognita from the annotations of Caltech Camera Traps.

Rules of DomainBed: four locations are the domains; an image is put into every class that one of its annotations names;
classes other than the ten are left out.
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
Places = dict[str, list[tuple[str, str]]]
"""An image's file name to the (domain, class) places where it belongs."""


def is_annotation(path: Path) -> bool:
    """Whether a source is annotations alone: a JSON file, or an archive that is called so."""
    name = path.name.lower()
    return name.endswith(".json") or (is_archive(path) and ("json" in name or "annotation" in name))


def places(sources: Iterable[Path], names: Names) -> Places:
    """Where each image belongs, by the annotations in JSON files, archives and folders; empty if there are none.

    Raises:
        DataError: if a JSON file is not of the format.
    """
    found: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for source in sources:
        if source.suffix.lower() == ".json":
            _collect(source, source.read_bytes(), names, found)
        elif source.is_dir() or is_annotation(source):
            for member in members(source, max_file=MAX_JSON):
                if member.path.suffix.lower() == ".json":
                    _collect(source / member.path, member.read(), names, found)
    return {file: sorted(where) for file, where in found.items()}


def _collect(path: Path, content: bytes, names: Names, found: defaultdict[str, set[tuple[str, str]]]) -> None:
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
        place = images.get(image)
        label = names.class_of(category)
        if place and label:
            found[place[1]].add((place[0], label))


def _place(entry: dict[str, Any], names: Names) -> tuple[str, str] | None:
    domain = names.domain(f"location_{entry['location']}")
    return (domain, PurePosixPath(entry["file_name"]).name) if domain else None
