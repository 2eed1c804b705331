from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from tiny_dataset import DOMAINS, PRICE, Bench

from vl2v.benchmark.protocol import Grid, make_variants
from vl2v.benchmark.sweep import Sweep
from vl2v.config import merge
from vl2v.locations import StoragePaths
from vl2v.progress import Silent


def tiny_grid(bench: Bench, methods: tuple[str, ...] = ("adip", "erm"), steps: int = 8, **more: Any) -> Grid:
    settings: dict[str, Any] = {
        "data": {"root": str(bench.data)},
        "teacher": {"spec": bench.teacher},
        "student": {"spec": bench.student, "size": 32},
        "align": {"learning_rate": 1e-3},
        "distill": {"steps": steps, "learning_rate": 1e-3, "checkpoint_every": 4},
        "batch_per_domain": 4,
        "device": "cpu",
        "workers": 0,
    }
    variants = make_variants(methods, {})
    for name, variant in variants.items():
        if name == "adip":
            variants[name] = variant.model_copy(update={"settings": variant.settings | {"align": {"steps": 8}}})
    fields: dict[str, Any] = {"seeds": (0,), "targets": tuple(DOMAINS)} | more
    fields["settings"] = merge(settings, fields.pop("change", {}))
    return Grid(variants=variants, domains=tuple(DOMAINS), **fields)


def opened(bench: Bench, out: Path, grid: Grid | None = None, budget: str | None = None) -> Sweep:
    """Return a grid with a separate cache and store."""
    storage = StoragePaths(out.parent / f"{out.name}-cache", out.parent / f"{out.name}-store" / "vectors.sqlite")
    sweep = Sweep(grid or tiny_grid(bench), out, storage, None if budget is None else Decimal(budget))
    sweep.open(Silent())
    return sweep


PRICED = {"teacher": {"price_per_1000_images": PRICE, "price_per_1000_texts": PRICE}}
