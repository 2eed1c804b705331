"""Zero-shot accuracy of the offline vendor on all 9,991 images of PACS and on the demo's four styles.

Prompts are fixed beforehand: bare names, "a photo of a ...", and the mean of the templates below. None of them was
chosen by a label of PACS or of the demo.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from common import circumstances, keep, shared
from vl2v.demo.drawings import draw
from vl2v.teacher.base import Embeddings, Teacher, unit_rows
from vl2v.teacher.prompts import render
from vl2v.teacher.registry import open_teacher

TEMPLATES = ("a photo of a {}", "a drawing of a {}", "a picture of a {}", "a sketch of a {}", "a painting of a {}")
PROMPTS = {"name": ("{}",), "photo": ("a photo of a {}",), "mean of five": TEMPLATES}
CHUNK = 256  # images read at a time


def text_head(teacher: Teacher, classes: list[str], templates: tuple[str, ...]) -> Embeddings:
    """Return class embeddings [K, D] of length one, averaged over the templates."""
    names = [name.replace("_", " ") for name in classes]
    embeddings = [teacher.embed_texts([render(template, name) for name in names]) for template in templates]
    return unit_rows(np.mean([unit_rows(each) for each in embeddings], axis=0))


def zero_shot(teacher: Teacher, folder: Path) -> dict[str, dict[str, float]]:
    """Return the accuracy in percent on each domain of a folder, and the mean over domains, for every prompt."""
    domains = sorted(path.name for path in folder.iterdir() if path.is_dir())
    classes = sorted({path.name for domain in domains for path in (folder / domain).iterdir()})
    heads = {name: text_head(teacher, classes, templates) for name, templates in PROMPTS.items()}
    table: dict[str, dict[str, float]] = {name: {} for name in PROMPTS}
    for domain in domains:
        files = sorted(path for path in (folder / domain).glob("*/*") if path.is_file())
        labels = np.array([classes.index(path.parent.name) for path in files])
        parts = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
        embeddings = np.concatenate([teacher.embed_images([path.read_bytes() for path in part]) for part in parts])
        for name, head in heads.items():
            right = (embeddings @ head.T).argmax(axis=1) == labels
            table[name][domain] = round(100 * float(right.mean()), 2)
    return {name: row | {"mean": round(float(np.mean(list(row.values()))), 2)} for name, row in table.items()}


def main() -> None:
    """Measure and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for the demo's drawings")
    parser.add_argument("--teacher", default="offline:")
    a = parser.parse_args()
    facts = circumstances()
    teacher = open_teacher(a.teacher)
    card = teacher.describe()
    figures: dict[str, object] = {"teacher": card.identity, "revision": card.revision}
    start = time.monotonic()
    figures["demo"] = zero_shot(teacher, draw(a.scratch / "task"))
    folder = shared()
    if folder is None:
        print("PACS skipped: the maintainers' folder is not next to the checkout")
    else:
        figures["pacs"] = zero_shot(teacher, folder / "data" / "PACS")
    figures["seconds"] = round(time.monotonic() - start, 1)
    kind = a.teacher.partition(":")[0]
    keep("offline_vendor" if kind == "offline" else f"zero_shot-{kind}", figures | {"circumstances": facts})


if __name__ == "__main__":
    main()
