"""Accuracy of `vl2v distill` on each unseen domain of PACS, with its default settings and one seed.

    python benchmarks/pacs_product.py --scratch pacs-product
    python benchmarks/pacs_product.py --scratch pacs-product --labels 4 --out pacs-product-four-labels
    python benchmarks/pacs_product.py --scratch pacs-product --method kd --out pacs-product-kd

The simulated vendor's embeddings are a `file:` teacher. Image size and number of steps depend on the speed of the
machine; other work at the same time makes them smaller. A finished run is not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from common import circumstances, keep, need_shared
from pacs_dataset import DOMAINS, run_without_classes
from vl2v.allocator import keep_freed_memory
from vl2v.json_files import read_json
from vl2v.nested import merge


def figures_of(run: Path) -> dict[str, Any]:
    """Return accuracy and calibration error of a run, and what training took."""
    evaluation, config = read_json(run / "evaluation.json"), yaml.safe_load((run / "config.yaml").read_text())
    target = next(row for row in evaluation["domains"] if row["role"] == "out-of-domain")
    student = read_json(run / "student" / "student.json")
    return {
        "student": target["student"],
        "zero_shot": target["zero_shot"],
        "ece": target["student_ece"],
        "ece_calibrated": target["student_ece_calibrated"],
        "in_domain": evaluation["means"]["in_domain"]["student"],
        "steps": config["distill"]["steps"],
        "size": config["student"]["size"],
        "final_size": student["preprocess"]["size"],
    }


def main() -> None:
    """Run the targets one after the other and save their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of the runs, their cache and their store")
    parser.add_argument("--labels", type=int, help="labels per class and domain (default: all)")
    parser.add_argument("--method", default="vl2v", help="vl2v, kd or another method")
    parser.add_argument("--targets", nargs="+", default=DOMAINS, choices=DOMAINS)
    parser.add_argument("--out", default="pacs-product", help="name of the file of results")
    a = parser.parse_args()
    folder, settings = need_shared(), {"teacher": {"prompts": "{}"}, "method": a.method}
    name = f"{a.method}-{'all' if a.labels is None else a.labels}"
    if a.labels is not None:
        settings = merge(settings, {"data": {"labels_per_class": a.labels, "rest_unlabelled": True}})
    runs = {t: run_without_classes(folder, a.scratch, f"{t}-{name}", t, (), settings) for t in a.targets}
    figures = {target: figures_of(run) for target, run in runs.items()}
    means = {key: sum(part[key] for part in figures.values()) / len(figures) for key in ("student", "in_domain")}
    keep(a.out, {"targets": figures, "means": means, "circumstances": circumstances([0])})


if __name__ == "__main__":
    keep_freed_memory()  # as the command does
    main()
