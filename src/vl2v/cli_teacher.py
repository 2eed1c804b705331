"""`vl2v teacher ...`: looking at a teacher before buying from it. Everything heavy is imported when a command runs."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.errors import ConfigError

if TYPE_CHECKING:
    from vl2v.job.check import Check

Guard = Callable[[Callable[..., None]], Callable[..., None]]


def check(
    teacher: Annotated[str, typer.Argument(help="A teacher, as --teacher of vl2v distill takes it.")],
    data: Annotated[Path | None, typer.Option(help="Labelled images; without them, plain colours are drawn.")] = None,
    budget: Annotated[str | None, typer.Option(help="The most to spend; needed where the teacher charges.")] = None,
    images: Annotated[int, typer.Option(help="How many images to ask about.", min=2)] = 24,
    price_per_1000_images: Annotated[str | None, typer.Option(help="A vendor's price, if it is not known.")] = None,
    price_per_1000_texts: Annotated[str | None, typer.Option(help="The same for texts.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where decoded pixels are kept.")] = None,
    store: Annotated[Path | None, typer.Option(help="The file of bought vectors; worth money.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Prove a teacher on a few images: one space, determinism, accuracy, and what the job would cost."""
    from vl2v.cli import make_places, make_progress
    from vl2v.job.check import check_teacher
    from vl2v.job.printing import show

    prices = {"price_per_1000_images": price_per_1000_images, "price_per_1000_texts": price_per_1000_texts}
    found = check_teacher(
        teacher,
        data,
        budget=money(budget),
        images=images,
        places=make_places(cache, store),
        progress=make_progress(quiet, as_json),
        settings={"teacher": {name: price for name, price in prices.items() if price is not None}},
    )
    show(check_json(found) if as_json else check_text(found))
    if not (found.one_space and found.deterministic):
        raise typer.Exit(4)


def check_json(found: Check) -> dict[str, Any]:
    """A check as plain values; money as text, exact."""
    from vl2v.job.printing import quote_json

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
        "job": quote_json(found.job) if found.job else None,
    }


def check_text(found: Check) -> str:
    """A check for people, a line for each thing that was proved or was not."""
    card, verdict = found.card, {True: "yes", False: "NO"}
    accuracy = f"{found.accuracy:.0%} of {found.images} images right, {1 / found.classes:.0%} by guessing"
    lines = [
        f"{card.identity}, revision {card.revision}",
        f"dimension       {card.dimension}, of images and texts alike; all numbers finite",
        f"one space       {verdict[found.one_space]}: {accuracy}",
        f"deterministic   {verdict[found.deterministic]}: cosine {found.cosine:.6f} of two answers to one image",
        f"this check      {found.queries[0]} image and {found.queries[1]} text queries,"
        f" {found.spent:f} {card.price.currency}",
    ]
    if found.job is not None:
        job = found.job
        queries = f"{job.image_queries:,} more image and {job.text_queries:,} more text queries"
        lines.append(f"the whole job   at most {job.cost:f} {card.price.currency} for {queries}")
    return "\n".join(lines)


def money(text: str | None) -> Decimal | None:
    """A budget as typed, exact.

    Raises:
        ConfigError: if it is no amount.
    """
    try:
        money = None if text is None else Decimal(text)
    except InvalidOperation:
        money = Decimal("NaN")
    if money is not None and not (money.is_finite() and money >= 0):
        raise ConfigError("The budget is no amount of money.", expected="e.g. 0.50", found=str(text)[:40])
    return money


def attach(app: typer.Typer, guarded: Guard) -> None:
    """Hang the commands into the application."""
    commands = typer.Typer(help="Look at a teacher before buying from it.", no_args_is_help=True)
    commands.command()(guarded(check))
    commands.callback()(lambda: None)  # so that one command alone is still `teacher check`
    app.add_typer(commands, name="teacher")
