"""The names of classes without labels, and classes that are held out: neither trained on nor validated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vl2v.data.images import ImageDataset, spaced, spelling
from vl2v.errors import ConfigError, DataError
from vl2v.hints import did_you_mean, some_of
from vl2v.nested import names_of
from vl2v_runtime.metadata import MAX_NAME
from vl2v_runtime.names import shown
from vl2v_runtime.regular import read_text

STEP = "list two names or more: --classes cat,dog, or a text file with one name per line"
MOST_BYTES = 2**22  # of a file of names
MARKUP = re.compile(r"[-*]\s|[\[{\"']")  # beginning of a line of a list in YAML, Markdown or JSON
COMMENT = "#"  # beginning of a line that is ignored, as in a file of prompt templates


def class_names(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Read a list of class names.

    Args:
        classes: names separated by commas, such as ``cat,dog``; the path of a text file in UTF-8 with one name per line
            (empty lines and lines that begin with # are ignored); or the names themselves.

    Returns:
        At least two names in the given order, with underscores and runs of spaces as one space.

    Raises:
        ConfigError: if the file cannot be read, a name cannot be displayed or is given twice in any spelling, or there
            are fewer than two names.
    """
    if isinstance(classes, str | Path):
        text = str(classes).strip()
        entries = _of_file(Path(text)) if _is_path(text) else [(name, "--classes") for name in text.split(",")]
    else:
        entries = [(name, "the classes") for name in names_of(classes)]
    names: dict[str, tuple[str, str]] = {}
    for raw_name, where in entries:
        if not raw_name.strip():
            continue  # after a final comma, or from an empty line
        name = checked_name(raw_name, where)
        if (key := spelling(name)) in names:
            found = " and ".join(f"{other} ({source})" for other, source in (names[key], (name, where)))
            step = "keep one of them; case, spaces, underscores and hyphens are ignored"
            raise ConfigError("A class is given twice.", expected="different names", found=found, next_step=step)
        names[key] = name, where
    found_names = tuple(name for name, _ in names.values())
    if len(found_names) < 2:
        found = ", ".join(found_names) or "none"
        raise ConfigError("Too few classes are given.", expected="two or more", found=found, next_step=STEP)
    return found_names


def checked_name(raw_name: str, where: str = "") -> str:
    """Return the name of a class as students use it.

    Args:
        raw_name: any text.
        where: position of the text, for the message.

    Raises:
        ConfigError: if it is empty, too long, only punctuation, or cannot be displayed.
    """
    name = spaced(raw_name).strip()
    location = f" ({where})" if where else ""
    if len(name) > MAX_NAME:
        raise ConfigError(
            f"The name of a class is too long{location}.",
            expected=f"at most {MAX_NAME:,} characters",
            found=f"{len(name):,} characters: {shown(name[:60])}...",
            next_step="write a short name",
        )
    punctuation = name.isascii() and not any(map(str.isalnum, name))
    if not spelling(name) or not name.isprintable() or punctuation:
        raise ConfigError(
            f"A class needs a name{location}.",
            expected="letters, e.g. zebra",
            found=repr(raw_name)[:100],
            next_step="write the name without control characters, or leave it out",
        )
    return name


def _is_path(text: str) -> bool:
    """Whether a text is the path of a file: the file exists, or the text looks like a path."""
    try:
        if Path(text).exists() and text:
            return True
    except (OSError, ValueError):  # the list is too long for a path
        return False
    return "," not in text and (Path(text).suffix.lower() in (".txt", ".csv", ".text", ".lst", ".yaml") or "/" in text)


