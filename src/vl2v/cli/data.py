"""`vl2v data ...`: benchmark datasets and example drawings. Heavy imports happen when a command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.cli.common import CacheOpt, DataArg, Json, Quiet, StoreOpt, group, make_progress, storage_paths, within
from vl2v.cli.settings import COLUMNS, with_settings
from vl2v.errors import ConfigError, DiskFullError, Interrupted
from vl2v.faults.other import network
from vl2v.faults.system import disk_full
from vl2v.formatting import size
from vl2v.terminal import say

if TYPE_CHECKING:
    from vl2v.commands.suspects import Suspects
    from vl2v.datasets.facts import Benchmark
    from vl2v.datasets.get import Report

SHOWN = 20  # differences and unreadable files listed in full

NameArg = Annotated[str, typer.Argument(help="PACS, VLCS, OfficeHome, TerraIncognita or DomainNet.")]


def get(
    name: NameArg,
    out: Annotated[Path | None, typer.Option(help="New or empty folder (default: in your user data folder).")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Source: official, hub, <owner>/<name>[@<revision>], a URL, a file or a folder."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the terms of the dataset without a prompt.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Download a benchmark as OUT/<domain>/<class>/<image>. Run the command again to resume."""
    from vl2v.cli.console import show
    from vl2v.datasets.get import get as work
    from vl2v.datasets.registry import default_folder, find
    from vl2v.datasets.sources import choose

    benchmark = find(name)
    folder = out if out is not None else default_folder(benchmark)
    selection = choose(benchmark, source)
    _say_terms(benchmark, selection.text, as_json=as_json)
    if selection.local is None and not yes:
        _ask(benchmark)
    with _plain_faults(benchmark, folder):
        manifest = work(benchmark, folder, selection, progress=make_progress(quiet, as_json))
    show({"folder": str(folder), **manifest} if as_json else _got(benchmark, folder, manifest))


