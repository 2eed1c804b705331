"""Find the columns of images, classes and domains: those that the user names, or columns with common names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vl2v.data.splits import part_of
from vl2v.data.tables.base import Broken, Table
from vl2v.errors import ConfigError
from vl2v_runtime.names import shown

COMMON = {
    "image": ("image", "path", "file", "filename", "filepath", "imagepath", "imagefile", "imagename", "img", "imgpath"),
    "label": ("label", "class", "species", "category", "labels", "classname", "labelname", "categoryname"),
    "domain": ("domain", "camera", "site", "source"),
}
FLAGS = {
    "image": "--image",
    "label": "--label",
    "domain": "--domain-column",
    "split": "--split",
    "group": "--group",
}
ROLES = tuple(FLAGS)
SPLITS = (  # common names of columns of splits, which are only used if the user names them
    "split", "splits", "splitname", "datasplit", "fold", "set", "dataset", "subset", "partition", "phase", "usage",
    "traintest", "trainvaltest", "trainorval",
)  # fmt: skip
SPLIT = "split"
NUMBERED = ("split", "fold")  # names that mean a split also with numbers as values
LOOKED_AT = 100  # rows whose values tell whether a column is a split
NONE = "none"  # in place of a column: a single domain
IMAGE_ONLY: Mapping[str, Any] = {"image": None, "domain": NONE, "classes": ("",)}  # settings that use no other column
MOST_LISTED = 50
MOST_SHOWN = 60  # characters of a name in a message


Used = tuple[tuple[str, str], ...]
"""Roles and names of the columns of a table that are used, in the order of `ROLES`."""


def find_columns(columns: Sequence[str], settings: Mapping[str, str | None], *, source: Path, labelled: bool) -> Used:
    """Return the columns that are used, at most one for each role.

    Args:
        settings: column names by role, as set by the user. Missing columns of images, labels and domains are recognised
            by common names. A domain of ``none`` or empty means a single domain; split and group have no default.
        source: path of the table, for the message.
        labelled: whether a column of classes is required.

    Raises:
        ConfigError: if columns are missing, ambiguous or used twice; it lists all of them.
    """
    settings = {role: None if name is None else str(name) for role, name in settings.items()}  # settings of Python
    names = _names_by_role(columns, settings, labelled)
    faults, by_role, repeated = [], {}, set()
    for role, name in names.items():
        candidates = [column for column in columns if column] if name is None else [name]
        column = name if name is not None else _common(role, candidates)
        by_role[role] = column or ""
        if not column:
            if role == "image" or (role == "label" and labelled):
                faults.append(f"no column is recognised as the {role}: name it with {FLAGS[role]}")
        elif column not in columns:
            near = difflib.get_close_matches(column, columns, 1, 0.5)
            faults.append(f"{FLAGS[role]} {_short(column)}: no such column" + (f"; {_short(near[0])}?" if near else ""))
        elif list(columns).count(column) > 1:
            faults.append(f"{FLAGS[role]}: two columns are called {_short(column)}")
            repeated.add(_short(column))
    faults += _used_twice(by_role)
    if settings.get("label") and not labelled:
        faults.append("--label has no effect with --classes, since no image then has a label; drop one of them")
    if faults:
        alone = not labelled and settings.get("domain") == NONE
        raise _unclear_columns(source, columns, faults, repeated, labelled=labelled, alone=alone)
    return tuple((role, by_role[role]) for role in ROLES if by_role[role])


def split_hint(table: Table, used: Used) -> str:
    """Return a hint at a column that is probably a split, but is not used; empty if there is none.

    Args:
        table: the table, of whose rows the first `LOOKED_AT` are read if a column has such a name.
        used: roles and names of the columns that are used; see `find_columns`.
    """
    by_role = dict(used)
    if "split" in by_role:
        return ""
    for column in table.columns:
        name = _plain(column)
        if name not in SPLITS or column in by_role.values():
            continue
        rows = (cells for _, cells in islice(table.rows([by_role["image"], column]), LOOKED_AT))
        values = {str(cells[1]).strip() for cells in rows if not isinstance(cells, Broken) and cells[1] is not None}
        values.discard("")
        if values and all(part_of(value) is not None for value in values):
            return f"the column {shown(column)} is not used: name it with --split to use its split"
        if name in NUMBERED and values and all(value.removesuffix(".0").isdecimal() for value in values):
            wanted = "--split takes a column of train, validation and test"
            return f"the column {shown(column)} is not used, since it has numbers: {wanted}"
    return ""


def _names_by_role(columns: Sequence[str], settings: Mapping[str, str | None], labelled: bool) -> dict[str, str | None]:
    """Return the column names that the user set by role; None for a column to recognise, empty for none."""
    names = {role: settings.get(role) for role in ("image", "label", "domain")}
    names |= {"label": settings.get("label") if labelled else ""}
    names |= {role: settings.get(role) or "" for role in ("split", "group")}
    for role in ("domain", "split", "group"):
        if (name := names[role]) is not None and name.casefold() == NONE and name not in columns:
            names[role] = ""
    stripped = {column.strip(): column for column in reversed(columns)}
    return {
        role: stripped.get(name.strip(), name) if name and name not in columns else name for role, name in names.items()
    }


def _used_twice(columns: Mapping[str, str]) -> Iterator[str]:
    uses: dict[str, list[str]] = {}
    for role, column in columns.items():
        uses.setdefault(column, []).append(FLAGS[role])
    for column, flags in sorted(uses.items()):
        if column and len(flags) > 1:
            yield f"the column {_short(column)} is used for two things: {' and '.join(flags)}"


def _unclear_columns(
    source: Path,
    columns: Sequence[str],
    faults: Sequence[str],
    repeated: Collection[str],
    *,
    labelled: bool,
    alone: bool,
) -> ConfigError:
    """Return the error for a table with these faults.

    Args:
        repeated: names that several columns have.
        labelled: whether a column of classes is required.
        alone: whether only the column of images is used.
    """
    flags = [flag for role, flag in FLAGS.items() if labelled or role != "label"]
    names = ", ".join(_short(column) or "''" for column in columns[:MOST_LISTED])
    step = f"name {'it with --image' if alone else 'columns with ' + ', '.join(flags)}"
    if repeated:
        step = f"rename one of the columns called {' and of those called '.join(sorted(repeated))}, or {step}"
    needed = "columns for image and label" if labelled else "a column for image"
    return ConfigError(
        f"Columns of {shown(source)} are missing or ambiguous.",
        expected="a column of the images' paths" if alone else f"{needed}, and one for domain if there are several",
        found="; ".join(faults),
        next_step=f"{step}; there are: {names or 'none'}",
    )


def _short(column: str) -> str:
    """Shorten a name for a message."""
    return shown(column if len(column) <= MOST_SHOWN else f"{column[:MOST_SHOWN]}...")


def _common(role: str, columns: Sequence[str]) -> str:
    spelt = {_plain(column): column for column in reversed(columns)}
    return next((spelt[name] for name in COMMON[role] if name in spelt), "")


def _plain(column: str) -> str:
    """Return the letters and digits of a name, without regard to case."""
    return "".join(c for c in column.casefold() if c.isalnum())