def _of_file(path: Path) -> list[tuple[str, str]]:
    """Return the names in a file, and the position of each."""
    problem = f"{shown(path)} contains no class names."
    expected = "a text file in UTF-8 with one name per line"
    try:
        text = read_text(path, MOST_BYTES)
        if "\0" in text:
            raise UnicodeDecodeError("utf-8", b"\0", 0, 1, "not a text file of names, or UTF-16")
    except OSError as error:
        found = error.strerror or str(error)
        raise ConfigError(problem, expected=expected, found=found, next_step=STEP) from error
    except UnicodeDecodeError as error:
        found, step = f"other bytes ({error.reason})", "save the file as UTF-8"
        raise ConfigError(problem, expected=expected, found=found, next_step=step) from error
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    lines = [(i, line) for i, line in lines if line and not line.startswith(COMMENT)]
    for i, line in lines:
        if MARKUP.match(line):
            raise ConfigError(
                f"{shown(path)}, line {i} looks like YAML or JSON.",
                expected="a plain name",
                found=line[:200],
                next_step="write the name alone, without list marks, quotes or brackets",
            )
        if "," in line:
            raise ConfigError(
                f"{shown(path)}, line {i} has a comma.",
                expected="one name per line",
                found=line[:200],
                next_step="put each name on its own line; put longer descriptions for the prompts into classes.yaml",
            )
    return [(line, f"{shown(path)}, line {i}") for i, line in lines]


def held_out_folders(names: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Return the class folders of held-out names, in any spelling, in the order of `folders`.

    Raises:
        ConfigError: if a name is unknown, or fewer than two classes are left to train on.
    """
    by_spelling = {spelling(folder): folder for folder in folders}
    step = "correct data.held_out_classes (--held-out-class)"
    if unknown := [name for name in names if spelling(name) not in by_spelling]:
        classes = [spaced(folder) for folder in by_spelling.values()]
        step += did_you_mean(unknown[0], classes)
        found = ", ".join(unknown)
        raise ConfigError("Unknown class.", expected=f"one of {some_of(classes)}", found=found, next_step=step)
    held_out = {by_spelling[spelling(name)] for name in names}
    if held_out and len(folders) - len(held_out) < 2:
        raise ConfigError(
            "Too few classes are left for training.",
            expected=f"at least two of {', '.join(map(spaced, folders))}",
            found=f"{len(held_out)} of {len(folders)} held out",
            next_step=step,
        )
    return tuple(folder for folder in folders if folder in held_out)


def part_classes(dataset: ImageDataset, names: Sequence[str]) -> tuple[ImageDataset, ImageDataset | None]:
    """Separate a dataset into the classes that are trained on and those that are held out.

    Args:
        names: of the held-out classes. A name that the dataset does not have is ignored. Without names, nothing is
            separated.

    Returns:
        Two datasets over the same domains, each with its own classes and labels from 0. The second is None if no
        class is held out.

    Raises:
        DataError: if a domain has no image of the other classes.
    """
    spellings = {spelling(name) for name in names}
    held_out = [folder for folder in dataset.folders if spelling(folder) in spellings]
    if not held_out:
        return dataset, None
    training = only_classes(dataset, [folder for folder in dataset.folders if folder not in held_out])
    for domain in training.domains:
        if not len(training.rows_of(domain)):
            raise DataError(
                f"The domain {domain} only has images of held-out classes.",
                expected=f"images of {', '.join(training.names)}",
                found=", ".join(map(spaced, held_out)),
                next_step="add images, remove the domain, or hold out other classes",
            )
    return training, only_classes(dataset, held_out)


def only_classes(dataset: ImageDataset, folders: Sequence[str]) -> ImageDataset:
    """Return the images of some classes, in the same order, with labels from 0 in the order of `folders`."""
    indices = [dataset.folders.index(folder) for folder in folders]
    rows = np.flatnonzero(np.isin(dataset.labels, indices))
    renumbered = np.full(len(dataset.folders), -1, np.int64)
    renumbered[indices] = np.arange(len(indices))
    subset = dataset.take(rows)
    return replace(
        subset,
        labels=renumbered[subset.labels],
        folders=tuple(folders),
        phrases=tuple(dataset.phrases[index] for index in indices),
    )
