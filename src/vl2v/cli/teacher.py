"""`vl2v teacher ...` and `vl2v ledger`: check a teacher, list purchases."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.cli.common import (
    BudgetOpt,
    CacheOpt,
    Json,
    Quiet,
    StoreOpt,
    group,
    make_progress,
    money,
    storage_paths,
    within,
)
from vl2v.cli.settings import COLUMNS, with_settings
from vl2v.terminal import say

if TYPE_CHECKING:
    from vl2v.commands.check import Check


@with_settings("Money", "Student", *COLUMNS, without=("when_short", "teacher.batch_api"))
def check(
    teacher: Annotated[str, typer.Argument(help="A teacher, in the format of vl2v distill --teacher.")],
    data: Annotated[
        str | None, typer.Option(help="Labelled images, as for vl2v distill (default: images of plain colours).")
    ] = None,
    budget: BudgetOpt = None,
    images: Annotated[int | None, typer.Option(**within("Number of images to query (default: 24).", 2))] = None,
    cache: CacheOpt = None,
    store: StoreOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Check a teacher on a few images: shared space, determinism, accuracy, and the cost of the whole job."""
    from vl2v.cli.show import show
    from vl2v.commands.check import check_teacher

    found = check_teacher(
        teacher,
        data,
        budget=money(budget),
        images=images,
        storage=storage_paths(cache, store),
        progress=make_progress(quiet, as_json),
        settings=settings,
    )
    show(check_json(found) if as_json else check_text(found))
    if not (found.one_space and found.deterministic):
        raise typer.Exit(4)


def check_json(found: Check) -> dict[str, Any]:
    """A check as plain values; money as text, exact."""

    return {
        "teacher": found.card.identity,
        "revision": found.card.revision,
        "dimension": found.card.dimension,
        "images": found.images,
        "classes": found.classes,
        "accuracy": found.accuracy,
        "probability_by_guessing": found.luck,
        "one_space": found.one_space,
        "cosine_of_two_answers": found.cosine,
        "deterministic": found.deterministic,
        "image_queries": found.queries[0],
        "text_queries": found.queries[1],
        "spent": f"{found.spent:f}",
        "currency": found.card.price.currency,
        "note": found.note,
        "advice": found.advice.to_dict() if found.advice else None,
        "job": found.job.to_dict() if found.job else None,
    }


def check_text(found: Check) -> str:
    """A check for people, a line for each thing that was proved or was not."""
    card, verdict = found.card, {True: "yes", False: "NO"}
    accuracy = f"{found.accuracy:.0%} of {found.images} images correct, chance is {1 / found.classes:.0%}"
    one_space = verdict[found.one_space]
    if found.job is None and not found.one_space:  # a teacher may know no colours
        one_space = "not shown"
        accuracy += "; these are plain colours: check the teacher on labelled images with --data"
    lines = [
        f"{card.identity}, revision {card.revision}",
        f"dimension       {card.dimension} for images and texts; all numbers finite",
        f"one space       {one_space}: {accuracy}",
        f"deterministic   {verdict[found.deterministic]}: cosine {found.cosine:.6f} of two embeddings of one image",
        f"this check      {found.queries[0]} image and {found.queries[1]} text queries,"
        f" {found.spent:f} {card.price.currency}",
    ]
    if found.job is not None:
        job = found.job
        queries = f"{job.image_queries:,} more image and {job.text_queries:,} more text queries"
        lines.append(f"the whole job   at most {job.cost:f} {card.price.currency} for {queries}")
    if found.advice is not None:
        lines.append(found.advice.line)
    if found.note:
        lines.append(f"note            {found.note}")
    return "\n".join(lines)


def ledger(
    run: Annotated[Path | None, typer.Argument(help="Only purchases of this run.")] = None,
    store: StoreOpt = None,
    as_json: Json = False,
) -> None:
    """List all purchases."""
    from vl2v.cli.printing import ledger_json, ledger_table, show
    from vl2v.errors import RunError
    from vl2v.reports.spending import entries_of
    from vl2v.runs.folder import RunFolder
    from vl2v.teacher.purchase.ledger import Ledger, LedgerEntry
    from vl2v.teacher.purchase.store import EmbeddingStore

    storage, note = storage_paths(None, store, run), ""
    if store is None and not storage.store.exists():  # nothing was bought yet
        entries: list[LedgerEntry] = []
        if run is not None:
            note = f"There is no ledger at {storage.store}. If the run was made elsewhere, its ledger is there: --store"
    else:
        with closing(EmbeddingStore.reading(storage.store)) as opened:
            listed = Ledger(opened)
            entries, note = (listed.entries(), "") if run is None else entries_of(run, listed, storage.store)
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


COMMANDS = group("teacher", "Check a teacher before buying from it.", check=check)
