"""Rejection of images of no class on PACS, by confidence, energy and negative texts.

Each class is held out of one run, and with it one target domain in turn. `train` distils the seven short students,
which takes three to five minutes of a core each; finished ones are not trained again. `embed` saves the students'
embeddings of known classes, of the held-out class, of drawings and of patterns. `measure` makes the table. Images,
vendor and student come from the maintainers' folder.

    python benchmarks/reject.py train --out runs/reject        # then embed, then measure
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common import circumstances, keep, need_shared
from pacs_dataset import DOMAINS, SimulatedVendor, run_without_classes
from vl2v.allocator import keep_freed_memory
from vl2v.commands.reject import KnownImages, logits_of
from vl2v.demo.drawings import draw
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN
from vl2v.evaluation.predictions import read_predictions
from vl2v.runs.folder import RunFolder
from vl2v.student.model import Student
from vl2v.trust.negatives import read_nouns
from vl2v_runtime.trust import ALL_SCORES, NEGATIVES, Trust

UNRELATED = ("clock", "document", "electronic_device", "food", "plant", "tool", "vehicle", "weather")
UNNAMED = "negatives without the name of the held-out class"
PAIRS = (
    ("sources", "held-out class, sources"),
    ("target", "held-out class, target"),
    ("sources", "drawings"),
    ("target", "drawings"),
    ("sources", "patterns"),
    ("target", "patterns"),
)
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
SETTINGS: dict[str, Any] = {
    "method": "vl2v",
    "student": {"size": 96},
    "teacher": {"prompts": "name"},
    "align": {"steps": 1001, "learning_rate": 1e-3},
    "distill": {
        "steps": 100,
        "warmup_steps": 20,
        "learning_rate": 3e-4,
        "checkpoint_every": 25,
        "augment": {"style": 0.5},
    },
    "batch_per_domain": 8,
    "device": "cpu",
    "seed": 0,
}


def train(folder: Path, out: Path) -> None:
    """Distil every student that is not finished yet."""
    for i, held_out in enumerate(CLASSES):
        run_without_classes(folder, out, held_out, DOMAINS[i % len(DOMAINS)], [held_out], SETTINGS)


def runs(out: Path) -> list[Path]:
    """Return the finished runs."""
    return [out / name for name in CLASSES if (out / name / "evaluation.json").is_file()]


def patterns(folder: Path, count: int = 240) -> list[Path]:
    """Draw images without objects: noise of three scales, gradients, stripes and plain colours, with a fixed seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths, side = np.random.default_rng(0), [], 128
    ramp = np.linspace(0, 1, side)
    for i in range(count):
        kind, path = i % 6, folder / f"{i:03}.png"
        paths.append(path)
        if path.is_file():
            continue
        colours = rng.integers(0, 256, (2, 3)).astype(np.float64)
        if kind < 3:
            cells = (128, 32, 8)[kind]
            small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            small.resize((side, side), Image.Resampling.BICUBIC).save(path)
            continue
        wave = np.sin(2 * np.pi * rng.integers(2, 12) * ramp) > 0
        share = (ramp, wave.astype(np.float64), np.zeros(side))[kind - 3]
        rows = np.broadcast_to((share[:, None] * colours[0] + (1 - share[:, None]) * colours[1])[None], (side, side, 3))
        picture = Image.fromarray(rows.astype(np.uint8))
        (picture.transpose(Image.Transpose.ROTATE_90) if rng.random() < 0.5 else picture).save(path)
    return paths


def drawings(folder: Path, count: int = 400) -> list[Path]:
    """Sample the demo's drawings of things that are no class of PACS."""
    root = draw(folder)
    paths_found = sorted(
        path for style in root.iterdir() for name in UNRELATED for path in (style / name).glob("*.png")
    )
    return [paths_found[i] for i in np.sort(np.random.default_rng(0).permutation(len(paths_found))[:count])]


def images_of(run: Path, out: Path) -> dict[str, list[Path]]:
    """Return the images of a run by group; those of the held-out class were not used in training."""
    saved, root = read_predictions(RunFolder(run).predictions_file), out / "task" / "PACS"
    groups = {"sources": saved.of(saved.role == IN_DOMAIN), "target": saved.of(saved.role == OUT_OF_DOMAIN)}
    paths_found = {name: [root / path for path in part.path] for name, part in groups.items()}
    target = groups["target"].domain[0]
    rest = [domain for domain in DOMAINS if domain != target]
    for name, domains in (("held-out class, sources", rest), ("held-out class, target", [target])):
        paths_found[name] = [path for domain in domains for path in sorted((root / domain / run.name).iterdir())]
    return paths_found | {
        "drawings": drawings(out / "drawings"),
        "patterns": patterns(out / "patterns"),
    }


