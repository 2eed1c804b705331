"""The top of a run's report: title, summary and key figures."""

from __future__ import annotations

from pathlib import Path

from vl2v.data.tables.imported import name_of
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, ROLES, TEST
from vl2v.evaluation.reference import LABELS
from vl2v.formatting import count, listed, money, percent, shortened, size
from vl2v.method.registry import METHODS
from vl2v.reports.comparison import BATCHES, Comparison
from vl2v.reports.page import Tile
from vl2v.reports.source import Source
from vl2v.reports.spending import Spending

TILES = {IN_DOMAIN: "In-domain", TEST: "Test", OUT_OF_DOMAIN: "Held-out"}


def title_of(source: Source) -> str:
    """Return data, held-out domains and method."""
    held_out = listed(source.config.data.held_out)
    data = name_of(Path(source.config.data.root))
    return f"{data}{f' without {held_out}' if held_out else ''}: {METHODS[source.config.method].title}"


def backbone_of(source: Source) -> str:
    """Return the name of the student's architecture."""
    return str(source.card["backbone"]["name"])


def teacher_of(source: Source) -> str:
    """Return the identity of the teacher."""
    identity = source.provenance.get("teacher", {}).get("identity") or source.config.teacher.spec
    return shortened(str(identity), 60)


def lead_of(source: Source, costs: Spending, comparison: Comparison) -> str:
    """Summarise the run: the student, its accuracy compared with the teacher, and the cost."""
    text = f"{METHODS[source.config.method].title} trained a student"
    text += f" with {comparison.parameters / 1e6:,.1f} million parameters"
    text += f" ({backbone_of(source)}, {len(source.classes)} classes)"
    if METHODS[source.config.method].queries_teacher:
        text += f" from the teacher {teacher_of(source)}"
    where = {IN_DOMAIN: "the source domains' validation images", TEST: "their test images"}
    where[OUT_OF_DOMAIN] = "the held-out "
    held_out = source.config.data.held_out
    where[OUT_OF_DOMAIN] += f"domain{'s' if len(held_out) > 1 else ''} {listed(held_out)}"
    parts = []
    for role in ROLES:
        student, teacher = (source.evaluation.mean(role, column) for column in ("student", "zero_shot"))
        if student is not None:
            compared_with = "" if teacher is None else f" (teacher: {percent(teacher)})"
            parts.append(f"{percent(student)} on {where[role]}{compared_with}")
    measure = "accuracy" if source.reference is LABELS else "agreement with the teacher"
    return f"{text}; its {measure} is {listed(parts)}. {cost_sentence(costs)}"


def cost_sentence(costs: Spending) -> str:
    """Return a sentence about queries and cost."""
    needed = f"{count(costs.image_queries)} image and {count(costs.text_queries)} text queries"
    price = "free of charge" if not costs.cost else f"worth {money(costs.cost, costs.currency)}"
    if not costs.image_queries and not costs.text_queries:
        return "Training needed no queries."
    text = f"Training needed {needed}, {price}"
    return text + (f"; this run paid {money(costs.paid, costs.currency)}." if costs.lines and costs.paid else ".")


def tiles_of(source: Source, costs: Spending, comparison: Comparison) -> list[Tile]:
    """Return the key figures."""
    tiles = []
    for role in ROLES:
        student, teacher = (source.evaluation.mean(role, column) for column in ("student", "zero_shot"))
        if student is not None:
            name = f"{TILES[role]} {source.reference.key}"
            tiles.append(Tile(name, percent(student), _comparison_text(source, teacher)))
    amount = costs.paid if costs.lines else costs.cost
    free = "free of charge" if not amount else f"{count(costs.image_queries)} image queries"
    if amount:
        tiles.append(Tile("Paid" if costs.lines else "Cost", money(amount, costs.currency), free))
    else:
        tiles.append(Tile("Image queries", count(costs.image_queries), free))
    tiles.append(Tile("Student", f"{comparison.parameters / 1e6:,.1f} M", f"parameters, {size(comparison.bytes)}"))
    if comparison.speed:
        fastest = comparison.speed[BATCHES[-1]]
        tiles.append(Tile("Speed on this machine", f"{fastest:,.0f} /s", f"images, batches of {BATCHES[-1]}"))
    return tiles


def _comparison_text(source: Source, teacher: float | None) -> str:
    if source.reference is not LABELS:
        return "with the teacher"
    return "" if teacher is None else f"teacher {percent(teacher)}"
