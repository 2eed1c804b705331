"""The page on which suspect labels and unusual images are reviewed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vl2v.reports.mistakes import picture
from vl2v.reports.page import Page, Picture, Pictures, Section, Tile
from vl2v.words import count, percent
from vl2v_runtime.names import printable

LABEL, UNLIKE = "label", "unlike any class"
MOST = 200  # pictures of a section; the CSV file lists all
SIDE = 160  # pixels of the longer side of a picture


@dataclass(frozen=True)
class Suspect:
    """One image to review.

    Attributes:
        path: path below the folder of the data.
        domain: its domain.
        label: its label.
        reason: `LABEL` or `UNLIKE`.
        suggested: the class that teacher and probe together find most probable.
        teacher: the teacher's probability of the label, in [0, 1].
        probe: the cross-validated probe's probability of the label, in [0, 1].
        similarity: the largest cosine with the mean embedding of a class.
    """

    path: str
    domain: str
    label: str
    reason: str
    suggested: str
    teacher: float
    probe: float
    similarity: float


def review_page(found: Sequence[Suspect], root: Path, file: str, judged: int, unanswered: int) -> Page:
    """Make the page.

    Args:
        found: the images, in the order of review.
        root: the folder that their paths are relative to.
        file: name of the CSV file.
        judged: number of images that were judged.
        unanswered: number of images that were not, for want of an embedding.
    """
    labels = [s for s in found if s.reason == LABEL]
    unlike = [s for s in found if s.reason == UNLIKE]
    lead = (
        f"Of {count(judged)} labelled images, {count(len(labels))} have a label that both the teacher and a "
        f"cross-validated probe reject. Another {count(len(unlike))} resemble their nearest class least."
    )
    if unanswered:
        lead += f" {count(unanswered)} images have no stored embedding and were not judged."
    how = (
        f"The most doubtful labels come first. {printable(file)} lists these images with yes in the column drop. "
        "Change it to no where the label is right; --drop leaves out the images with yes."
    )
    rare = (
        "Images whose embedding is far from the mean of every class. Some are rare but right, so the column drop says "
        "no for them. Change it to yes for images that belong to no class."
    )
    tiles = [
        Tile("Suspect labels", count(len(labels)), f"{percent(len(labels) / judged)} of the images"),
        Tile("Unlike any class", count(len(unlike)), "the most unusual images"),
        Tile("Judged", count(judged), "labelled images of the source domains"),
    ]
    sections = [
        _section("labels", "Labels to check", how, labels, root, "No label is rejected by both."),
        _section("unlike", "Images unlike any class", rare, unlike, root, "Too few images to name unusual ones."),
    ]
    foot = f"vl2v {version('vl2v')}. The list is in {printable(file)} next to this page."
    return Page("Review of labels", printable(root.name), lead, tiles, sections, foot)


def _section(name: str, title: str, text: str, found: Sequence[Suspect], root: Path, none: str) -> Section:
    if not found:
        return Section(name, title, [none])
    missing = [f"The page shows the first {MOST} of {count(len(found))}; the CSV file lists all."]
    pictures = [_picture(suspect, root) for suspect in found[:MOST]]
    return Section(
        name, title, [text], [Pictures(f"{title}: {count(len(found))}", pictures)], missing[: len(found) > MOST]
    )


def _picture(suspect: Suspect, root: Path) -> Picture:
    lines = [("label", suspect.label, ""), ("suggested", suspect.suggested, "")]
    both = f"teacher {percent(suspect.teacher, 0)}, probe {percent(suspect.probe, 0)}"
    if suspect.reason == LABEL:
        lines.append(("probability of the label", "", both))
    else:
        lines = [*lines[:1], ("similarity", f"{suspect.similarity:.2f}", "")]
    alt = f"{suspect.label}, suggested {suspect.suggested}"
    return Picture(picture(root / suspect.path, SIDE), lines, suspect.path, alt)
