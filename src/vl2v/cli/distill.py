"""`vl2v quote`, `vl2v distill` and `vl2v demo`. Heavy imports happen when a command runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli import common
from vl2v.cli.settings import with_settings
from vl2v.errors import ConfigError
from vl2v.nested import merge

ConfigOpt = Annotated[Path | None, typer.Option("--config", help="YAML file with settings; options take precedence.")]
SETTINGS = ("Data", "Teacher", "Student", "Money", "Method", "Training", "Machine")  # sections of the help
EXAMPLES = {
    "data.root": ("DATA", "photos"),
    "teacher.spec": ("--teacher", "--teacher open_clip:ViT-B-16/openai"),
    "student.spec": ("--student", "--student timm:resnet50.tv_in1k"),
}


@with_settings(*SETTINGS)
def quote(
    data: common.DataArg,
    budget: Annotated[
        str | None,
        typer.Option(help="Spending limit, for --when-short choose.", rich_help_panel="Money"),
    ] = None,
    ray: common.RayOpt = None,
    config: ConfigOpt = None,
    cache: common.CacheOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show what distilling would cost in queries, money and disk space. Nothing is spent."""
    from vl2v.api_quote import quote as ask
    from vl2v.cli.console import show

    _check_given(settings, config, "teacher.spec")
    result = ask(
        data,
        budget=budget,
        storage=common.storage_paths(cache, store),
        progress=common.make_progress(quiet, as_json),
        config=config,
        settings=settings,
        ray=ray,
    )
    show(result.to_dict() if as_json else result.table())


@with_settings(*SETTINGS)
def distill(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Images: a folder of classes, a table (.csv, .parquet, ...), hf:user/name, a dataset of the package "
            "datasets, WebDataset shards (.tar), or an export of Label Studio or CVAT. With --resume: their new path, "
            "if they have moved."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run, new or empty.")] = Path("runs/vl2v"),
    budget: Annotated[
        str | None,
        typer.Option(help="Spending limit; required if the teacher charges.", rich_help_panel="Money"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    new_site: common.NewSiteOpt = None,
    report: common.ReportOpt = True,
    ray: common.RayOpt = None,
    cpus_per_worker: common.CpusOpt = 1.0,
    gpus_per_worker: common.GpusOpt = 0.0,
    config: ConfigOpt = None,
    cache: common.CacheOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Buy embeddings, train and evaluate a student, and save it in OUT/student."""
    keep_freed_memory()
    from vl2v.api import distill as work
    from vl2v.cli.printing import run_json, run_text, show

    common.ensure_workers(ray, cpus_per_worker, gpus_per_worker)
    if new_site is not None:
        if not resume:
            raise ConfigError(
                "--new-site is for a run that vl2v repair made.",
                expected="--resume",
                found="a new run",
                next_step="omit --new-site; vl2v repair adapts a finished run to a new site",
            )
        settings = merge(settings, {"repair": {"images": new_site}})
    if not resume:
        _check_given(merge({"data": {"root": data}}, settings), config, *EXAMPLES)
    done = work(
        data,
        out=out,
        budget=budget,
        resume=resume,
        storage=common.storage_paths(cache, store, out if resume else None, present=False),
        progress=common.make_progress(quiet, as_json),
        config=config,
        settings=settings,
        report=report,
        ray=ray,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
    )
    if done is not None:
        show(run_json(done) if as_json else run_text(done))


@with_settings()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(help="Number of seeds; three take about three times as long.", min=1)] = 1,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train a student and two baselines on drawings, offline (extra: demo)."""
    keep_freed_memory()
    from vl2v.cli.printing import demo_json, demo_text, show
    from vl2v.demo.job import demo as work

    done = work(out, common.make_progress(quiet, as_json), settings=settings, seeds=seeds)
    show(demo_json(done) if as_json else demo_text(done))


def _check_given(settings: Mapping[str, Any], config: Path | None, *keys: str) -> None:
    """Check that settings without a default are given."""
    from vl2v.data.folder import read_mapping

    values = merge(read_mapping(config) if config else {}, settings)
    missing = [key for key in keys if not (values.get(key.split(".")[0]) or {}).get(key.split(".")[1])]
    if missing:
        flags, expected = zip(*(EXAMPLES[key] for key in missing), strict=True)
        verb = "is" if len(missing) == 1 else "are"
        offline = " ".join(f"{flag} offline:" for flag in flags if flag != "DATA")
        trial = f'; {offline} needs neither key nor download (pip install "vl2v[demo]")' if offline else ""
        raise ConfigError(
            f"{', '.join(flags)} {verb} missing.",
            expected=f"e.g. {' '.join(expected)}",
            found="nothing",
            next_step=f"add {'it' if len(missing) == 1 else 'them'}{trial}",
        )
