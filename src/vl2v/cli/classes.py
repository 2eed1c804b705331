"""`vl2v classes ...`: list and change the classes of a student. Heavy imports happen when a command runs."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v.cli import common

if TYPE_CHECKING:
    from vl2v.student.model import Student
    from vl2v.teacher.base import Teacher

RunArg = Annotated[Path, typer.Argument(help="Folder of a run or a student.")]
NamesArg = Annotated[list[str], typer.Argument(help="Names of classes.")]


def list_(run: RunArg, as_json: common.Json = False) -> None:
    """List the classes, their prompts, and when they were added."""
    from dataclasses import asdict

    from rich.table import Table

    from vl2v.api import list_classes
    from vl2v.cli.console import show

    classes = list_classes(run)
    table = Table()
    for name in ("class", "prompts", "since"):
        table.add_column(name, overflow="fold")
    for one in classes:
        more = f" and {len(one.prompts) - 1} more" if len(one.prompts) > 1 else ""
        table.add_row(one.name, f"{one.prompts[0]}{more}" if one.prompts else "-", one.added or "training")
    show([asdict(one) for one in classes] if as_json else table)


def add(
    run: RunArg,
    names: NamesArg,
    budget: common.BudgetOpt = None,
    quote: Annotated[bool, typer.Option("--quote", help="Only show the cost.")] = False,
    phrase: Annotated[
        list[str] | None,
        typer.Option(help="Description of a class for the prompts; one per name, in order."),
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help="Prompt template with {}, instead of the run's; repeatable.")
    ] = None,
    accept_teacher: Annotated[
        bool, typer.Option("--accept-teacher", help="Add a class even if its embedding equals that of another one.")
    ] = False,
    share: Annotated[
        float,
        typer.Option(help="Fraction of the validation images that the offset assigns to new classes; 0: no offset."),
    ] = 0.05,
    teacher: common.TeacherOpt = None,
    price_per_1000_texts: Annotated[str | None, typer.Option(help="Price of 1000 texts, if unpublished.")] = None,
    free: Annotated[bool, typer.Option("--free", help="Confirm that the unpublished price is 0.")] = False,
    data: common.MovedOpt = None,
    unlabelled: common.UnlabelledOpt = None,
    drop: common.DropOpt = None,
    store: common.StoreOpt = None,
    quiet: common.Quiet = False,
    as_json: common.Json = False,
) -> None:
    """Add classes by their text embeddings, without training. Exported files are updated, too."""
    from vl2v.api import add_classes, quote_classes
    from vl2v.cli.console import show
    from vl2v.commands.classes import home_of
    from vl2v.commands.moved import NewLocations

    wording: dict[str, Any] = {"phrases": phrase or (), "templates": template or (), "teacher": teacher}
    if free or price_per_1000_texts is not None:
        wording["teacher"] = _priced(run, teacher, free, price_per_1000_texts)
    storage = common.storage_paths(None, store, home_of(run))
    if quote:
        cost = quote_classes(run, names, storage=storage, **wording)
        show(cost.to_dict() if as_json else cost.table())
        return
    progress, limit = common.make_progress(quiet, as_json), common.money(budget)
    wording |= {"accept_teacher": accept_teacher, "share": share, "data": NewLocations(data, unlabelled, drop)}
    _tell(run, add_classes(run, names, budget=limit, storage=storage, progress=progress, **wording), as_json)


def _priced(run: Path, spec: str | None, free: bool, texts: str | None) -> Teacher:
    """Open the teacher of the run with the prices that the user states now."""
    from vl2v.commands.classes import home_of
    from vl2v.commands.new_classes import run_config
    from vl2v.planning.models import open_configured_teacher
    from vl2v.student.model import Student

    config = run_config(Student.load(run), spec, home_of(run))
    terms = {
        "spec": spec or config.teacher.spec,
        "free": free,
        "price_per_1000_texts": common.money(texts, "The price", "--price-per-1000-texts") or Decimal(0),
    }
    terms["price_per_1000_images"] = Decimal(0)
    config = config.model_copy(update={"teacher": config.teacher.model_copy(update=terms)})
    return open_configured_teacher(config)


def remove(run: RunArg, names: NamesArg, as_json: common.Json = False) -> None:
    """Remove classes. Exported files are updated, too."""
    from vl2v.api import remove_classes

    _tell(run, remove_classes(run, names), as_json)


def _tell(run: Path, student: Student, as_json: bool) -> None:
    from vl2v.cli.console import show
    from vl2v.student.files import CHANGES

    change = student.provenance[CHANGES][-1]
    result = {key: value for key, value in change.items() if key != "before"}
    if as_json:
        show({"run": str(run), **result, "classes": student.classes})
        return
    if "added" in change:
        for name, prompts in change["added"].items():
            show(f"added {name}: {', '.join(prompts)}")
        show(f"text queries sent: {change['text_queries']:,}, for {change['cost']} {change['currency']}")
        if offset := change.get("offset"):
            show(f"offset of their logits: {offset:.2f}")
    else:
        show(f"removed {', '.join(change['removed'])}")
    show(f"{len(student.classes)} classes: {', '.join(student.classes)}")


COMMANDS = common.group("classes", "List, add and remove the classes of a student.", list=list_, add=add, remove=remove)
