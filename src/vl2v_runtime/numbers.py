"""Numbers out of a file that somebody else may have written: of their type, and in their range."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any, what: str, least: float, greatest: float) -> float:
    """A finite number.

    Args:
        value: what stands in the file.
        what: its name, for the message.
        least: the least that it may be.
        greatest: the greatest that it may be.

    Raises:
        ValueError: if it is no number, or out of this range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what[:60]} that is not a number: {str(value)[:40]!r}")
    if not least <= value <= greatest:
        raise ValueError(f"{what[:60]} {value:.6g}, expected {least:g} to {greatest:g}")
    return float(value)


def whole(value: Any, what: str, least: int, greatest: int) -> int:
    """A whole number; arguments as of `number`.

    Raises:
        ValueError: if it is none, or out of this range.
    """
    if isinstance(value, float):
        raise ValueError(f"{what[:60]} that is not an integer: {value:.6g}")
    return int(number(value, what, least, greatest))


def numbers(values: Any, what: str, least: float, greatest: float, count: int | None = None) -> list[float]:
    """A list of finite numbers; further arguments as of `number`.

    Args:
        count: how many there have to be; None takes any number.

    Raises:
        ValueError: if it is no such list.
    """
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        raise ValueError(f"{what[:60]} that is not a list of {count if count is not None else 'numbers'}")
    return [number(value, what, least, greatest) for value in values]
