"""The new images of a repair: tables with their content, by which they are found again in a new location."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.commands.repair_checks import read_repair
from vl2v.config import RunConfig
from vl2v.data.caches import open_index
from vl2v.data.folder import unlabelled_images
from vl2v.data.images import ImageDataset
from vl2v.data.pixels import Digests
from vl2v.data.tables.columns import IMAGE_ONLY
from vl2v.errors import RunError
from vl2v.json_files import write_json
from vl2v.locations import StoragePaths
from vl2v.progress import Progress
from vl2v.runs.folder import CHECKED, REPAIR, TRAINED, RunFolder
from vl2v.sources.named import imported
from vl2v.writing import atomic_write
from vl2v_runtime.names import quoted, shown
from vl2v_runtime.regular import read_text

IMAGE, SHA256 = "image", "sha256"  # columns of `TRAINED` and `CHECKED`
DIGEST = re.compile("[0-9a-f]{64}")
MAX_BYTES = 2**27  # of a table
NEW_SITE = "state their new location: --new-site PATH, a folder or a table"
Rows = list[tuple[Path, str]]
"""Absolute path and SHA-256 of each image, in hexadecimal; the latter is empty in runs of earlier versions."""


def write_images(folder: Path, name: str, part: ImageDataset) -> None:
    """Write the table of the trained or of the checked images, `TRAINED` or `CHECKED`, to the folder of a run."""
    rows = zip(part.paths, part.digests, strict=True)
    _write(folder / name, (((part.root / path).absolute(), bytes(digest).hex()) for path, digest in rows))


def ensure_new_images(config: RunConfig, run: Path, step: str = NEW_SITE) -> None:
    """Check that the new images of a repaired run exist.

    Args:
        step: how the user states their new location, for the message.

    Raises:
        RunError: names the first one that is missing.
    """
    if config.repair is None:
        return
    rows = [row for table in _tables(config.repair.images).values() for row in _read(table)]
    if missing := [path for path, _ in rows if not path.exists()]:
        raise RunError(
            f"The images of the new site, with which {shown(run)} was repaired, have moved.",
            expected=f"the file {shown(missing[0])}",
            found="no such file" + f", as for {len(missing) - 1:,} others" * (len(missing) > 1),
            next_step=step,
        )


def new_digests(config: RunConfig) -> Digests:
    """Return the recorded SHA-256 [N, 32] of the new images with which a repaired run was trained; else [0, 32]."""
    rows = [] if config.repair is None else _read(config.repair.images)
    return np.frombuffer(bytes.fromhex("".join(digest for _, digest in rows)), np.uint8).reshape(-1, 32)


def at_new_location(
    folder: RunFolder, config: RunConfig, location: str | Path, storage: StoragePaths, progress: Progress
) -> RunConfig:
    """Record where the new images of a repair are now in the tables of a run, and return its settings.

    The tables are in the folder of the run afterwards, also if they were in that of an earlier run.

    Args:
        location: folder, table or dataset with at least these images, under any names.

    Raises:
        RunError: if the run was not repaired, or an image is missing in `location`.
        DataError: if the images in `location` cannot be read.
    """
    if config.repair is None:
        raise RunError(
            f"{shown(folder.path)} has no images of a new site.",
            expected="a run that vl2v repair made",
            found="--new-site",
            next_step="omit --new-site; to adapt the run to a new site, use vl2v repair",
        )
    _relocate(folder.path, config.repair.images, location, storage, progress)
    images = (folder.path / TRAINED).resolve()
    return config.model_copy(update={"repair": config.repair.model_copy(update={"images": images})})


def follow_images(out: Path, record: dict[str, Any], storage: StoragePaths, progress: Progress) -> None:
    """Record the location that a repeated repair states if the images of the begun repair have moved there.

    Args:
        out: folder of the repair, which may be missing.
        record: content of `REPAIR` for the repeated repair.
    """
    if not (out / REPAIR).is_file() or not (out / TRAINED).is_file():
        return
    recorded = read_repair(out)
    if recorded.get("images") == record["images"] or all(path.exists() for path, _ in _read(out / TRAINED)):
        return
    with suppress(RunError):  # other images: a repair of another site, which is refused later
        _relocate(out, out / TRAINED, record["images"], storage, progress)
        write_json(out / REPAIR, recorded | {"images": record["images"]})


def _relocate(run: Path, trained: Path, location: str | Path, storage: StoragePaths, progress: Progress) -> None:
    """Write the tables of a run with the paths of the same images in another location."""
    tables = {name: _read(table) for name, table in _tables(trained).items()}
    wanted = [digest for rows in tables.values() for _, digest in rows]
    if not all(wanted):
        raise RunError(
            f"{shown(trained)} does not record the content of its images.",
            expected=f"a column {SHA256}",
            found="a table without this column",
            next_step="put the images back in their place, or correct the paths in the table",
        )
    table = imported(location, IMAGE_ONLY, storage, progress) or Path(location)
    with open_index(storage.cache) as index:
        part = unlabelled_images(table, index=index, skip_bad=True, progress=progress)
    images = {
        bytes(digest).hex(): (part.root / path).absolute()
        for path, digest in zip(part.paths, part.digests, strict=True)
    }
    known = sum(digest in images for digest in wanted)
    if known < len(wanted):
        raise RunError(
            f"{shown(str(location))} lacks images of the new site, with which {shown(run)} was repaired.",
            expected=f"the same {len(wanted):,} images, under any names",
            found=f"{known:,} of them among {len(images):,} images",
            next_step="name the folder or table that these images are in now",
        )
    for name, rows in tables.items():
        _write(run / name, [(images[digest], digest) for _, digest in rows])


def _tables(trained: Path) -> dict[str, Path]:
    """Return the tables of trained and, if it exists, of checked images, by their names in the folder of a run."""
    checked = trained.with_name(CHECKED)
    return {TRAINED: trained} | ({CHECKED: checked} if checked.is_file() else {})


def _read(table: Path) -> Rows:
    """Read a table of new images.

    Raises:
        RunError: if it is missing or damaged.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(table, MAX_BYTES), newline="")))
        found = [(Path(row[IMAGE]), row.get(SHA256) or "") for row in rows]
        if wrong := [digest for _, digest in found if digest and not DIGEST.fullmatch(digest)]:
            raise ValueError(f"{shown(wrong[0][:70])} in the column {SHA256}")
        if not found:
            raise ValueError("no images")
        return found
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(
            f"{shown(table)} cannot be used.",
            expected=f"the table of new images that vl2v repair wrote, with a column {IMAGE}",
            found=" ".join(str(error).split())[:200] or type(error).__name__,
            next_step=f"copy it again from its source, next to {quoted(REPAIR)}",
        ) from error


def _write(table: Path, rows: Iterable[tuple[Path, str]]) -> None:
    with atomic_write(table) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(IMAGE, SHA256), *((str(path), digest) for path, digest in rows)])