def embed(run: Path, out: Path) -> None:
    """Save the embeddings of all groups of a run."""
    student = Student.load(run)
    arrays: dict[str, Any] = {}
    for name, paths in images_of(run, out).items():
        arrays[name] = student.embed(paths)
    np.savez(out / f"{run.name}.npz", **arrays)


def nouns_file(folder: Path, out: Path) -> dict[str, NDArray[np.float32]]:
    """Return the vendor's embeddings of the negative texts and of the class names, by text."""
    file = out / "nouns.npz"
    if not file.is_file():
        texts = list(dict.fromkeys((*read_nouns(), *CLASSES)))
        np.savez(file, texts=np.array(texts), embeddings=SimulatedVendor(folder).embed_texts(texts))
    with np.load(file) as arrays:
        return dict(zip(arrays["texts"].tolist(), arrays["embeddings"], strict=True))


def auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Probability that a known image has a higher score than an unknown one; ties count one half."""
    order = np.sort(unknown)
    below, up_to = (np.searchsorted(order, known, side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(order)))


def fitted(
    run: Path, out: Path, embeddings: dict[str, NDArray[np.float32]], without: str = ""
) -> tuple[Trust, Student]:
    """Fit the trust data of a run with negative texts, on the validation images of its sources, as `vl2v trust` does.

    Args:
        run: its folder.
        out: folder of the embeddings.
        embeddings: of the texts.
        without: a noun to leave out.
    """
    student, saved = Student.load(run), read_predictions(RunFolder(run).predictions_file)
    assert student.trust is not None
    sources = saved.role == IN_DOMAIN
    nouns = [noun for noun in read_nouns() if noun not in (*student.classes, without)]
    with np.load(out / f"{run.name}.npz") as arrays:
        images = KnownImages(student, arrays["sources"], saved.label[sources])
    return images.with_negatives(student.trust, images.select(nouns, np.stack([embeddings[n] for n in nouns]))), student


def measure_run(run: Path, out: Path, embeddings: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Return, by score, the AUROC and the FPR at 95% acceptance of every pair of known and unknown images."""
    trust, student = fitted(run, out, embeddings)
    assert trust.negatives is not None
    with np.load(out / f"{run.name}.npz") as arrays:
        rows = {name: arrays[name] for name in arrays}
    logits = {name: logits_of(student, part) for name, part in rows.items()}
    paths_found: dict[str, Any] = {"texts": len(trust.negatives.texts), "temperature": trust.temperature}
    unnamed, _ = fitted(run, out, embeddings, without=run.name)
    for name, fit, score in [(score, trust, score) for score in ALL_SCORES] + [(UNNAMED, unnamed, NEGATIVES)]:
        values = {group: fit.scores(logits[group], score, rows[group]) for group in rows}
        least = fit.threshold(score, 0.95)
        paths_found[name] = {"target accepted": float((values["target"] >= least).mean())}
        for known, unknown in PAIRS:
            threshold = np.sort(values[known])[::-1][int(np.ceil(0.95 * len(values[known]))) - 1]
            paths_found[name][f"{known}: {unknown}"] = {
                "auroc": auroc(values[known], values[unknown]),
                "fpr": float((values[unknown] >= threshold).mean()),
                "accepted": float((values[unknown] >= least).mean()),
            }
    return paths_found


def measure(folder: Path, out: Path) -> None:
    """Measure all finished runs, and save the figures with mean and standard error over runs."""
    embeddings = nouns_file(folder, out)
    by_run = {run.name: measure_run(run, out, embeddings) for run in runs(out) if (out / f"{run.name}.npz").is_file()}
    means: dict[str, Any] = {}
    for score in (*ALL_SCORES, UNNAMED):
        for pair in (f"{known}: {unknown}" for known, unknown in PAIRS):
            for what in ("auroc", "fpr", "accepted"):
                values = np.array([100 * part[score][pair][what] for part in by_run.values()])
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
                means.setdefault(pair, {}).setdefault(score, {})[what] = f"{values.mean():.1f} ± {error:.1f}"
    settings = {"targets": dict(zip(CLASSES, DOMAINS * 2, strict=False)), **SETTINGS}
    keep("reject", {"settings": settings, "runs": by_run, "means": means, "circumstances": circumstances()})


def main() -> None:
    """Run one part."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "embed", "measure"))
    parser.add_argument("--out", type=Path, default=Path("runs/reject"))
    a = parser.parse_args()
    folder = need_shared()
    out = a.out.resolve()
    if a.part == "train":
        train(folder, out)
    elif a.part == "measure":
        measure(folder, out)
    else:
        for run in runs(out):
            if not (out / f"{run.name}.npz").is_file():
                embed(run, out)


if __name__ == "__main__":
    main()
