"""List labels that are probably wrong, and images unlike any class, for review."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.analysis.frozen import frozen_features
from vl2v.analysis.suspects import LabelCheck, check_labels
from vl2v.analysis.teacher_value import copies_of, source_rows
from vl2v.config import RunConfig
from vl2v.data.drop import DROP, NO, PATH, YES
from vl2v.data.splits import DatasetRows
from vl2v.data.tables.imported import name_of
from vl2v.errors import ConfigError, DataError
from vl2v.locations import StoragePaths
from vl2v.planning.plan import RunPlan, plan_run
from vl2v.progress import Progress, Silent
from vl2v.purchase import text_heads, zero_shot_logits
from vl2v.reports.suspects import LABEL, UNLIKE, Suspect, review_page
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.training.process import make_accelerator
from vl2v.writing import atomic_write, ensure_writable, write_text
from vl2v_runtime.names import cell, printable, shown
from vl2v_runtime.regular import read_regular
from vl2v_runtime.trust import softmax

FEWEST = 40  # minimum number of images to check
COLUMNS = (PATH, "name", "domain", "label", "reason", "suggested", "teacher", "probe", "similarity", DROP)


@dataclass(frozen=True)
class Suspects:
    """Labels and images to review.

    Attributes:
        suspects: rejected labels, the most doubtful first, then images unlike any class.
        judged: number of images that were checked.
        unanswered: number of images that were not checked because they have no stored embedding.
        csv: path of the list, for ``data.drop``.
        page: path of the HTML page for review.
    """

    suspects: tuple[Suspect, ...]
    judged: int
    unanswered: int
    csv: Path
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        counts = {"labels": self.count(LABEL), "unlike": self.count(UNLIKE)}
        files = {"csv": printable(self.csv), "page": printable(self.page)}
        return {"judged": self.judged, "unanswered": self.unanswered} | counts | files

    def count(self, reason: str) -> int:
        """Return the number of images with a reason."""
        return sum(suspect.reason == reason for suspect in self.suspects)


def find_suspects(
    config: RunConfig, out: Path, storage: StoragePaths | None = None, progress: Progress | None = None
) -> Suspects:
    """Check the labels of the source domains, and write a CSV file and an HTML page next to it. Nothing is bought.

    A free teacher is queried for embeddings that the store lacks. With a teacher that charges, images without a stored
    embedding are not checked. Images of held-out domains and test images are not checked either, so their labels have
    no influence on training.

    Args:
        config: settings of a run, with a student.
        out: path of the CSV file; the page has the same name with the suffix ``.html``. An earlier list is replaced.
            Its column ``drop`` is copied for images that both lists contain for the same reason.

    Raises:
        ConfigError: if the images have no labels.
        DataError: if too few images can be checked.
    """
    progress = progress or Silent()
    if config.data.classes:
        found = "data.classes (--classes), images without labels"
        step = "drop it, or sort the images into class folders"
        raise ConfigError("There are no labels to check.", expected="labelled images", found=found, next_step=step)
    decisions = _decisions(out)
    plan = plan_run(config, storage or StoragePaths(), progress, layout_known=True)
    with closing(EmbeddingStore(plan.paths.store)) as store:
        rows = _answered(plan, store, progress)
        embeddings = store.images(plan.card, plan.dataset.digests[rows])
        head = text_heads(store.texts(plan.card, plan.requirements.prompts), plan.requirements.templates)
    teacher = softmax(zero_shot_logits(embeddings, head, plan.card.logit_scale).astype(np.float64))
    units = copies_of(plan.dataset.digests[rows]) if plan.dataset.groups is None else plan.dataset.groups[rows]
    title, accelerator = "features of the frozen student", make_accelerator(plan.config)
    features = frozen_features(plan, plan.dataset.digests[rows], progress, title, keep=accelerator)
    judgement = check_labels(teacher, embeddings, features, plan.dataset.labels[rows], units)
    suspects = tuple(_listed(plan, rows, judgement))
    page = out.with_suffix(".html")
    unanswered = len(source_rows(plan)) - len(rows)
    _write_csv(suspects, out, decisions)
    data = plan.config.data
    review = review_page(suspects, name_of(data.root), data.folder, out.name, len(rows), unanswered)
    write_text(page, printable(review.html()))
    return Suspects(suspects, len(rows), unanswered, out, page)


def _answered(plan: RunPlan, store: EmbeddingStore, progress: Progress) -> DatasetRows:
    """Return the source images with stored embeddings. A free teacher is first queried for the others."""
    rows, card, prompts = source_rows(plan), plan.card, plan.requirements.prompts
    digests = plan.dataset.digests[rows]
    if card.price.free:
        buyer = Buyer(plan.teacher, store, Budget(None, currency=card.price.currency), "suspects", progress)
        buyer.texts(prompts, "suspects")
        buyer.images(digests, lambda i: plan.dataset.read(int(rows[i])), "suspects")
    stored_rows = rows[store.knows_images(card, digests)]
    if len(stored_rows) < FEWEST or not all(store.knows_texts(card, prompts)):
        raise DataError(
            "Too few images can be checked.",
            expected=f"at least {FEWEST} labelled source images with an embedding of {card.identity}, and its prompts",
            found=f"{len(stored_rows):,} of {len(rows):,} images in {plan.paths.store}",
            next_step="name the run that bought the embeddings (--run), or its --teacher and --store",
        )
    return stored_rows


def _listed(plan: RunPlan, rows: DatasetRows, judgement: LabelCheck) -> list[Suspect]:
    dataset, names = plan.dataset, plan.dataset.names
    order = np.argsort(-judgement.doubt, kind="stable")
    labels = [(int(i), LABEL) for i in order if judgement.rejected[i]]
    order = np.argsort(judgement.similarity, kind="stable")
    listed = [*labels, *((int(i), UNLIKE) for i in order if judgement.unlike[i])]
    known = dataset.known_as([int(rows[i]) for i, _ in listed])
    return [
        Suspect(
            path=dataset.paths[rows[i]],
            name="" if name == dataset.paths[rows[i]] else name,
            domain=dataset.domains[dataset.domain_of[rows[i]]],
            label=names[dataset.labels[rows[i]]],
            reason=reason,
            suggested=names[judgement.suggested[i]],
            teacher=float(judgement.teacher[i]),
            probe=float(judgement.probe[i]),
            similarity=float(judgement.similarity[i]),
        )
        for (i, reason), name in zip(listed, known, strict=True)
    ]


def _decisions(out: Path) -> dict[tuple[str, str], str]:
    """Read the column ``drop`` of an earlier list, by path and reason; empty if there is no file."""
    if out.suffix.lower() in (".html", ".htm"):
        step = "choose another name for the list, e.g. --out suspects.csv"
        raise ConfigError(
            "--out needs another name, since the page for review would replace it.",
            expected="a CSV file",
            found=shown(out),
            next_step=step,
        )
    page = out.with_suffix(".html")
    for file in (out, page):
        ensure_writable(file)
    if not out.exists():
        if page.exists():
            raise ConfigError(
                f"{shown(page)} exists, and is not replaced.",
                expected="a name for the list that no other page has, since the page for review is next to it",
                found=f"another page, and no {shown(out)}",
                next_step="choose another file: --out FILE",
            )
        return {}
    try:
        rows = csv.DictReader(io.StringIO(read_regular(out).decode("utf-8-sig", "surrogateescape"), newline=""))
        is_list = tuple(rows.fieldnames or ()) == COLUMNS
        decisions = {(row[PATH], row["reason"]): (row[DROP] or "").strip().lower() for row in rows} if is_list else {}
    except csv.Error:
        is_list = False
    if not is_list:
        raise ConfigError(
            f"{shown(out)} exists, and is not replaced.",
            expected="a new file, or an earlier list of vl2v data suspects",
            found="another file",
            next_step="choose another file: --out FILE",
        )
    return {key: drop for key, drop in decisions.items() if drop in (YES[0], NO[0])}


def _write_csv(suspects: tuple[Suspect, ...], out: Path, decisions: Mapping[tuple[str, str], str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as fresh, fresh.open("w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        for s in suspects:
            figures = (f"{s.teacher:.4f}", f"{s.probe:.4f}", f"{s.similarity:.4f}")
            drop = decisions.get((s.path, s.reason), YES[0] if s.reason == LABEL else NO[0])
            what = cell(s.name), cell(s.domain), cell(s.label), s.reason, cell(s.suggested)
            writer.writerow((s.path, *what, *figures, drop))
