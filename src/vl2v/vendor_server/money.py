"""Money as integers: billionths of the currency unit, so that sums are exact in every database."""

from __future__ import annotations

from decimal import Decimal

from vl2v.errors import ConfigError

NANO = 1_000_000_000
MOST = 2**62  # well within a 64-bit integer


def to_nano(amount: Decimal | str, name: str) -> int:
    """Convert an amount of money to billionths, exactly.

    Args:
        amount: amount in the unit of the currency, e.g. dollars; at least 0.
        name: name of the amount, for the message.

    Raises:
        ConfigError: if the amount is not a number, negative, too large, or finer than a billionth.
    """
    try:
        scaled = Decimal(amount) * NANO
    except ArithmeticError:  # InvalidOperation for text, Overflow for 1e999999
        scaled = Decimal("NaN")
    if not scaled.is_finite() or not 0 <= scaled < MOST or scaled != int(scaled):
        raise ConfigError(
            f"{name} is not an amount of money.",
            expected="0 or more, at most 9 decimals (a price per 1000: at most 6)",
            found=str(amount)[:40],
            next_step="correct it",
        )
    return int(scaled)


def from_nano(nano: int) -> Decimal:
    """Convert billionths to the unit of the currency, exactly."""
    return Decimal(nano) / NANO


def written(nano: int) -> str:
    """Format an amount as decimal digits without trailing zeros, e.g. ``0.0006``, as in JSON responses."""
    return format(from_nano(nano).normalize(), "f")