def check(
    name: NameArg,
    folder: Annotated[Path, typer.Argument(help="Folder <domain>/<class>/<image> to verify.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Verify a downloaded benchmark: counts, names, readable files. The exit code is 3 if something is wrong."""
    from vl2v.cli.console import show
    from vl2v.datasets.get import check as work
    from vl2v.datasets.registry import find

    benchmark = find(name)
    report = work(benchmark, folder, progress=make_progress(quiet, as_json))
    show(_report_json(report) if as_json else _report_text(benchmark, folder, report))
    if not report.right:
        raise typer.Exit(3)


def list_(as_json: Json = False) -> None:
    """List the benchmarks: counts, size, source, licence."""
    from vl2v.cli.console import show
    from vl2v.datasets.facts import BENCHMARKS

    show([_entry(benchmark) for benchmark in BENCHMARKS] if as_json else _list_text(BENCHMARKS))


def draw(
    out: Annotated[Path, typer.Argument(help="New or empty folder.")],
    size: Annotated[int, typer.Option(**within("Width and height of every image in pixels.", 16, 1024))] = 160,
) -> None:
    """Draw the demo's images into OUT/<style>/<class>/: twelve classes in four styles, offline (extra: demo)."""
    from vl2v.cli.console import show
    from vl2v.data.folder import DomainFolder
    from vl2v.demo.drawings import draw as work

    drawn = DomainFolder(work(out, size))
    domains, classes = ", ".join(drawn.domains), ", ".join(drawn.folders)
    show(f"{len(drawn.paths):,} images in {out}\n  domains  {domains}\n  classes  {classes}")


@with_settings(
    *(*COLUMNS, "data.class_first", "data.held_out", "data.held_out_classes", "data.skip_bad", "data.drop"),
    *("data.allow_missing_classes", "data.layout_as_found"),
    *("teacher.spec", "teacher.prompts", "student.spec", "student.size", "student.fit"),
)
def suspects(
    data: DataArg,
    run: Annotated[Path | None, typer.Option(help="Take the settings, cache and store of this run.")] = None,
    out: Annotated[Path, typer.Option(help="CSV file to write; the page for review is next to it.")] = Path(
        "suspects.csv"
    ),
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """List labels that are probably wrong and images unlike any class, as CSV and HTML. Buys nothing."""
    from vl2v.api_quote import data_of
    from vl2v.cli.console import show
    from vl2v.commands.suspects import find_suspects
    from vl2v.nested import merge
    from vl2v.planning.prepare import known_columns, known_order
    from vl2v.runs.folder import RunFolder
    from vl2v.settings import make_config

    values = merge(settings, {"data": {"root": str(data)}})
    for key, flag in (("teacher", "--teacher"), ("student", "--student")):
        if run is None and not (values.get(key) or {}).get("spec"):
            raise ConfigError(
                f"{flag} is missing.", expected="a run (--run), or a teacher and a student", found="neither",
                next_step="vl2v data suspects DATA --run runs/first",
            )  # fmt: skip
    base = None if run is None else RunFolder(run).config()
    storage, progress = storage_paths(cache, store, run), make_progress(quiet, as_json)
    if base is not None:  # another table may have other columns, and a folder has none
        columns = known_columns(base.data.model_dump(mode="json"), str(data))
        base = base.model_copy(update={"data": base.data.model_copy(update=columns)})
    run_settings = {} if base is None else base.model_dump(mode="json")
    values["data"] |= data_of(str(data), None, merge(run_settings, values), storage, progress)
    if base is not None:
        values["data"].setdefault("class_first", known_order(run_settings["data"], values["data"]["root"], ()))
    result = find_suspects(make_config(base, values), out, storage, progress)
    show(result.to_dict() if as_json else _suspects_text(result))


def _suspects_text(result: Suspects) -> str:
    values = result.to_dict()
    labels, unlike = (
        f"{values[key]:,} {noun}{'' if values[key] == 1 else 's'}"
        for key, noun in (("labels", "label"), ("unlike", "image"))
    )
    lines = [
        f"{values['judged']:,} labelled images of the source domains: {labels} that both the teacher and a "
        f"cross-validated probe reject, {unlike} unlike any class",
        f"review:   {values['page']}",
        f"list:     {values['csv']}; correct its column drop",
        f"continue: vl2v distill ... --drop {values['csv']}",
    ]
    if result.unanswered:
        lines.insert(1, f"not checked: {result.unanswered:,} images without a stored embedding; nothing was bought")
    return "\n".join(lines)


def _say_terms(benchmark: Benchmark, source: str, *, as_json: bool) -> None:
    if as_json:
        event = {"event": "terms", "benchmark": benchmark.name, "licence": benchmark.licence, "source": source}
        say(json.dumps(event))
    else:
        say(f"{benchmark.name}: {benchmark.paper}\nterms:  {benchmark.licence}\nsource: {source}")


def _ask(benchmark: Benchmark) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"The terms of {benchmark.name} are not accepted.",
            expected="--yes, since there is no terminal to ask on",
            found="neither a terminal nor --yes",
            next_step="read the terms above, then run again with --yes",
        )
    if not typer.confirm(f"Download about {size(benchmark.download_bytes)} under these terms?", err=True):
        step = "run the command again to accept them, or choose another dataset"
        raise ConfigError(f"The terms of {benchmark.name} were not accepted; nothing was downloaded.", next_step=step)


@contextmanager
def _plain_faults(benchmark: Benchmark, folder: Path) -> Iterator[None]:
    """Convert errors of the disk and the network during a download."""
    again = "run the same command again: downloads resume"
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped; the downloaded parts are saved.", next_step=again) from error
    except OSError as error:
        if problem := network(error):
            raise problem from error
        if disk_full(error):
            raise DiskFullError(
                f"The disk is full; {benchmark.name} is not in place.",
                expected=f"room for the download, about {size(benchmark.download_bytes)}, and its images",
                found=f"no space left at {folder}",
                next_step=f"free some space, then {again}",
            ) from error
        raise ConfigError(
            f"{benchmark.name} cannot be put in {folder}.", expected="a folder that this user may read and write",
            found=str(error)[:200], next_step="correct the path or its permissions, or choose another --out",
        ) from error  # fmt: skip


def _got(benchmark: Benchmark, folder: Path, manifest: dict[str, Any]) -> str:
    domains = ", ".join(f"{domain} {count:,}" for domain, count in manifest["domains"].items())
    lines = [
        f"{benchmark.name} in {folder}: {manifest['images']:,} images ({domains})",
        *([f"release  {manifest['release']}"] if manifest["release"] else []),
        f"digest   {manifest['digest']}",
    ]
    return "\n".join(lines)


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "right": report.right,
        "classes": report.counts,
        "differences": list(report.differences),
        "release": report.release,
        "unreadable": [{"file": fault.where, "problem": fault.problem} for fault in report.unreadable],
        "digest": report.digest,
        "digest_noted": report.manifest_digest,
    }


def _report_text(benchmark: Benchmark, folder: Path, report: Report) -> str:
    lines = [f"{benchmark.name} in {folder}"]
    for domain in sorted({*benchmark.images, *report.counts}):
        counts = report.counts.get(domain, {})
        count = f"{sum(counts.values()):>7,} images of {benchmark.images.get(domain, 0):,}"
        lines.append(f"  {domain:<14} {count}, {len(counts)} classes of {benchmark.class_count}")
    bad = [f"{fault.where}: {fault.problem}" for fault in report.unreadable]
    for title, entries in (("different", list(report.differences)), ("unreadable", bad)):
        if entries:
            lines.append(f"{title}: {len(entries):,}")
            lines += [f"  {entry}" for entry in entries[:SHOWN]]
            lines += [f"  and {len(entries) - SHOWN:,} more"] if len(entries) > SHOWN else []
    if report.release:
        lines.append(f"release: {report.release}")
    if report.digest:
        since = {"": "no manifest to compare with", report.digest: "unchanged"}
        lines.append(
            f"digest {report.digest}: {since.get(report.manifest_digest, f'CHANGED, was {report.manifest_digest}')}"
        )
    lines.append("valid" if report.right else "NOT VALID")
    return "\n".join(lines)


def _entry(benchmark: Benchmark) -> dict[str, Any]:
    return {
        "name": benchmark.name,
        "paper": benchmark.paper,
        "domains": dict(benchmark.images),
        "classes": benchmark.class_count,
        "images": benchmark.total,
        "download_bytes": benchmark.download_bytes,
        "source": benchmark.source,
        "licence": benchmark.licence,
    }


def _list_text(benchmarks: tuple[Benchmark, ...]) -> str:
    lines = []
    for benchmark in benchmarks:
        counts = f"{benchmark.total:,} images, {benchmark.class_count} classes, {size(benchmark.download_bytes)}"
        domains = ", ".join(f"{domain} {count:,}" for domain, count in benchmark.images.items())
        lines += [f"{benchmark.name}: {counts}", f"  paper    {benchmark.paper}", f"  domains  {domains}"]
        lines += [f"  source   {benchmark.source}", f"  terms    {benchmark.licence}"]
    return "\n".join([*lines, "to download one: vl2v data get NAME --out DIR"])


COMMANDS = group(
    "data",
    "Download benchmarks, draw example images, and check the labels of your own data.",
    get=get,
    check=check,
    list=list_,
    draw=draw,
    suspects=suspects,
)
