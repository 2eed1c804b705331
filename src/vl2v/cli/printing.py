"""Results as text and JSON."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vl2v.cli.console import OUTPUT
from vl2v.cli.console import show as show
from vl2v.evaluation.evaluation import ROLES, Evaluation
from vl2v.evaluation.reference import LABELS
from vl2v.faults import naming
from vl2v.formatting import exact
from vl2v.runs.folder import RunFolder
from vl2v.teacher.purchase.ledger import LedgerEntry
from vl2v.terminal import clean
from vl2v_runtime.names import cell, printable, quoted, shown
from vl2v_runtime.trust import UNSURE, Trust

if TYPE_CHECKING:  # these import torch, which a list of datasets or purchases does not need
    from vl2v.commands.distill import Run
    from vl2v.commands.evaluate import Answer
    from vl2v.demo.job import Demo

FORMATS = ("table", "json", "csv")


def run_json(run: Run) -> dict[str, Any]:
    """Convert a finished run to JSON."""
    queries = {"image_queries": run.image_queries, "text_queries": run.text_queries}
    queries["fresh_queries"] = run.fresh_queries
    unseen = {"unseen_classes": run.unseen.to_dict()} if run.unseen else {}
    where = {"run": printable(run.folder), "student": printable(run.folder / "student")}
    return where | queries | run.evaluation.to_dict() | unseen


def run_text(run: Run) -> RenderableType:
    """Format a finished run for a terminal."""
    queries = f"queries sent for this run: {run.image_queries:,} images, {run.text_queries:,} texts"
    if run.fresh_queries:
        queries += f"; queries to the local teacher during training: {run.fresh_queries:,} augmented images"
    folder = shown(run.folder)
    where = f"student: {folder}/student\nfigures: {folder}/evaluation.json, {folder}/metrics.jsonl"
    calibrated = [calibration_line(run.student.trust, run.evaluation)] if run.student.trust else []
    page = RunFolder(run.folder).report_file
    where += f"\nreport: {shown(page)}" if page.exists() else ""
    unseen = [run.unseen.table()] if run.unseen else []
    return Group(run.evaluation.table(), *calibrated, *unseen, queries, Text(where), _try_it(run.folder))


def calibration_line(trust: Trust, evaluation: Evaluation) -> str:
    """State the effect of the temperature on held-out domains, or else on test or validation images, in percent."""
    role = next((role for role in reversed(ROLES) if any(row.role == role for row in evaluation.rows)), ROLES[0])
    parts = [
        f"{row.domain} {100 * row.student_ece:.1f} -> {100 * row.student_ece_calibrated:.1f}"
        for row in evaluation.rows
        if row.role == role and row.student_ece is not None and row.student_ece_calibrated is not None
    ]
    against = "" if evaluation.reference is LABELS else " against the teacher's answers"
    return f"calibrated: temperature {trust.temperature:.2f}, ECE{against} on {', '.join(parts)}"


def demo_json(done: Demo) -> dict[str, Any]:
    """Convert the result of the demo to JSON."""
    return {"run": str(done.run), "student": str(done.run / "student"), **done.comparison.to_dict()}


def demo_text(done: Demo) -> RenderableType:
    """Format the result of the demo for a terminal."""
    where = f"student: {shown(done.run / 'student')}\nfigures: {shown(done.figures)}"
    return Group(done.comparison.table(), Text(where), _try_it(done.run))


def _try_it(run: Path) -> Text:
    """Suggest a command, quoted for a shell."""
    return Text(f"try it:  vl2v predict {quoted(run)} <image or folder>")


def ledger_json(entries: Sequence[LedgerEntry]) -> list[dict[str, Any]]:
    """Convert ledger entries to JSON."""
    return [asdict(e) | {"time": e.time.isoformat(timespec="seconds"), "cost": exact(e.cost)} for e in entries]


def ledger_table(entries: Sequence[LedgerEntry]) -> RenderableType:
    """Format the spending by run, teacher, kind and purpose for a terminal."""
    sums: dict[tuple[str, ...], list[Any]] = {}
    for e in entries:
        total = sums.setdefault((e.run, e.teacher, e.kind, e.purpose, e.currency, e.state), [0, 0])
        total[0] += e.queries
        total[1] += e.cost
    table = Table(title="spent; 'sent' is an open job, or may be charged without a response; 'refused' was not charged")
    for name in ("run", "teacher", "kind", "purpose", "state", "queries", "cost"):
        table.add_column(name, justify="right" if name in ("queries", "cost") else "left", overflow="fold")
    for (run, teacher, kind, purpose, currency, state), (queries, cost) in sums.items():
        table.add_row(run, teacher, kind, purpose, state, f"{queries:,}", f"{exact(cost)} {currency}")
    return table


def _answer_json(answer: Answer) -> dict[str, Any]:
    """Convert a prediction to the JSON of `vl2v-predict`; `probability` is the old name of `confidence`."""
    fields = ("label", "confidence", "accepted", "fault", "probabilities")
    row = {"path": printable(answer.path)} | {name: getattr(answer, name) for name in fields}
    row["probability"] = row["confidence"] = answer.confidence if answer.label else None
    return row | ({} if answer.row is None else {"row": answer.row, "table": printable(answer.table)})


def show_answers(answers: Sequence[Answer], output: str, mark: str = UNSURE) -> int:
    """Print predictions as table, JSON or CSV; return the number of unreadable files.

    Args:
        output: one of `FORMATS`.
        mark: what the table says of predictions that are not accepted.
    """
    several = len({a.table for a in answers if a.row is not None}) > 1
    extra_columns = ["row"] * any(a.row is not None for a in answers) + ["table"] * several
    if output == "json":
        show([_answer_json(answer) for answer in answers])
    elif output == "csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("path", "label", "confidence", "accepted", "fault", *extra_columns))
        sure = {None: "", True: "yes", False: "no"}
        for a in answers:
            confidence = f"{a.confidence:.6f}" if a.label else ""
            values = (printable(a.path), cell(a.label), confidence, sure[a.accepted], a.fault)
            row = "" if a.row is None else a.row
            writer.writerow((*values, *(row, printable(a.table))[: len(extra_columns)]))
        with naming(OUTPUT):
            sys.stdout.write(clean(text.getvalue()) if sys.stdout.isatty() else text.getvalue())
    else:
        table = Table()
        has_marks = any(a.accepted is not None for a in answers)
        for name in (*extra_columns[::-1], "image", "class", "confidence", *(["accepted"] if has_marks else [])):
            table.add_column(name, justify="right" if name in ("row", "confidence") else "left", overflow="fold")
        texts = {None: "", True: "yes", False: mark}
        for a in answers:
            result = a.label or f"not read: {a.fault}"
            cells: list[RenderableType] = [Text(shown(a.path)), Text(result), f"{a.confidence:.3f}" if a.label else ""]
            where: list[RenderableType] = ["" if a.row is None else f"{a.row:,}", Text(shown(a.table))]
            table.add_row(*where[: len(extra_columns)][::-1], *cells, *([texts[a.accepted]] if has_marks else []))
        show(table)
    return sum(bool(answer.fault) for answer in answers)
