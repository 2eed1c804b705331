"""Sections of a run's report: accuracy, queries and cost, curves, comparison, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from vl2v.data.tables.imported import name_of
from vl2v.evaluation.evaluation import ROLES, TEST, DomainScore, Evaluation
from vl2v.evaluation.reference import LABELS
from vl2v.formatting import NONE, count, duration, money, percent, shortened, size
from vl2v.method.registry import METHODS
from vl2v.reports.accuracy import accuracies, accuracy_sheet, with_interval
from vl2v.reports.comparison import BATCHES, Comparison, comparison_sheet, machine
from vl2v.reports.extra_tables import export_table, unseen_table
from vl2v.reports.figures import accuracy_panel, learning_panels
from vl2v.reports.learning import ALIGN, StageCurve, learning_curves, loss_sheet, validation_sheet
from vl2v.reports.page import Figure, Section, TableBlock
from vl2v.reports.sheet import Sheet
from vl2v.reports.source import HEADS, ROLE_NAMES, Source
from vl2v.reports.spending import REFUSED, Spending, spending_sheet
from vl2v.reports.summary import backbone_of, teacher_of

PURPOSES = {"training": "training images", "evaluation": "zero-shot column", "unlabelled": "unlabelled images"}
PURPOSES["validation"] = "validation images, for the comparison with the teacher"
NO_LABELS = (
    "The images have no labels, so the student is compared with the zero-shot predictions of the teacher. The figures "
    "state how often it agrees with the teacher, not how often it is right. To measure that, run vl2v evaluate on "
    "labelled images."
)


def warnings_section(source: Source) -> Section | None:
    """Return the warnings of the run, or None if there are none, as in runs of earlier versions."""
    warnings = source.content.get("warnings")
    lines = [str(line) for line in warnings] if isinstance(warnings, list) else []
    return Section("warnings", "Warnings", lines) if lines else None


def advice_section(source: Source) -> Section | None:
    """Return whether the teacher is worth its price, or None if the run did not say."""
    advice = source.content.get("advice")
    if not advice:
        return None
    line = str(advice["line"]).removeprefix("advice: ")
    return Section("advice", "Value of the teacher", [f"Advice before training: {line}."])


def accuracy_section(source: Source) -> Section:
    """Return the accuracy per domain with its interval, alternative weights, and held-out classes."""
    domains = accuracies(source.evaluation)
    rows: list[tuple[str, ...]] = []
    strong = []
    for role in ROLES:
        part = [row for row in domains if row.role == role]
        rows += [_accuracy_row(row) for row in part]
        columns = ("student", "student_macro", "zero_shot")
        student, macro, teacher = (source.evaluation.mean(role, column) for column in columns)
        if student is not None and len(part) > 1:
            strong.append(len(rows))
            shares = percent(student), percent(macro), percent(teacher)
            rows.append(("mean", ROLE_NAMES[role], "", *shares, _difference(student, teacher)))
    caption = (
        "Circles: student. Diamonds: zero-shot teacher. Lines: 95% Wilson interval of this run. Shaded, with a star: "
        "domains that were held out of training and selection."
    )
    heads: tuple[str, ...]
    heads = ("domain", "role", "images", "student (95%)", "macro", "teacher (95%)", "difference, points")
    reference, text = source.reference, []
    name, measure = reference.key, reference.measure[0].upper() + reference.measure[1:]
    if reference is not LABELS:
        text, caption = [NO_LABELS], "Lines: 95% Wilson interval of this run."
        heads, rows = heads[:5], [row[:5] for row in rows]
    table = TableBlock(f"{measure} by domain", heads, rows, strong=strong)
    figure = Figure([accuracy_panel(domains, reference)], caption, [accuracy_sheet(domains, reference)])
    blocks: list[Figure | TableBlock] = [figure, table]
    if source.evaluation.alternatives:
        blocks.append(_other_weights(source))
    if unseen := source.content.get("unseen_classes"):
        blocks.append(unseen_table(unseen))
    missing = (
        [] if source.config.data.held_out else ["No domain was held out, so there are no results for unseen domains."]
    )
    if reference is LABELS and all(row.zero_shot is None for row in domains):
        missing.append("The teacher was not queried for these images, so its accuracy is unknown.")
    return Section(name, measure.removeprefix("Top-1 ").capitalize(), text, blocks, missing)


def _accuracy_row(row: DomainScore) -> tuple[str, ...]:
    return (
        row.domain,
        ROLE_NAMES[row.role],
        count(row.images),
        with_interval(row.student, row.images),
        percent(row.student_macro),
        with_interval(row.zero_shot, row.images),
        _difference(row.student, row.zero_shot),
    )


def _difference(student: float, teacher: float | None) -> str:
    return NONE if teacher is None else f"{100 * (student - teacher):+.1f}".replace("-", "−")


def _other_weights(source: Source) -> TableBlock:
    selected = {f"saved ({source.config.distill.weights})": source.evaluation}
    every: Mapping[str, Evaluation] = selected | dict(source.evaluation.alternatives)
    roles = [r for r in ROLES if r != TEST or any(row.role == TEST for row in source.evaluation.rows)]
    rows = [(name, *(percent(e.mean(role, "student")) for role in roles)) for name, e in every.items()]
    values = [(name, *(e.mean(role, "student") for role in roles)) for name, e in every.items()]
    sheet = Sheet("weights", ("weights", *(role.replace("-", "_") for role in roles)), values)
    caption = "Alternative weights of the same run: means over domains"
    return TableBlock(caption, ("weights", *(HEADS[role] for role in roles)), rows, [sheet], [0])


def spending_section(source: Source, costs: Spending) -> Section:
    """Return the queries and the payments."""
    rows = [
        (
            f"{line.kind}s",
            PURPOSES.get(line.purpose, line.purpose) + (f" ({line.state})" if line.state != "kept" else ""),
            count(line.queries),
            money(line.cost, line.currency),
        )
        for line in costs.lines
    ]
    if rows:
        queries = sum(line.queries for line in costs.lines if line.state != REFUSED)
        rows.append(("all", "", count(queries), money(costs.paid, costs.currency)))
    price = "free of charge" if not costs.cost else money(costs.cost, costs.currency)
    needed = (
        f"With an empty store, training needs {count(costs.image_queries)} image and {count(costs.text_queries)} text "
        f"queries ({price}). Stored embeddings are never bought again."
    )
    if source.reference is LABELS:
        needed += " Images of the zero-shot column are queried only for the table of results."
    blocks = []
    if rows:
        heads = ("kind", "purpose", "queries", "paid")
        table = TableBlock("Entries of this run in the ledger", heads, rows, [spending_sheet(costs)], [len(rows) - 1])
        blocks.append(table)
    fresh = source.content.get("fresh_queries")
    notes = [f"During training, {count(fresh)} augmented images were sent to a local teacher."] if fresh else []
    if source.config.budget is not None:
        notes.append(f"The budget was {money(Decimal(source.config.budget), costs.currency)}.")
    return Section("spending", "Queries and cost", [needed, *notes], blocks, [costs.note] if costs.note else [])


def learning_section(source: Source) -> Section:
    """Return the curves of both stages with the window over which SWAD averaged."""
    name, method = "learning", METHODS[source.config.method]
    if not source.metrics:
        return Section(name, "Learning curves", missing=[source.missing.get("metrics", "The run has no steps.")])
    curves = learning_curves(source.metrics, source.provenance.get("swad"))
    titles = [method.stages[curve.stage != ALIGN].capitalize() for curve in curves]
    caption = "Grey: loss of each step. Line: its running mean. "
    caption += f"{source.reference.key.capitalize()}: on validation images of the source domains."
    sheets = [loss_sheet(curves), validation_sheet(curves, source.reference)]
    figure = Figure(
        learning_panels(curves, titles, source.reference), f"{caption} {_windows_text(curves, titles)}", sheets
    )
    return Section(name, "Learning curves", (), [figure])


def _windows_text(curves: Sequence[StageCurve], titles: Sequence[str]) -> str:
    sentences = []
    for curve, title in zip(curves, titles, strict=True):
        if curve.window:
            first, last = curve.window
            sentences.append(f"Shaded: steps {first:,} to {last:,} of {title}, averaged by SWAD.")
        elif curve.averaged:
            sentences.append(f"SWAD found no loss valley in {title}, so the last weights were saved.")
    return " ".join(sentences)


def comparison_section(source: Source, comparison: Comparison) -> Section:
    """Compare student and teacher: accuracy, size, speed and cost."""
    pairs = {role: [source.evaluation.mean(role, who) for who in ("student", "zero_shot")] for role in ROLES}
    rows = [
        (f"{source.reference.key}, {ROLE_NAMES[role]}", percent(student), percent(teacher))
        for role, (student, teacher) in pairs.items()
        if student is not None or teacher is not None
    ]
    rows += _size_rows(comparison)
    text, missing = [], [comparison.unmeasured] if comparison.unmeasured else []
    if comparison.speed:
        rows += _speed_rows(comparison)
        text.append(
            f"Speed was measured for this page on {machine()}. It is the median of several runs, from "
            "pixels in memory to logits."
        )
    vendor = comparison.teacher_million
    teacher_cost = "unknown" if vendor is None else money(vendor, comparison.currency) if vendor else "no charge"
    student_cost = "no queries"
    if comparison.student_million is not None and comparison.hour_price is not None:
        student_cost = money(comparison.student_million, comparison.currency)
        text.append(f"The cost of the student assumes {money(comparison.hour_price, comparison.currency)} per hour.")
    elif comparison.seconds_per_million is not None:
        student_cost = f"{count(comparison.seconds_per_million)} s of this machine"
        missing.append(
            "To see the cost of the student, pass the price of an hour of this machine: vl2v report --hour-price."
        )
    rows.append(("cost of a million images", student_cost, teacher_cost))
    table = TableBlock("Student and teacher", ("measure", "student", "teacher"), rows, [comparison_sheet(comparison)])
    return Section("comparison", "Student and teacher", text, [table], missing)


def _size_rows(compared: Comparison) -> list[tuple[str, str, str]]:
    teacher = compared.teacher_parameters
    known = "unknown" if teacher is None else f"{teacher / 1e6:,.1f} million (image encoder)"
    return [
        ("parameters", f"{compared.parameters / 1e6:,.1f} million", known),
        ("weights on disk", size(compared.bytes), "unknown" if teacher is None else NONE),
    ]


def _speed_rows(compared: Comparison) -> list[tuple[str, str, str]]:
    rows = []
    for batch in BATCHES:
        speed = compared.speed[batch]
        name = f"images per second, {'one at a time' if batch == 1 else f'batches of {batch}'}"
        rows.append((name, f"{speed:,.1f}" if speed < 100 else count(speed), "not measured"))
    return [*rows, ("time for a million images", duration(compared.seconds_per_million or 0), "not measured")]


def export_section(source: Source) -> Section | None:
    """Return the measurements of exported files, or None if there are none."""
    if source.export is None:
        return None
    text = ["Each exported file, compared with the student on the same images."]
    return Section("export", "Exported files", text, [export_table(source.export, source.reference)])


def making_section(source: Source) -> Section:
    """Return the data from which the run can be reproduced."""
    provenance, config = source.provenance, source.config
    data = provenance.get("data", {})
    versions = ", ".join(f"{name} {value}" for name, value in (provenance.get("made_with") or {}).items())
    labels = f"column {config.data.label}" if config.data.label else "class folders"
    student = Path(config.student.spec).name if "@" in config.student.spec else config.student.spec
    facts = (
        ("created", str(provenance.get("made_at", NONE))),
        ("method", f"{METHODS[config.method].title} ({config.method})"),
        ("student", f"{backbone_of(source)}, {source.card['preprocess']['size']} px; from {student}"),
        ("teacher", f"{teacher_of(source)}, revision {provenance.get('teacher', {}).get('revision', NONE)}"),
        (
            "data",
            f"{name_of(Path(config.data.root))}, {count(data.get('images', 0))} images, "
            f"digest {str(data.get('digest', NONE))[:16]}",
        ),
        ("domains", ", ".join(data.get("domains", [])) or NONE),
        ("labels", labels if source.reference is LABELS else "none; the classes were given by name"),
        ("held out", ", ".join(config.data.held_out) or "none"),
        ("classes", shortened(", ".join(source.classes), 400)),
        ("steps", f"{config.first_stage_steps:,} and {config.distill.steps:,}"),
        ("learning rate", f"{config.distill.learning_rate:g}"),
        ("saved weights", config.distill.weights),
        ("seed", str(config.seed)),
        ("versions", versions or NONE),
    )
    table = TableBlock("Main settings; config.yaml contains all of them", (), facts, wordy=[1])
    return Section("making", "Provenance", (), [table])
