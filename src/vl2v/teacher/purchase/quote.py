"""A quote: what has to be bought, and its cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vl2v.formatting import exact, size
from vl2v.teacher.base import Price

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vl2v.data.contents import Contents
    from vl2v.training_time import TrainingTime


@dataclass(frozen=True)
class Quote:
    """The queries that a command has to buy, and their cost.

    Attributes:
        images: number of distinct image queries by purpose (``training``, ``unlabelled``, ``evaluation``).
        images_known: number of these that are already stored and therefore free.
        texts: number of distinct text queries.
        texts_known: number of these that are already stored.
        disk_bytes: disk space in bytes of the store, the pixel cache and the state of the run, by name.
        note: a remark about the price, or empty.
        contents: domains, classes and numbers of images; None without a folder.
        training: training time on this machine; None without a student.
        advice: whether the teacher is worth its price, according to its stored embeddings; empty if they are too few.
        choice: the images that a smaller budget buys, in words; empty if all are bought.
        reserved: part of the cost that is in flight, and was reserved when it was sent.
    """

    teacher: str
    images: dict[str, int]
    images_known: dict[str, int]
    texts: int
    texts_known: int
    price: Price
    disk_bytes: dict[str, int]
    note: str = ""
    contents: Contents | None = None
    training: TrainingTime | None = None
    advice: str = ""
    choice: str = ""
    reserved: Decimal = Decimal(0)

    @property
    def image_queries(self) -> int:
        """Number of image queries to buy."""
        return sum(self.images.values()) - sum(self.images_known.values())

    @property
    def text_queries(self) -> int:
        """Number of text queries to buy."""
        return self.texts - self.texts_known

    @property
    def cost(self) -> Decimal:
        """Cost in `price.currency`."""
        return self.price.of(self.image_queries, self.text_queries)

    @property
    def due(self) -> Decimal:
        """Cost in `price.currency` that has not been reserved."""
        return self.cost - self.reserved

    @property
    def summary(self) -> str:
        """Number of queries in words, for messages."""
        return f"{self.image_queries:,} image and {self.text_queries:,} text queries"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; money as text, exact."""
        return {
            "teacher": self.teacher,
            "images": {p: {"needed": n, "known": self.images_known[p]} for p, n in self.images.items()},
            "texts": {"needed": self.texts, "known": self.texts_known},
            "image_queries": self.image_queries,
            "text_queries": self.text_queries,
            "cost": exact(self.cost),
            "currency": self.price.currency,
            "disk_bytes": self.disk_bytes,
            "note": self.note,
            "training": asdict(self.training) if self.training else None,
            "advice": self.advice or None,
            "choice": self.choice or None,
            **({"reserved": exact(self.reserved)} if self.reserved else {}),
        } | ({"data": self.contents.to_dict()} if self.contents else {})

    def table(self) -> RenderableType:
        """Return a table for a terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"quote of {self.teacher}; nothing is spent")
        for name in ("what", "needed", "known", "to buy", f"cost, {self.price.currency}"):
            table.add_column(name, justify="left" if name == "what" else "right")
        for purpose, needed in self.images.items():
            stored = self.images_known[purpose]
            cost = self.price.of(images=needed - stored)
            table.add_row(f"images, {purpose}", f"{needed:,}", f"{stored:,}", f"{needed - stored:,}", exact(cost))
        cost = self.price.of(texts=self.text_queries)
        table.add_row("prompts", f"{self.texts:,}", f"{self.texts_known:,}", f"{self.text_queries:,}", exact(cost))
        table.add_section()
        table.add_row("all", "", "", f"{self.image_queries + self.text_queries:,}", exact(self.cost), style="bold")
        disk = ", ".join(f"{name} {size(count)}" for name, count in self.disk_bytes.items())
        understood = [Text("\n".join(self.contents.lines()))] if self.contents else []
        waiting = f"{exact(self.reserved)} {self.price.currency} of the cost is reserved already for queries in flight"
        further = [Text(waiting)] if self.reserved else []
        further += [Text(f"training on this machine: {self.training}")] if self.training else []
        further += [Text(f"note: {self.note}")] if self.note else []
        further += [Text(self.choice)] if self.choice else []
        further += [Text(self.advice)] if self.advice else []
        return Group(*understood, table, f"disk, at most: {disk}", *further)

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        from vl2v.notebook import html_of

        return html_of(self.table())
