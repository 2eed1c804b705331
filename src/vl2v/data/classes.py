"""Hold out whole classes: their images are used neither for training nor for validation."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vl2v.data.images import Task, spaced, spelling
from vl2v.errors import ConfigError, DataError


def held_out_folders(names: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """The class folders that held-out names mean, in any spelling, in the order of `folders`.

    Raises:
        ConfigError: if a name is no class, or fewer than two classes are left to train on.
    """
    known = {spelling(folder): folder for folder in folders}
    step = "correct data.held_out_classes (--held-out-class)"
    if unknown := [name for name in names if spelling(name) not in known]:
        near = [n for name in unknown for n in difflib.get_close_matches(spelling(name), list(known))]
        expected = f"one of {', '.join(spaced(known[n]) for n in near or known)}"
        raise ConfigError("Unknown class.", expected=expected, found=", ".join(unknown), next_step=step)
    wanted = {known[spelling(name)] for name in names}
    if wanted and len(folders) - len(wanted) < 2:
        raise ConfigError(
            "Too few classes are left for training.",
            expected=f"at least two of {', '.join(map(spaced, folders))}",
            found=f"{len(wanted)} of {len(folders)} held out",
            next_step=step,
        )
    return tuple(folder for folder in folders if folder in wanted)


def part_classes(task: Task, names: Sequence[str]) -> tuple[Task, Task | None]:
    """Part a task into the classes that are trained on and those that are held out.

    Args:
        task: the scanned one.
        names: of the held-out classes; those that the task has not are passed over, and without any it is not parted.

    Returns:
        Two tasks over the same domains, each with its own classes and labels from 0; None for the second without one.

    Raises:
        DataError: if a domain has no image of the other classes.
    """
    wanted = {spelling(name) for name in names}
    held = [folder for folder in task.folders if spelling(folder) in wanted]
    if not held:
        return task, None
    seen = _only(task, [folder for folder in task.folders if folder not in held])
    for domain in seen.domains:
        if not len(seen.rows_of(domain)):
            raise DataError(
                f"The domain {domain} only has images of held-out classes.",
                expected=f"images of {', '.join(seen.names)}",
                found=", ".join(map(spaced, held)),
                next_step="add images, remove the domain, or hold out other classes",
            )
    return seen, _only(task, held)


def _only(task: Task, folders: Sequence[str]) -> Task:
    places = [task.folders.index(folder) for folder in folders]
    rows = np.flatnonzero(np.isin(task.labels, places))
    renumbered = np.full(len(task.folders), -1, np.int64)
    renumbered[places] = np.arange(len(places))
    return replace(
        task,
        paths=[task.paths[row] for row in rows],
        digests=task.digests[rows],
        labels=renumbered[task.labels[rows]],
        domain_of=task.domain_of[rows],
        parts=None if task.parts is None else task.parts[rows],
        groups=None if task.groups is None else task.groups[rows],
        folders=tuple(folders),
        phrases=tuple(task.phrases[place] for place in places),
    )
