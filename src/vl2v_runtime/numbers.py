"""Validate numbers in files from untrusted sources."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any, what: str, least: float, greatest: float) -> float:
    """Return a finite number in [least, greatest].

    Args:
        what: name of the value, for messages.
        least: smallest valid number.
        greatest: largest valid number.

    Raises:
        ValueError: if the value is not a number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what[:60]} that is not a number: {str(value)[:40]!r}")
    if not least <= value <= greatest:
        raise ValueError(f"{what[:60]} {value:.6g}, expected {least:g} to {greatest:g}")
    return float(value)


def whole(value: Any, what: str, least: int, greatest: int) -> int:
    """Return an integer in [least, greatest]. Arguments are those of `number`.

    Raises:
        ValueError: if the value is not an integer, or out of range.
    """
    if isinstance(value, float):
        raise ValueError(f"{what[:60]} that is not an integer: {value:.6g}")
    return int(number(value, what, least, greatest))


def numbers(values: Any, what: str, least: float, greatest: float, count: int | None = None) -> list[float]:
    """Return a list of finite numbers in [least, greatest].

    Args:
        what: see `number`.
        least: see `number`.
        greatest: see `number`.
        count: required length; None accepts any length.

    Raises:
        ValueError: if it is not such a list.
    """
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        raise ValueError(f"{what[:60]} that is not a list of {count if count is not None else 'numbers'}")
    return [number(value, what, least, greatest) for value in values]
