"""The parts of a run's report that look at single answers: confusion, confidence, mistakes, and the map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vl2v.job.evaluation import IN_DOMAIN, OUT_OF_DOMAIN
from vl2v.job.predictions import ROLES, Predictions
from vl2v.job.reference import LABELS, Reference
from vl2v.method.registry import METHODS
from vl2v.report.calibration import calibrations, fitted, refusals, reliability_sheet, risk_sheet, threshold_sheet
from vl2v.report.confusion import MANY, Confusion, confusion_sheet, confusions
from vl2v.report.figures import confusion_panel, refusal_panel, reliability_panel
from vl2v.report.map_figure import Marks, map_panel
from vl2v.report.maps import STAGES, embedding_maps, map_sheet
from vl2v.report.mistakes import Mistake, mistake_sheet, mistakes, picture
from vl2v.report.page import Figure, Picture, Pictures, Section, TableBlock
from vl2v.report.source import ROLE_NAMES, Source
from vl2v.report.words import count, listed, percent
from vl2v_runtime.trust import Trust

SHOWN = (0.99, 0.95, 0.9, 0.8)  # coverages whose thresholds are marked


def confusion_section(source: Source) -> Section:
    """A matrix for each role; for many classes the most confused pairs as well."""
    name, title = "confusion", "Confusion"
    if source.predictions is None:
        return Section(name, title, missing=[source.missing["predictions"]])
    found = confusions(source.predictions, source.classes)
    many = len(source.classes) > MANY
    reference = source.reference
    truth = "true classes" if reference is LABELS else "the teacher's answers"
    caption = f"Rows are {truth} and columns the student's; the strength of a cell is its share of the row. " + (
        "Shares are drawn by their root, so that rare mistakes are to be seen; the CSV file has names and counts."
        if many
        else f"Blue: {reference.equal}; orange: {reference.other}; the number is a count of images."
    )
    figure = Figure([confusion_panel(c, reference) for c in found], caption, [confusion_sheet(found, reference)])
    blocks: list[Figure | TableBlock] = [figure]
    if many:
        blocks += [_pairs(c, reference) for c in found]
    return Section(name, title, (), blocks)


def _pairs(found: Confusion, reference: Reference) -> TableBlock:
    rows = [(p.true, p.taken_for, count(p.count), count(p.images), percent(p.count / p.images)) for p in found.pairs()]
    labels = reference is LABELS
    heads = ("true class" if labels else "teacher's answer", "taken for", "times", "of images", "share")
    return TableBlock(
        f"Most frequent {'mistakes' if labels else 'differences'}, {ROLE_NAMES[found.role]}", heads, rows, wordy=[1]
    )


def trust_section(source: Source) -> Section:
    """Reliability before and after the temperature, and what refusing unsure answers brings."""
    name, title = "trust", "Confidence"
    if source.predictions is None:
        return Section(name, title, missing=[source.missing["predictions"]])
    trust, missing = source.trust, []
    if trust is None:
        trust = fitted(source.predictions)
        missing.append(
            f"{source.missing.get('trust', '')} The temperature and thresholds here were fitted for this page, from "
            "the sources' validation images as a new run would; predict does not use them."
        )
    if trust is None:
        return Section(name, title, missing=["There are no validation images to fit a temperature on."])
    calibrated, refused = calibrations(source.predictions, trust), refusals(source.predictions, trust)
    reference = source.reference
    text = (
        f"A temperature of {trust.temperature:.2f}, fitted on the source domains' validation images alone, makes the "
        "confidence mean what it says there; on a held-out domain it may still promise too much. "
        "ECE is the expected calibration error: how far confidence and " + f"{reference.key} lie apart, on average."
    )
    if reference is not LABELS:
        text += " Confidence here is the chance of agreeing with the teacher, who may be mistaken."
    caption = (
        f"On the dotted line: as often {reference.equal} as the confidence says; below it: too sure. "
        "A mark's size is the share of images in its bin."
    )
    panels = [reliability_panel(c, trust.temperature, reference) for c in calibrated]
    reliable = Figure(panels, caption, [reliability_sheet(calibrated, trust.temperature, reference)])
    told = (
        "Marks: the student's thresholds, named by the share of validation images that pass. "
        "In-domain, they were fitted on these very images."
    )
    refusal = Figure([refusal_panel(refused, SHOWN, reference)], told, [risk_sheet(refused)])
    heads = ["aimed coverage", "least confidence"]
    for f in refused:
        heads += [f"{ROLE_NAMES[f.role]}: answered", f"{reference.other} among them"]
    rows = [
        (percent(marks[0].aim, 0), f"{marks[0].least:.3f}", *(percent(x) for t in marks for x in (t.coverage, t.risk)))
        for marks in zip(*(f.thresholds for f in refused), strict=True)
        if marks[0].aim in SHOWN
    ]
    table = TableBlock("What each threshold does", heads, rows, [threshold_sheet(refused)])
    return Section(name, title, [text], [reliable, refusal, table], missing)


def mistake_section(source: Source, trust: Trust | None) -> Section:
    """The most confident wrong answers with their pictures, held-out images first."""
    name, labels = "mistakes", source.reference is LABELS
    title = "Worst mistakes" if labels else "Surest answers unlike the teacher's"
    if source.predictions is None:
        return Section(name, title, missing=[source.missing["predictions"]])
    temperature = 1.0 if trust is None else trust.temperature
    found = mistakes(source.predictions, source.classes, temperature)
    root = Path(source.config.data.root)
    blocks, gone = [], 0
    for role in reversed(ROLES):
        chosen = [m for m in found if m.role == role]
        pictures = [_picture(m, root, labels) for m in chosen]
        gone += sum(p.source is None for p in pictures)
        if chosen:
            heading = f"{ROLE_NAMES[role].capitalize()}: {_wrong(source.predictions, role, source.reference)}"
            blocks.append(Pictures(heading, pictures))
    text = (
        "The wrong answers that the student is surest of: wrong labels, pictures of several things, true blind spots."
    )
    if not labels:
        text = "The answers that the student is surest of, among those that are unlike the teacher's."
    missing = (
        [f"{gone} of the images are no longer at {root}, so they are named without their pictures."] if gone else []
    )
    if not found:
        none = "The student made no mistake" if labels else "All answers are the teacher's"
        return Section(name, title, [f"{none} on these images."])
    blocks[-1] = replace(blocks[-1], sheets=[mistake_sheet(found, source.reference)])
    return Section(name, title, [text], blocks, missing)


def _wrong(predictions: Predictions, role: str, reference: Reference) -> str:
    part = predictions.roles()[role]
    wrong = int((part.student.argmax(axis=1) != part.label).sum())
    return f"{wrong:,} of {len(part.label):,} {'images' if reference is LABELS else 'answers'} {reference.other}"


def _picture(found: Mistake, root: Path, labels: bool) -> Picture:
    lines = [("is" if labels else "teacher", found.true, ""), ("said", found.predicted, percent(found.confidence, 0))]
    if labels and found.teacher is not None:
        lines.append(("teacher", found.teacher, ""))
    alt = f"{found.true} taken for {found.predicted}"
    return Picture(picture(root / found.path), lines, found.path, alt)


def map_section(source: Source) -> Section:
    """Images and class names in the plane, before Align, after Align, after Distill, and the teacher's own."""
    name, title, arrays = "map", "Embedding map", source.embeddings
    if arrays is None:
        return Section(name, title, missing=[source.missing["embeddings"]])
    found = embedding_maps(arrays)
    marks = Marks.of(arrays)
    panels = [map_panel(m, arrays, source.classes, marks, source.reference.equal) for m in found]
    spread = listed([f"{STAGES[m.stage]} {percent(m.explained, 0)}" for m in found])
    sampled = f"{len(arrays['label']):,} images drawn from validation and held-out images"
    caption = (
        f"{sampled}. Each panel has axes of its own, the two principal components of its images, which hold of their "
        f"variance: {spread}. Distances between panels mean nothing. Crosses with a name: the class names' embeddings; "
        "before Align the student has no space in common with them, so they are absent there."
    )
    rows = [
        (STAGES[m.stage], *(percent(m.nearest.get(role)) for role in (IN_DOMAIN, OUT_OF_DOMAIN)), percent(m.explained))
        for m in found
    ]
    labels = source.reference is LABELS
    heads = ("stage", f"nearest name {source.reference.equal}, in-domain", "held-out", "variance shown")
    own = "their own class name" if labels else "the name that the teacher gives them"
    table = TableBlock(f"How many of these images lie nearest to {own}", heads, rows)
    figure = Figure(panels, caption, [map_sheet(found, arrays, source.classes)], marks.key(source.classes, arrays))
    return Section(name, title, (), [figure, table], _absent(source, set(arrays)))


def _absent(source: Source, names: set[str]) -> list[str]:
    method, missing = METHODS[source.config.method], []
    if "distilled" not in names:
        missing.append(
            f"{method.title} gives logits and has no part in the teacher's space: no map after Align or Distill."
        )
    elif "aligned" not in names:
        missing.append(f"{method.title} has no state after Align that its student keeps, so that map is absent.")
    if "teacher" not in names:
        missing.append("The teacher was not asked about these images, so its own map is absent.")
    return missing
