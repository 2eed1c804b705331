"""The plan and the result of a grid, as text and JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from vl2v.benchmark.plan import Plan
from vl2v.benchmark.sweep import Progressed


def plan_json(plan: Plan) -> dict[str, Any]:
    """Convert a plan to JSON; amounts of money are exact strings."""
    values = asdict(plan) | {"cost": f"{plan.cost:f}"}
    return values | {"hours_from": values.pop("basis")}


def plan_text(plan: Plan) -> RenderableType:
    """Format a plan for a terminal."""
    table = Table(title="plan of the benchmark; nothing is spent", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("jobs", f"{plan.jobs:,}")
    table.add_row("of them finished", f"{plan.finished:,}")
    table.add_row("image queries to buy", f"{plan.image_queries:,}")
    table.add_row("text queries to buy", f"{plan.text_queries:,}")
    table.add_row(f"cost, {plan.currency}", f"{plan.cost:f}")
    table.add_row("hours, one job at a time", f"{plan.hours:.1f}")
    return Group(table, f"hours: from {plan.basis}")


def sweep_json(done: Progressed, out: Path) -> dict[str, Any]:
    """Convert the result of a grid to JSON."""
    return {"benchmark": str(out), "finished": [job.name for job in done.finished], "failed": done.failed}


def sweep_text(done: Progressed, out: Path) -> RenderableType:
    """Format the result of a grid for a terminal."""
    lines = [f"{len(done.finished)} jobs finished in {out}"]
    lines += [f"failed: {name}\n    {reason}" for name, reason in done.failed.items()]
    return Group(*lines, f"its table:  vl2v benchmark table {out}")
