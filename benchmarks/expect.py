"""`vl2v expect` on PACS: predicted against actual accuracy on the held-out domain, as it is and corrupted.

The runs leave one domain out each. Every finished run is measured on a sample of its held-out domain, and on the same
images with each of five corruptions. The corruptions are made with Pillow and not with the changes that calibrate the
estimate, but blur, noise, darkness, compression and rotation are of the same kinds. Labels of the held-out domain are
only compared with. Runs that are measured already are not measured again, so the command can be repeated.

    python benchmarks/pacs_grids.py run students --out GRIDS
    python benchmarks/expect.py GRIDS/students [--plot docs/images/expect.svg]
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from common import RESULTS, circumstances, keep
from vl2v.analysis.changed_images import join_outputs, model_outputs
from vl2v.benchmark.results import JOBS
from vl2v.commands.expect import expected_of
from vl2v.commands.expect_basis import Basis, basis_of
from vl2v.commands.trust import read_answers
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN
from vl2v.json_files import read_json
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.trust.calibration import fit_temperature
from vl2v_runtime.trust import softmax

NAME, IMAGES, CORRUPTED = "expect", 400, 150  # held-out images of a run, and how many of them are corrupted
Row = dict[str, Any]


def noise(image: Image.Image) -> Image.Image:
    """Gaussian noise with a deviation of 0.15."""
    added = np.random.default_rng(0).normal(0, 0.15 * 255, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + added).clip(0, 255).astype(np.uint8))


def compress(image: Image.Image) -> Image.Image:
    """JPEG of quality 8."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=8)
    return Image.open(file).convert("RGB")


CORRUPTIONS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "noise": noise,
    "darkness": lambda image: image.point([round(0.25 * value) for value in range(256)] * 3),
    "compression": compress,
    "rotation": lambda image: image.rotate(45, Image.Resampling.BILINEAR),
}


def main() -> None:
    """Measure the remaining runs, and save figures and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", type=Path, help="a benchmark's folder with finished jobs")
    parser.add_argument("--plot", type=Path, help="file of the scatter plot")
    parser.add_argument("--most", type=int, default=1000, help="measure at most so many runs now")
    arguments = parser.parse_args()
    file = RESULTS / f"{NAME}.json"
    rows: list[Row] = read_json(file)["rows"] if file.exists() else []
    for job in sorted((arguments.grid / JOBS).glob("*/job.json")):
        facts = read_json(job)
        known = any((row["target"], row["seed"]) == (facts["target"], facts["seed"]) for row in rows)
        if not known and arguments.most:
            arguments.most -= 1
            rows += [{"target": facts["target"], "seed": facts["seed"], **row} for row in measure(job.parent)]
            save(rows)
    save(rows)
    print(markdown(summary(rows)))
    if arguments.plot:
        plot(rows, arguments.plot)


def save(rows: Sequence[Row]) -> None:
    """Write all figures."""
    keep(NAME, {"summary": summary(rows), "rows": list(rows), "circumstances": circumstances((0, 1, 2))})


def measure(folder: Path) -> list[Row]:
    """Predicted and actual accuracy of a run on its held-out domain."""
    basis = basis_of(folder, Silent())
    run = RunFolder(folder)
    saved = read_answers(run)
    threshold = confidence_threshold(saved.student[saved.role == IN_DOMAIN], saved.label[saved.role == IN_DOMAIN])
    saved = saved.of(saved.role == OUT_OF_DOMAIN)
    chosen = np.random.default_rng(0).permutation(len(saved.label))[:IMAGES]
    pixels = torch.stack([basis.student.preprocess.pixels(run.config().data.folder / saved.path[i]) for i in chosen])
    labels = saved.label[chosen]
    rows = [site(basis, "none", pixels, labels, threshold)]
    for name, corrupt in CORRUPTIONS.items():
        made = [corrupt(Image.fromarray(one.permute(1, 2, 0).numpy())) for one in pixels[:CORRUPTED]]
        batch = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in made])
        rows.append(site(basis, name, batch, labels[:CORRUPTED], threshold))
    return rows


def confidence_threshold(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The threshold of average thresholded confidence (Garg et al., ICLR 2022), the usual estimate."""
    sure = softmax(logits.astype(np.float64) / fit_temperature(logits, labels)).max(axis=1)
    return float(np.quantile(sure, float((logits.argmax(axis=1) != labels).mean())))


