"""`vl2v benchmark`: run a grid with DomainBed's protocol, and show its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli.benchmark_grid import candidates, grid_settings, job_count, make_grid, named_data, split_list
from vl2v.cli.common import (
    CacheOpt,
    Json,
    Quiet,
    StoreOpt,
    ensure_effect,
    group,
    make_progress,
    money,
    need_packages,
    storage_paths,
    within,
)
from vl2v.cli.settings import COLUMNS, with_settings
from vl2v.errors import ConfigError
from vl2v.progress import Recorder

if TYPE_CHECKING:
    from vl2v.benchmark.tables import Table

SAVED = ("saved", "kept")  # kept is the old name, which works for one release
Outs = Annotated[list[Path], typer.Argument(help="Folder of a benchmark; several are combined.")]


def _grid(text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel="Grid")


def _jobs(text: str, *flags: str, low: float | None = None) -> Any:
    return typer.Option(*flags, **({"help": text} if low is None else within(text, low)), rich_help_panel="Jobs")


@with_settings("teacher.spec", "teacher.accept", "student.spec", *COLUMNS)
def run(
    out: Annotated[Path, typer.Option(help="Folder of the benchmark, new or to be continued.")],
    data: Annotated[
        str | None, typer.Option(help="Labelled images, as for vl2v distill, or a benchmark name such as PACS.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that contains the benchmarks, such as ROOT/PACS.")] = None,
    methods: Annotated[str, _grid("Methods of vl2v distill, and sd (VL2V-SD); comma-separated.")] = "adip,erm,kd",
    variants: Annotated[Path | None, _grid("YAML file of further rows, LABEL: {title: .., settings: {..}}.")] = None,
    targets: Annotated[str, _grid("Domains to hold out, or all.")] = "all",
    seeds: Annotated[str, _grid("Number of seeds, or a list such as 0,1,2.")] = "3",
    vary: Annotated[list[str] | None, _grid("Candidate values of a setting: KEY=V1,V2; repeatable.")] = None,
    tune: Annotated[str, _grid("Select candidates for each-seed, or once with the first-seed.")] = "each-seed",
    crossed: Annotated[bool, _grid("Also hold out each source domain (--select lodo).", "--crossed")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings of vl2v distill for all jobs.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Maximum amount that all jobs together may spend.", rich_help_panel="Money")
    ] = None,
    ray: Annotated[str | None, _jobs("Run on Ray: local, auto, host:port or ray://host:port.")] = None,
    cpus_per_job: Annotated[float, _jobs("With --ray: cores per job.", low=0)] = 1.0,
    gpus_per_job: Annotated[float, _jobs("With --ray: GPUs per job.", low=0)] = 0.0,
    jobs: Annotated[str, _jobs("Without --ray: number of parallel jobs, or auto.")] = "auto",
    plan: Annotated[bool, _jobs("Show the number of jobs, hours and cost, and exit.", "--plan")] = False,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train and evaluate all methods on all targets with all seeds. Finished jobs are not repeated."""
    keep_freed_memory()
    from vl2v.benchmark.sweep import Sweep
    from vl2v.cli.console import show
    from vl2v.planning.models import ensure_known
    from vl2v.sources.named import with_sources

    shares = {"--cpus-per-job": cpus_per_job != 1, "--gpus-per-job": gpus_per_job != 0}
    ensure_effect("--ray", ray is not None, shares)
    if ray is not None:
        need_packages("--ray", "ray", "ray")
    progress = Recorder(make_progress(quiet, as_json))  # the jobs have the same warnings
    storage, at_once = storage_paths(cache, store), job_count(jobs)
    base = grid_settings(config, settings, named_data(data, root, progress) if data else None)
    ensure_known(None, base)
    base = with_sources(base, storage, progress)
    selection = {"vary": candidates(vary or ()), "tune": tune, "crossed": crossed}
    sweep = Sweep(make_grid(base, methods, variants, targets, seeds, **selection), out, storage, money(budget))
    sweep.open(progress, write=not plan)
    if plan:
        from vl2v.benchmark.plan import make_plan

        grid_plan = make_plan(sweep, progress)
        show(grid_plan.to_dict() if as_json else grid_plan.table())
        return
    if ray is None:
        from vl2v.benchmark.local_jobs import jobs_at_once, resolve_threads, run_locally

        resolve_threads(sweep, count := at_once or jobs_at_once(sweep))
        done = run_locally(sweep, count, progress)
    else:
        from vl2v.benchmark.on_ray import run_on_ray

        done = run_on_ray(sweep, ray, progress, cpus_per_job=cpus_per_job, gpus_per_job=gpus_per_job)
    show(done.to_dict(out) if as_json else done.text(out))
    if done.failed:
        raise typer.Exit(1)


