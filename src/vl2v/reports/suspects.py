"""The page on which suspect labels and unusual images are reviewed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vl2v.formatting import count, percent
from vl2v.reports.mistakes import picture
from vl2v.reports.page import Page, Picture, Pictures, Section, Tile
from vl2v_runtime.names import printable

LABEL, UNLIKE = "label", "unlike any class"
MOST = 200  # pictures of a section; the CSV file lists all
SIDE = 160  # pixels of the longer side of a picture


@dataclass(frozen=True)
class Suspect:
    """One image to review.

    Attributes:
        path: path below the folder of the data.
        reason: `LABEL` or `UNLIKE`.
        suggested: the class that teacher and probe together find most probable.
        teacher: the teacher's probability of the label, in [0, 1].
        probe: the cross-validated probe's probability of the label, in [0, 1].
        similarity: the largest cosine with the mean embedding of a class.
        name: name of the image in an imported dataset; empty if it is the path.
    """

    path: str
    domain: str
    label: str
    reason: str
    suggested: str
    teacher: float
    probe: float
    similarity: float
    name: str = ""


def review_page(suspects: Sequence[Suspect], data: str, root: Path, file: str, judged: int, unanswered: int) -> Page:
    """Create the page.

    Args:
        suspects: the images, in the order of review.
        data: name of the folder or table, for the title.
        root: the folder that their paths are relative to.
        judged: number of images that were checked.
        unanswered: number of images that were not checked because they have no stored embedding.
    """
    labels = [s for s in suspects if s.reason == LABEL]
    unlike = [s for s in suspects if s.reason == UNLIKE]
    lead = (
        f"Both the teacher and a cross-validated probe reject the labels of {count(len(labels))} of {count(judged)} "
        f"images. The {count(len(unlike))} images that are least similar to any class are listed as well."
    )
    if unanswered:
        lead += f" {count(unanswered)} images were not checked because they have no stored embedding."
    how = (
        f"The most doubtful labels come first. In {printable(file)}, the column drop of these images is yes. Change it "
        "to no if a label is correct: --drop excludes the images with yes."
    )
    rare = (
        "Images whose embedding is far from the mean embedding of every class. Some are rare but correct, so their "
        "column drop is no. Change it to yes for images of none of the classes."
    )
    tiles = [
        Tile("Suspect labels", count(len(labels)), f"{percent(len(labels) / judged)} of the images"),
        Tile("Unlike any class", count(len(unlike)), "the least similar images"),
        Tile("Checked", count(judged), "labelled images of the source domains"),
    ]
    sections = [
        _section("labels", "Labels to check", how, labels, root, "Teacher and probe do not both reject any label."),
        _section("unlike", "Images unlike any class", rare, unlike, root, "Too few images to identify unusual ones."),
    ]
    foot = f"vl2v {version('vl2v')}. The list is {printable(file)}, next to this page."
    return Page("Review of labels", printable(data), lead, tiles, sections, foot)


def _section(name: str, title: str, text: str, suspects: Sequence[Suspect], root: Path, none: str) -> Section:
    if not suspects:
        return Section(name, title, [none])
    missing = [f"This page shows the first {MOST} of {count(len(suspects))} images. The CSV file lists all of them."]
    pictures = [_picture(suspect, root) for suspect in suspects[:MOST]]
    return Section(
        name, title, [text], [Pictures(f"{title}: {count(len(suspects))}", pictures)], missing[: len(suspects) > MOST]
    )


def _picture(suspect: Suspect, root: Path) -> Picture:
    lines = [("label", suspect.label, ""), ("suggested", suspect.suggested, "")]
    both = f"teacher {percent(suspect.teacher, 0)}, probe {percent(suspect.probe, 0)}"
    if suspect.reason == LABEL:
        lines.append(("probability of the label:", "", both))
    else:
        lines = [*lines[:1], ("similarity", f"{suspect.similarity:.2f}", "")]
    alt = f"{suspect.label}, suggested {suspect.suggested}"
    return Picture(picture(root / suspect.path, SIDE), lines, suspect.name or suspect.path, alt)
