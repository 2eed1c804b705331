"""Comparison of methods: means over seeds with standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from vl2v.benchmark.statistics import Spread
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, Evaluation
from vl2v.method.registry import METHODS

ROLES = (IN_DOMAIN, OUT_OF_DOMAIN)
ZERO_SHOT = "zero-shot teacher"
OURS = "vl2v"


@dataclass(frozen=True)
class Comparison:
    """Accuracy of every method by role, over seeds.

    Attributes:
        rows: mean and standard error by title of the method and role.
    """

    rows: Mapping[str, Mapping[str, Spread]]
    seeds: int

    @classmethod
    def of(cls, by_method: Mapping[str, Sequence[Evaluation]]) -> Comparison:
        """Create a comparison from the evaluations of every method, one per seed, in the same order of seeds."""

        def spread(evaluations: Sequence[Evaluation], column: str) -> dict[str, Spread]:
            values = {role: [e.mean(role, column) for e in evaluations] for role in ROLES}
            return {role: Spread.of([v for v in values[role] if v is not None]) for role in ROLES}

        first = next(iter(by_method.values()))
        rows = {ZERO_SHOT: spread(first, "zero_shot")}
        rows |= {METHODS[name].title: spread(evaluations, "student") for name, evaluations in by_method.items()}
        return cls(rows, len(first))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, accuracies in [0, 1]."""
        return {
            "seeds": self.seeds,
            "accuracy": {
                title: {role: {"mean": s.mean, "standard_error": s.error} for role, s in roles.items()}
                for title, roles in self.rows.items()
            },
        }

    def verdict(self) -> str:
        """Summarise the out-of-domain result in one sentence."""
        ours = self.rows[METHODS[OURS].title][OUT_OF_DOMAIN]
        parts = []
        for title, roles in self.rows.items():
            if title in (METHODS[OURS].title, ZERO_SHOT):
                continue
            baseline = roles[OUT_OF_DOMAIN]
            error = math.hypot(ours.error, baseline.error)
            spread = "" if math.isnan(error) else f" ± {100 * error:.1f}"
            parts.append(f"{100 * (ours.mean - baseline.mean):+.1f}{spread} points against {title}")
        return f"{METHODS[OURS].title} on the unseen style: {', '.join(parts)}."

    def table(self) -> RenderableType:
        """Render a table for the terminal, with accuracies in percent."""
        several = f"mean ± standard error of {self.seeds} seeds"
        table = Table(title=f"top-1 accuracy, percent: {several if self.seeds > 1 else 'one seed'}")
        for name in ("method", *ROLES):
            table.add_column(name, justify="left" if name == "method" else "right")
        for title, roles in self.rows.items():
            style = "bold" if title == METHODS[OURS].title else ""
            table.add_row(title, *(str(roles[role]) for role in ROLES), style=style, end_section=title == ZERO_SHOT)
        return Group(table, self.verdict())
