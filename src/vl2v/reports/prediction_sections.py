"""Sections of a run's report about individual predictions: confusion, confidence, mistakes and embedding map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vl2v.data.tables.imported import names_of_paths
from vl2v.evaluation.evaluation import ROLES, TEST
from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.formatting import count, listed, percent
from vl2v.method.registry import METHODS
from vl2v.reports import calibration
from vl2v.reports.figures import confusion_panel, rejection_panel, reliability_panel
from vl2v.reports.map_figure import Marks, map_panel
from vl2v.reports.maps import STAGES, embedding_maps, map_sheet
from vl2v.reports.mistakes import (
    MANY,
    Confusion,
    Mistake,
    confusion_sheet,
    confusions,
    mistake_sheet,
    mistakes,
    picture,
)
from vl2v.reports.page import Figure, Picture, Pictures, Section, TableBlock
from vl2v.reports.source import HEADS, ROLE_NAMES, Source
from vl2v_runtime.trust import Trust

SHOWN = (0.99, 0.95, 0.9, 0.8)  # coverages whose thresholds are marked


def confusion_section(source: Source) -> Section:
    """Return a confusion matrix for each role and, if there are many classes, the most confused pairs."""
    name, title = "confusion", "Confusion"
    if source.predictions is None:
        return Section(name, title, missing=[source.missing["predictions"]])
    matrices = confusions(source.predictions, source.classes)
    many = len(source.classes) > MANY
    reference = source.reference
    truth = "true classes" if reference is LABELS else "predictions of the teacher"
    caption = f"Rows are {truth}, columns are predictions. The intensity of a cell is its share of the row. " + (
        "The colour scale is the square root of the share, to show rare mistakes; the CSV file has names and counts."
        if many
        else f"Blue: {reference.equal}; orange: {reference.other}. Numbers are counts of images."
    )
    figure = Figure([confusion_panel(c, reference) for c in matrices], caption, [confusion_sheet(matrices, reference)])
    blocks: list[Figure | TableBlock] = [figure]
    if many:
        blocks += [_pairs(c, reference) for c in matrices]
    return Section(name, title, (), blocks)


def _pairs(confusion: Confusion, reference: Reference) -> TableBlock:
    rows = [
        (p.true, p.taken_for, count(p.count), count(p.images), percent(p.count / p.images)) for p in confusion.pairs()
    ]
    labels = reference is LABELS
    heads = ("true class" if labels else "teacher", "predicted", "count", "of images", "share")
    return TableBlock(
        f"Most frequent {'mistakes' if labels else 'differences'}, {ROLE_NAMES[confusion.role]}", heads, rows, wordy=[1]
    )


def trust_section(source: Source, trust: Trust | None) -> Section:
    """Return reliability before and after temperature scaling, and the effect of rejecting uncertain predictions.

    Args:
        trust: trust data of the run, or those that were fitted for this page.
    """
    name, title = "trust", "Confidence"
    if source.predictions is None:
        return Section(name, title, missing=[source.missing["predictions"]])
    if trust is None:
        return Section(name, title, missing=["There are no validation images to fit a temperature on."])
    missing = []
    if source.trust is None:
        missing.append(
            f"{source.missing.get('trust', '')} The temperature and thresholds here were fitted for this page, from "
            "validation images of the source domains, as in a new run. `vl2v predict` does not use them."
        )
    reference, results = source.reference, calibration.rejections(source.predictions, trust)
    figures = [
        _reliability_figure(calibration.calibrations(source.predictions, trust), trust, reference),
        _rejection_figure(results, reference),
    ]
    table = _threshold_table(results, reference)
    return Section(name, title, [_trust_text(trust, reference)], [*figures, table], missing)


def _trust_text(trust: Trust, reference: Reference) -> str:
    text = (
        f"A temperature of {trust.temperature:.2f}, fitted on validation images of the source domains, calibrates the "
        "confidence on these domains; on a held-out domain the student may still be overconfident. "
        f"ECE is the expected calibration error: the average difference between confidence and {reference.key}."
    )
    if reference is not LABELS:
        text += " Confidence is the probability of agreement with the teacher, which may be wrong."
    return text


def _reliability_figure(calibrated: Sequence[calibration.Calibration], trust: Trust, reference: Reference) -> Figure:
    caption = (
        f"On the dotted line, confidence equals {reference.key}; below it, the student is overconfident. "
        "The size of a mark is the share of images in its bin."
    )
    panels = [reliability_panel(c, trust.temperature, reference) for c in calibrated]
    return Figure(panels, caption, [calibration.reliability_sheet(calibrated, trust.temperature, reference)])


def _rejection_figure(results: Sequence[calibration.Rejection], reference: Reference) -> Figure:
    caption = (
        "Marks: thresholds of the student, with the coverage for which they were fitted on validation images. "
        "In-domain, these are the same images."
    )
    return Figure([rejection_panel(results, SHOWN, reference)], caption, [calibration.risk_sheet(results)])


def _threshold_table(results: Sequence[calibration.Rejection], reference: Reference) -> TableBlock:
    heads = ["target coverage", "threshold"]
    for f in results:
        heads += [f"{ROLE_NAMES[f.role]}: accepted", f"{reference.other} among accepted"]
    rows = [
        (
            percent(marks[0].target, 0),
            f"{marks[0].threshold:.3f}",
            *(percent(x) for t in marks for x in (t.coverage, t.risk)),
        )
        for marks in zip(*(f.thresholds for f in results), strict=True)
        if marks[0].target in SHOWN
    ]
    return TableBlock("Effect of each threshold on the confidence", heads, rows, [calibration.threshold_sheet(results)])


def mistake_section(source: Source, trust: Trust | None) -> Section:
    """Return the most confident wrong predictions with their images, held-out domains first."""
    name, labels = "mistakes", source.reference is LABELS
    title = "Worst mistakes" if labels else "Most confident differences from the teacher"
    if source.predictions is None:
        return Section(name, title, missing=[source.missing["predictions"]])
    temperature = 1.0 if trust is None else trust.temperature
    listed_mistakes = mistakes(source.predictions, source.classes, temperature)
    root = source.config.data.folder
    names = names_of_paths(source.config.data.root, [m.path for m in listed_mistakes])
    blocks, gone = [], 0
    for role in reversed(ROLES):
        role_mistakes = [m for m in listed_mistakes if m.role == role]
        pictures = [_picture(m, root, labels, names.get(m.path, m.path)) for m in role_mistakes]
        gone += sum(p.source is None for p in pictures)
        if role_mistakes:
            heading = f"{ROLE_NAMES[role].capitalize()}: {_wrong(source.predictions, role, source.reference)}"
            blocks.append(Pictures(heading, pictures))
    text = "The most confident wrong predictions. Typical causes are wrong labels, several objects and real weaknesses."
    if not labels:
        text = "The most confident predictions that differ from those of the teacher."
    missing = [f"{gone} of the images are no longer in {root}, so they are listed without a thumbnail."] if gone else []
    if not listed_mistakes:
        none = "The student made no mistakes" if labels else "Student and teacher agree"
        return Section(name, title, [f"{none} on these images."])
    blocks[-1] = replace(blocks[-1], sheets=[mistake_sheet(listed_mistakes, source.reference, names)])
    return Section(name, title, [text], blocks, missing)


def _wrong(predictions: Predictions, role: str, reference: Reference) -> str:
    part = predictions.roles()[role]
    wrong = int((part.answers != part.label).sum())
    return f"{wrong:,} of {len(part.label):,} {'images' if reference is LABELS else 'predictions'} {reference.other}"


def _picture(mistake: Mistake, root: Path, labels: bool, name: str) -> Picture:
    lines = [
        ("true" if labels else "teacher", mistake.true, ""),
        ("predicted", mistake.predicted, percent(mistake.confidence, 0)),
    ]
    if labels and mistake.teacher is not None:
        lines.append(("teacher", mistake.teacher, ""))
    alt = f"{mistake.true} predicted as {mistake.predicted}"
    return Picture(picture(root / mistake.path), lines, name, alt)


def map_section(source: Source) -> Section:
    """Return embedding maps before Align, after Align, after Distill, and of the teacher."""
    name, title, arrays = "map", "Embedding map", source.embeddings
    if arrays is None:
        return Section(name, title, missing=[source.missing["embeddings"]])
    maps = embedding_maps(arrays)
    marks = Marks.of(arrays)
    panels = [map_panel(m, arrays, source.classes, marks, source.reference.equal) for m in maps]
    spread = listed([f"{STAGES[m.stage]} {percent(m.explained, 0)}" for m in maps])
    sample_text = f"{len(arrays['label']):,} images drawn from validation and held-out images"
    caption = (
        f"{sample_text}. Each panel has its own axes, the two principal components of its images. They explain this "
        f"share of the variance: {spread}. Distances between panels have no meaning. Named crosses: text embeddings of "
        "the classes. They are absent before Align, when the features are not in the embedding space of the teacher."
    )
    roles = [r for r in ROLES if r != TEST or any(TEST in m.nearest for m in maps)]
    rows = [(STAGES[m.stage], *(percent(m.nearest.get(role)) for role in roles), percent(m.explained)) for m in maps]
    labels = source.reference is LABELS
    heads = ["stage", *(HEADS[role] for role in roles), "explained variance"]
    heads[1] = f"nearest name {source.reference.equal}, {heads[1]}"
    target = "the correct one" if labels else "that of the teacher"
    table = TableBlock(f"Images whose nearest class name is {target}", heads, rows)
    figure = Figure(panels, caption, [map_sheet(maps, arrays, source.classes)], marks.key(source.classes, arrays))
    return Section(name, title, (), [figure, table], _absent(source, set(arrays)))


def _absent(source: Source, names: set[str]) -> list[str]:
    method, missing = METHODS[source.config.method], []
    if "distilled" not in names:
        missing.append(
            f"{method.title} is not in the teacher's embedding space, so there are no maps after Align and Distill."
        )
    elif "aligned" not in names:
        missing.append(f"{method.title} has no projection after Align, so that map is absent.")
    if "teacher" not in names:
        missing.append("The teacher was not queried for these images, so its map is absent.")
    return missing