def table(
    out: Outs,
    output: Annotated[str, typer.Option("--format", help="text, md, latex, csv, html or json.")] = "text",
    select: Annotated[str, typer.Option(help="Model selection: validation, last, lodo or oracle.")] = "validation",
    weights: Annotated[
        str, typer.Option(help="Weights to show: saved, swad, best, last or wise-ft 0.5; comma-separated.")
    ] = "saved",
    against: Annotated[str | None, typer.Option(help="Baseline method to test the other methods against.")] = None,
    pairs: Annotated[str, typer.Option(help="Unit of the test: pairs (of target and seed) or seeds.")] = "pairs",
    name: Annotated[str | None, typer.Option(help="Name of the benchmark (default: name of the data folder).")] = None,
    published: Annotated[bool, typer.Option("--published", help="Add published results, marked as such.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Show the finished part of an unfinished grid.")] = False,
    to: Annotated[Path | None, typer.Option("--output", help="Output file (default: standard output).")] = None,
) -> None:
    """Show the results with standard errors over seeds."""
    from vl2v.benchmark.render import render
    from vl2v.benchmark.render.text import renderable
    from vl2v.cli.console import show

    ensure_effect("--against", against is not None, {"--pairs": pairs != "pairs"})
    results = _tabulated(
        out, name, select, split_list(weights), partial, against=against, unit=pairs, published=published
    )
    if to is not None:
        to.write_text(render(results, output), encoding="utf-8")
    elif output == "text":
        show(renderable(results))
    else:
        print(render(results, output), end="")


def curve(
    out: Outs,
    to: Annotated[Path, typer.Option("--output", help="Output file: .svg, .png, .pdf or .csv.")],
    x: Annotated[str, typer.Option(help="Horizontal axis: queries (of one run) or labels (per class).")] = "queries",
    levels: Annotated[str, typer.Option(help="Methods to draw as horizontal lines; comma-separated.")] = "zero-shot",
    select: Annotated[str, typer.Option(help="As in vl2v benchmark table.")] = "validation",
    weights: Annotated[str, typer.Option(help="As in vl2v benchmark table, one value.")] = "saved",
    name: Annotated[str | None, typer.Option(help="As in vl2v benchmark table.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="As in vl2v benchmark table.")] = False,
) -> None:
    """Plot accuracy on unseen domains against queries or labels."""
    from vl2v.benchmark.curves import Curve, line_names

    settings = _variant_settings(out)
    axes = {"queries": None, "labels": _labels(settings)}
    if x not in axes:
        expected = " or ".join(axes)
        raise ConfigError("Unknown axis.", expected=expected, found=x, next_step="correct --x")
    found = Curve.of(
        _tabulated(out, name, select, [weights], partial),
        "labels per class and domain" if x == "labels" else "image queries of one run",
        x=axes[x],
        line=line_names(settings),
        references=split_list(levels),
    )
    if to.suffix == ".csv":
        to.write_text(found.csv(), encoding="utf-8")
    else:
        found.save(to)


def _tabulated(
    out: Sequence[Path], name: str | None, select: str, weights: Sequence[str], partial: bool, **more: Any
) -> Table:
    from vl2v.benchmark.protocol import load_grid
    from vl2v.benchmark.results import nothing_finished, once
    from vl2v.benchmark.sweep import records_in
    from vl2v.benchmark.tabulate import tabulate
    from vl2v.data.tables.imported import name_of

    grids = [load_grid(folder)[0] for folder in out]
    records = list(once(record for folder in out for record in records_in(folder)))
    if not records:
        raise nothing_finished(out)
    return tabulate(
        records,
        name or name_of(Path(grids[0].settings["data"]["root"])),
        rule=select,
        weights=[None if choice in SAVED else choice for choice in weights],
        partial=partial,
        order=[label for grid in grids for label in grid.variants],
        **more,
    )


def _variant_settings(out: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the settings of each row by its label."""
    from vl2v.benchmark.protocol import load_grid
    from vl2v.config import merge

    grids = [load_grid(folder)[0] for folder in out]
    return {label: merge(grid.settings, v.settings) for grid in grids for label, v in grid.variants.items()}


def _labels(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    counts = {label: s["data"].get("labels_per_class") for label, s in settings.items()}
    return {label: float(count) for label, count in counts.items() if count is not None}


COMMANDS = group(
    "benchmark",
    "Compare methods with DomainBed's protocol: each domain held out in turn, several seeds.",
    run=run,
    table=table,
    curve=curve,
)
