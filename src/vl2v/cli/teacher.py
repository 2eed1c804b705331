"""`vl2v teacher ...` and `vl2v ledger`: check a teacher, list purchases."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.cli import common
from vl2v.cli.settings import COLUMNS, with_settings
from vl2v.formatting import exact
from vl2v.schema.inputs import PRICES
from vl2v.terminal import say

if TYPE_CHECKING:
    from vl2v.commands.check import Check


@with_settings(*PRICES, "student.spec", "student.size", "student.fit", *COLUMNS)
def check(
    teacher: Annotated[str, typer.Argument(help="A teacher, in the format of vl2v distill --teacher.")],
    data: Annotated[
        str | None, typer.Option(help="Labelled images, as for vl2v distill (default: images of plain colours).")
    ] = None,
    budget: common.BudgetOpt = None,
    images: Annotated[int | None, typer.Option(**common.within("Number of images to query (default: 24).", 2))] = None,
    cache: common.CacheOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Check a teacher on a few images: shared space, determinism, accuracy, and the cost of the whole job."""
    from vl2v.cli.console import show
    from vl2v.commands.check import check_teacher

    result = check_teacher(
        teacher,
        data,
        budget=common.money(budget),
        images=images,
        storage=common.storage_paths(cache, store),
        progress=common.make_progress(quiet, as_json),
        settings=settings,
    )
    show(check_json(result) if as_json else check_text(result))
    if not (result.one_space and result.deterministic):
        raise typer.Exit(4)


def check_json(result: Check) -> dict[str, Any]:
    """A check as plain values; money as text, exact."""

    return {
        "teacher": result.card.identity,
        "revision": result.card.revision,
        "dimension": result.card.dimension,
        "images": result.images,
        "classes": result.classes,
        "accuracy": result.accuracy,
        "probability_by_guessing": result.luck,
        "one_space": result.one_space,
        "cosine_of_two_answers": result.cosine,
        "deterministic": result.deterministic,
        "image_queries": result.queries[0],
        "text_queries": result.queries[1],
        "spent": exact(result.spent),
        "currency": result.card.price.currency,
        "note": result.note,
        "advice": result.advice.to_dict() if result.advice else None,
        "job": result.job.to_dict() if result.job else None,
    }


def check_text(result: Check) -> str:
    """A check for people, a line for each thing that was proved or was not."""
    card, verdict = result.card, {True: "yes", False: "NO"}
    accuracy = f"{result.accuracy:.0%} of {result.images} images correct, chance is {1 / result.classes:.0%}"
    one_space = verdict[result.one_space]
    if result.job is None and not result.one_space:  # a teacher may know no colours
        one_space = "not shown"
        accuracy += "; these are plain colours: check the teacher on labelled images with --data"
    lines = [
        f"{card.identity}, revision {card.revision}",
        f"dimension       {card.dimension} for images and texts; all numbers finite",
        f"one space       {one_space}: {accuracy}",
        f"deterministic   {verdict[result.deterministic]}: cosine {result.cosine:.6f} of two embeddings of one image",
        f"this check      {result.queries[0]} image and {result.queries[1]} text queries,"
        f" {exact(result.spent)} {card.price.currency}",
    ]
    if result.job is not None:
        job = result.job
        queries = f"{job.image_queries:,} more image and {job.text_queries:,} more text queries"
        lines.append(f"the whole job   at most {exact(job.cost)} {card.price.currency} for {queries}")
    if result.advice is not None:
        lines.append(result.advice.line)
    if result.note:
        lines.append(f"note            {result.note}")
    return "\n".join(lines)


def ledger(
    run: Annotated[Path | None, typer.Argument(help="Only purchases of this run.")] = None,
    store: common.StoreOpt = None,
    as_json: common.Json = False,
) -> None:
    """List all purchases."""
    from vl2v.cli.printing import ledger_json, ledger_table, show
    from vl2v.errors import RunError
    from vl2v.reports.spending import entries_of
    from vl2v.runs.folder import RunFolder
    from vl2v.teacher.purchase.ledger import Ledger, LedgerEntry
    from vl2v.teacher.purchase.store import EmbeddingStore

    storage, note = common.storage_paths(None, store, run), ""
    if store is None and not storage.store.exists():  # nothing was bought yet
        entries: list[LedgerEntry] = []
        if run is not None:
            note = f"There is no ledger at {storage.store}. If the run was made elsewhere, its ledger is there: --store"
    else:
        with closing(EmbeddingStore.reading(storage.store)) as embedding_store:
            store_ledger = Ledger(embedding_store)
            entries, note = (
                (store_ledger.entries(), "") if run is None else entries_of(run, store_ledger, storage.store)
            )
    if run is not None and not entries and not RunFolder(run).config_file.is_file():
        raise RunError(
            f"{run} contains no run, and the ledger has no purchase under this path.",
            expected="the folder of a run, or the path at which it was started",
            found="a folder without config.yaml" if run.is_dir() else "no such folder",
            next_step="check the path; without a run, vl2v ledger lists all purchases",
        )
    if note:
        say(f"note: {note}")
    show(ledger_json(entries) if as_json else ledger_table(entries))


COMMANDS = common.group("teacher", "Check a teacher before buying from it.", check=check)
