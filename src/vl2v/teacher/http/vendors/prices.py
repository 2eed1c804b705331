"""Where and when the prices of an adapter's table were read, and a remark once they are old."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

OLD = 180  # days after which a quote says when a price was read


@dataclass(frozen=True)
class PriceSource:
    """Origin of the prices of a table.

    Attributes:
        read: the day on which they were read.
        document: the document in which they were read.
        address: where the vendor publishes its current prices.
    """

    read: date
    document: str
    address: str

    def age_note(self, teacher: str, today: date) -> str:
        """Return one line about prices that are older than 180 days; empty for newer ones."""
        days = (today - self.read).days
        if days <= OLD:
            return ""
        return (
            f"the price of {teacher} was read on {self.read}, {days} days ago; compare it with {self.address},"
            " and state another one with --price-per-1000-images and --price-per-1000-texts"
        )