def site(basis: Basis, corruption: str, pixels: Tensor, labels: NDArray[np.int64], threshold: float) -> Row:
    """One point of the plot, shares in [0, 1]."""
    new = join_outputs(list(model_outputs(basis.student, basis.frozen, pixels)), basis.frozen is None)
    expected = expected_of(basis, new, len(labels), 0)
    sure = softmax(new.logits.astype(np.float64) / basis.temperature).max(axis=1)
    return {
        "corruption": corruption,
        "images": len(labels),
        "actual": float((new.logits.argmax(axis=1) == labels).mean()),
        "expected": expected.accuracy.value,
        "low": expected.accuracy.low,
        "high": expected.accuracy.high,
        "validation": expected.validation.value,
        "confidence": float(sure.mean()),
        "thresholded_confidence": float((sure > threshold).mean()),
        "agreement": expected.agreement,
        "distance": expected.distance,
        "estimator": expected.calibration.estimator,
        "calibration": asdict(expected.calibration),
        "warnings": list(expected.warnings),
    }


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of all sites, of clean and corrupted ones, and of each target."""
    targets = sorted({row["target"] for row in rows})
    parts = {
        "all": list(rows),
        "clean": [row for row in rows if row["corruption"] == "none"],
        "corrupted": [row for row in rows if row["corruption"] != "none"],
        **{target: [row for row in rows if row["target"] == target] for target in targets},
        **{f"corrupted: {name}": [row for row in rows if row["corruption"] == name] for name in CORRUPTIONS},
    }
    return {name: figures(part) for name, part in parts.items() if part}


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """Errors and intervals of some sites."""
    other = ("validation", "confidence", "thresholded_confidence")
    return {
        "sites": len(rows),
        "mean_absolute_error": fmean(abs(row["expected"] - row["actual"]) for row in rows),
        "largest_error": max(abs(row["expected"] - row["actual"]) for row in rows),
        "mean_error": fmean(row["expected"] - row["actual"] for row in rows),
        "covered": fmean(row["low"] <= row["actual"] <= row["high"] for row in rows),
        "width": fmean(row["high"] - row["low"] for row in rows),
        **{f"mean_absolute_error_{name}": fmean(abs(row[name] - row["actual"]) for row in rows) for name in other},
    }


def markdown(parts: Mapping[str, Mapping[str, float]]) -> str:
    """The table of the results page, in points."""
    shown = ("mean_absolute_error", "largest_error", "mean_error", "covered", "width")
    columns = (*shown, *(key for key in next(iter(parts.values()), {}) if key.startswith("mean_absolute_error_")))
    rows = [["sites", "number", *columns], ["---"] * (len(columns) + 2)]
    rows += [[name, str(part["sites"]), *(f"{100 * part[key]:.1f}" for key in columns)] for name, part in parts.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def plot(rows: Sequence[Row], file: Path) -> None:
    """Actual against expected accuracy, a line for each interval."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "vl2v", "font.size": 10}):
        figure = Figure(figsize=(5.6, 5.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color="#999999", linewidth=1)
        for target, colour in zip(sorted({row["target"] for row in rows}), PALETTE, strict=False):
            for clean in (False, True):
                part = [row for row in rows if row["target"] == target and (row["corruption"] == "none") == clean]
                actual, value = ([100 * row[key] for row in part] for key in ("actual", "expected"))
                gaps = [[abs(100 * row[key] - 100 * row["expected"]) for row in part] for key in ("low", "high")]
                axes.errorbar(
                    actual, value, gaps, fmt="o" if clean else "x", color=colour, alpha=1 if clean else 0.45,
                    elinewidth=0.8, markersize=6 if clean else 5, label=target if clean else None,
                )  # fmt: skip
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="actual accuracy, percent", ylabel="expected accuracy, percent")
        axes.set_title("Held-out domain as it is (dots) and corrupted (crosses)", fontsize=10)
        axes.set_aspect("equal")
        axes.legend(frameon=False, loc="upper left")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")

if __name__ == "__main__":
    main()
