"""The evidence on PACS: grids by DomainBed's protocol, and from their folders the tables of docs/results/pacs.md.

Uses the maintainers' folder: the client's 6,992 images only, and the vendor's own vectors. A grid may be stopped at any
time and called again, also several times at once; finished jobs are not done again, nor those that were saved in
`benchmarks/results/pacs-*.jsonl` on another machine.

    python benchmarks/pacs_grids.py run main --out runs/pacs     # or offline, ablations, beyond, views, fresh, labels
    python benchmarks/pacs_grids.py tables --out runs/pacs       # rebuilds every table and curve that has finished jobs
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import ROOT, circumstances, keep, need_shared, write_table
from pacs_dataset import DOMAINS, SimulatedVendor, link_images, student, vectors_file
from pacs_jobs import restore_jobs, save_jobs
from vl2v.allocator import keep_freed_memory
from vl2v.benchmark.local_jobs import run_locally
from vl2v.benchmark.protocol import Grid, Variant, make_variants
from vl2v.benchmark.render import render
from vl2v.benchmark.results import ZERO_SHOT, once
from vl2v.benchmark.sweep import Sweep, records_in
from vl2v.benchmark.tabulate import tabulate
from vl2v.cli.benchmark import curve
from vl2v.cli.console import LogLines
from vl2v.config import merge
from vl2v.errors import ConfigError
from vl2v.locations import StoragePaths

PAGE = ROOT / "docs" / "results" / "pacs.md"
SETTINGS: dict[str, Any] = {
    "student": {"size": 128},
    # Every method trains its last layer on cached features first. In so few steps, a random layer would harm the
    # baselines most.
    "align": {"steps": 1001, "learning_rate": 1e-3},
    "distill": {"steps": 201, "warmup_steps": 20, "checkpoint_every": 50},
    "batch_per_domain": 8,
}
SEEDS = (0, 1, 2)
RATES = (1e-4, 5e-4)
MORE_WEIGHTS = {"measure": {"weights": ["last"], "wise_ft": [0.5]}}  # evaluated in addition to the saved ones
SHORT: dict[str, Any] = {
    "student": {"size": 96},
    "distill": {"steps": 150, "learning_rate": 3e-4, "checkpoint_every": 25, "augment": {"style": 0.5}},
}
RECIPE_VIEWS = {
    f"recipe-views-{k}": Variant(title=title, settings={"method": "vl2v", "teacher": {"views": k}})
    for k, title in ((1, "recipe, 1 view"), ("fresh", "recipe, fresh views"))
}
RATE = {"distill": {"learning_rate": 1e-4}}  # of the one-seed grids, the same for all their rows


@dataclass(frozen=True)
class Plan:
    """A grid without paths.

    Attributes:
        methods: by name.
        variants: further rows.
        vendor: ``file`` (embeddings of the simulated vendor), ``asked`` (the vendor itself), or ``offline``.
        prompts: chosen by the source domains' zero-shot accuracy; for every target the three others agree.
        seeds: the seeds.
        rates: candidates of the learning rate, or none.
        settings: over `SETTINGS`.
        beside: another grid, and its methods that are also in the table.
        against: the baseline of the differences.
    """

    methods: tuple[str, ...] = ()
    variants: dict[str, Variant] = field(default_factory=dict)
    vendor: str = "file"
    prompts: str = "name"
    seeds: tuple[int, ...] = (0,)
    rates: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=lambda: RATE)
    beside: tuple[str, tuple[str, ...]] = ("main", ())
    against: str | None = "adip"


def adip(title: str, **settings: Any) -> Variant:
    """VL2V-ADiP with different settings."""
    return Variant(title=title, settings={"method": "adip", **settings})


def few_labels(count: int) -> dict[str, Variant]:
    """The three methods with few labels per class and domain; those with a teacher also use the other images."""
    few = {"labels_per_class": count}
    more = {"data": few | {"rest_unlabelled": True}, "batch_per_domain": 4, "unlabelled_per_batch": 12}
    return {
        f"erm-{count}": Variant(title=f"ERM, {count} labels", settings={"method": "erm", "data": few}),
        f"kd-{count}": Variant(title=f"naive distillation, {count} labels", settings={"method": "kd", **more}),
        f"adip-{count}": adip(f"VL2V-ADiP, {count} labels", **more),
    }


VIEWS = {f"views-{k}": adip("1 view" if k == 1 else f"{k} views", teacher={"views": k}) for k in (1, 2, 4, 8, "fresh")}
ENDS = ("views-1", "views-fresh")
GRIDS = {
    "main": Plan(("erm", "kd", "adip"), seeds=SEEDS, rates=RATES, settings=MORE_WEIGHTS, against="kd"),
    # ERM asks no teacher: its runs are the main grid's.
    "offline": Plan(
        ("kd", "adip"),
        vendor="offline",
        prompts="photo",
        seeds=SEEDS,
        rates=RATES,
        settings=MORE_WEIGHTS,
        beside=("main", ("erm",)),
        against="kd",
    ),
    "ablations": Plan(
        ("adip", "no-align", "feature", "text"),
        {f"lambda-{w}": adip(f"lambda {w}", image_weight=w) for w in (0.1, 0.9)},
    ),
    "beyond": Plan(
        ("adip",),
        {
            "ridge": adip("Align in closed form", align={"solver": "ridge"}),
            "ema": adip("Align averaged (EMA)", align={"average": "ema"}),
            "swad": adip("Align averaged (SWAD)", align={"average": "swad"}),
            "schedule": adip("lambda 0.5 to 0.9", image_weight_end=0.9),
            "prompts": adip("two prompts averaged", teacher={"prompts": ["{}", "a photo of a {}"]}),
        },
    ),
    "views": Plan(variants=VIEWS, vendor="asked", against="views-1"),
    "fresh": Plan(
        variants={name: VIEWS[name] for name in ENDS},
        vendor="asked",
        seeds=(1,),
        beside=("views", (ZERO_SHOT, *ENDS)),
        against="views-1",
    ),
    # Short runs of the recipe, for the benchmarks that start from a trained student.
    "students": Plan(("vl2v",), seeds=SEEDS, settings=SHORT, against=None),
    "recipe-views": Plan(
        variants=RECIPE_VIEWS,
        vendor="asked",
        settings=merge(SHORT, {"distill": {"steps": 300, "freeze": 0.03}}),
        against="recipe-views-1",
    ),
    "labels": Plan(
        variants=few_labels(4)
        | few_labels(16)
        | {"adip-16-alone": adip("VL2V-ADiP, 16 labels, no further images", data={"labels_per_class": 16})}
        | few_labels(64),
        against=None,
    ),
}


def make_sweep(name: str, out: Path, folder: Path) -> Sweep:
    """A grid in its place."""
    plan, dataset = GRIDS[name], out / "task"
    root = link_images(folder, dataset)
    spec = {"offline": "offline:", "asked": "simulated:"}.get(plan.vendor) or f"file:{vectors_file(folder, dataset)}"
    paths = {
        "data": {"root": str(root)},
        "teacher": {"spec": spec, "prompts": plan.prompts},
        "student": {"spec": student(folder)},
    }
    grid = Grid(
        settings=merge(merge(SETTINGS, plan.settings), paths),
        variants=make_variants(plan.methods, plan.variants),
        domains=DOMAINS,
        targets=DOMAINS,
        seeds=plan.seeds,
        vary={"distill.learning_rate": plan.rates} if plan.rates else {},
        tune="first-seed",
    )
    storage = StoragePaths(out / "cache", out / "vectors.sqlite")
    vendor = SimulatedVendor(folder) if plan.vendor == "asked" else None
    return Sweep(grid, out / name, storage, teacher=vendor)


def write_tables(out: Path) -> None:
    """Rebuild the page's tables between their marks, and save them as CSV."""
    for name in GRIDS:
        if not (out / name / "origin.json").exists():
            continue
        plan = GRIDS[name]
        records, (other, methods) = records_in(out / name), plan.beside
        if not records:
            continue
        save_jobs(name, out)
        if methods:
            records += [r for r in records_in(out / other) if r.method in methods]
        weights = (None, "last", "wise-ft 0.5") if "measure" in plan.settings else (None,)
        order = [*methods, *plan.methods, *plan.variants]
        against = plan.against if any(r.method == plan.against for r in records) else None
        table = tabulate(list(once(records)), "PACS", weights=weights, against=against, partial=True, order=order)
        # the page explains the columns once
        write_table(PAGE, name, [line for line in render(table, "md").splitlines() if line.startswith("|")])
        (ROOT / "benchmarks" / "results" / f"pacs-{name}.csv").write_text(render(table, "csv"), encoding="utf-8")


def draw_curves(out: Path) -> None:
    """Redraw the page's pictures from the grids that have finished rows; say so of the others."""
    for name, x in (("views", "queries"), ("labels", "labels")):
        try:
            curve([out / name], ROOT / "docs" / "images" / f"pacs-{name}.svg", x=x, name="PACS", partial=True)
        except ConfigError as error:
            print(f"the curve of {name} stays as it was: {error}")


def main() -> None:
    """Run a grid to its end, or rebuild the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("grid", nargs="?", choices=tuple(GRIDS), default="main")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    if a.what == "tables":
        write_tables(a.out)
        draw_curves(a.out)
        return
    keep_freed_memory()
    folder = need_shared()
    restore_jobs(a.grid, a.out)
    sweep, progress = make_sweep(a.grid, a.out, folder), LogLines()
    sweep.open(progress)
    done = run_locally(sweep, 1, progress)
    seeds = list(sweep.grid.seeds)
    keep(
        f"pacs-{a.grid}", {"finished": len(done.finished), "failed": done.failed, "circumstances": circumstances(seeds)}
    )


if __name__ == "__main__":
    main()
