"""Format numbers for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from vl2v_runtime.names import shortened as shortened

NONE = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share such as 0.891 as ``89.1%``; a dash for None and NaN."""
    return NONE if share is None or math.isnan(share) else f"{100 * share:.{digits}f}%"


def money(amount: Decimal | float, currency: str) -> str:
    """Return an amount with its currency: two decimals, or as many as a small amount needs to show two digits."""
    value = Decimal(amount)
    decimals = 2 if value == 0 or abs(value) >= 1 else max(2, 1 - value.adjusted())
    return f"{value:,.{decimals}f} {currency}"


def exact(amount: Decimal) -> str:
    """Return an amount of money in plain digits without rounding, and without zeros after the second decimal."""
    units, point, decimals = f"{amount:f}".partition(".")
    return f"{units}{point}{decimals[:2]}{decimals[2:].rstrip('0')}"


def count(number: float) -> str:
    """Return a number rounded to an integer, with commas between thousands."""
    return f"{number:,.0f}"


def size(count: float) -> str:
    """Return a number of bytes in B, kB, MB, GB or TB, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float, *, rounded: bool = False) -> str:
    """Return a time in s, min, h or days.

    Args:
        rounded: round seconds and minutes to integers of at least 1, for an estimate.
    """
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{max(1, round(value))} {name}" if rounded and unit < 3600 else f"{value:,.1f} {name}"
    return f"{seconds / 86_400:,.1f} days"


def listed(names: Sequence[str]) -> str:
    """Join names: ``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
