"""Detect classes that are probably not names: numbers, dates, splits, missing values, several classes in a cell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal

from vl2v.data.layout import DATE
from vl2v.data.splits import part_of
from vl2v_runtime.names import shown

NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
AMOUNT = re.compile(rf"({NUMBER.pattern}(e[-+]?\d+)?|[-+]?inf|0x[0-9a-f]+) ?%?", re.IGNORECASE)
CLOCK = r"\d?\d:\d\d(:\d\d(\.\d+)?)?"
TIME = re.compile(rf"{DATE.pattern}([T ]{CLOCK})?|\d{{1,4}}(?P<mark>[./])\d\d?(?P=mark)\d{{1,4}}|{CLOCK}")
TRUTH = frozenset({"true", "false", "yes", "no", "on", "off"})
MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "nil", "-", "?"})
SEVERAL = re.compile(r"[,;|/]")
ACCEPT = "or accept them: --layout-as-found"
DESCRIBE = "say what each is in classes.yaml in the table's folder"


def doubtful(names: Sequence[str], described: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Iterate over problems and remedies of classes that a teacher probably cannot interpret.

    Args:
        names: all classes.
        described: those that `classes.yaml` describes.
    """
    plain = [name for name in names if name not in described]
    if plain and all(_is_value(name) for name in plain):
        kind = "numbers" if all(map(NUMBER.fullmatch, plain)) else "values"
        remedy = f"the teacher needs class names: take a column of names (--label), or {DESCRIBE}, {ACCEPT}"
        yield f"{kind} in place of names of classes, such as {_listed(plain)}", remedy
    if len(plain) > 1 and all(part_of(name) is not None for name in plain):
        yield (
            f"splits of one dataset, taken as classes: {_listed(plain)}",
            f"take a column of names (--label), {ACCEPT}",
        )
    if missing := [name for name in plain if name.casefold() in MISSING]:
        yield (
            f"probably missing values, taken as a class: {_listed(missing)}",
            f"remove the rows, or {DESCRIBE}, {ACCEPT}",
        )
    for same in equal_numbers(names):
        yield f"two spellings of one number: {_listed(same)}", f"use one spelling in all rows, {ACCEPT}"
    spellings = {name.casefold() for name in names}
    several = [name for name in plain if len(parts := SEVERAL.split(name)) > 1 and _are_in(parts, spellings)]
    if several:
        yield f"several classes in one cell: {_listed(several)}", f"give each image one class, {ACCEPT}"


def equal_numbers(names: Sequence[str]) -> list[list[str]]:
    """Return the names that spell one number in several ways, such as 1 and 1.0."""
    equal: dict[Decimal, list[str]] = defaultdict(list)
    for name in filter(NUMBER.fullmatch, names):
        equal[Decimal(name.replace(",", "."))].append(name)
    return [same for same in equal.values() if len(same) > 1]


def _is_value(name: str) -> bool:
    return bool(AMOUNT.fullmatch(name) or TIME.fullmatch(name)) or name.casefold() in TRUTH


def _are_in(parts: Sequence[str], spellings: set[str]) -> bool:
    return all(part.strip().casefold() in spellings for part in parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:5]))
