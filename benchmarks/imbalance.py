"""Macro accuracy of probes on frozen features of imbalanced PACS, by the exponent of class-balanced sampling.

Of each source domain, the most frequent class keeps all images and the rarest one in 50; the seed draws the order of
the classes. The probes are those of ``data.balance: auto``: Align in closed form, and a regression on the classes. Each
target domain is left out in turn. Needs the maintainers' folder of benchmark data and three minutes of one thread.

    python benchmarks/imbalance.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import circumstances, keep, need_shared
from pacs_dataset import DOMAINS, LOGIT_SCALE, SimulatedVendor, student
from vl2v.benchmark.statistics import Spread
from vl2v.config import RunConfig
from vl2v.data.splits import domainbed_holdout
from vl2v.evaluation.features import pass_through
from vl2v.planning.models import open_student
from vl2v.teacher.prompts import load_templates, render, text_head
from vl2v.training.balance import EXPONENTS, macro_accuracy
from vl2v.training.data import TrainingData
from vl2v.validation import parse
from vl2v_runtime.imaging import decode, square

RATIO, LEAST, SIZE = 50, 5, 128  # ratio of the most to the least frequent class; minimum images per class; pixels
METHODS = {"adip": "Align in closed form", "erm": "regression on the classes"}


@dataclass(frozen=True)
class Images:
    """All images of the benchmark.

    Attributes:
        features: [N, F] float32 of the frozen student.
        embeddings: [N, D] float32 of the teacher.
        labels: [N] int64.
        domains: [N] int64, positions in `DOMAINS`.
        head: [K, D] float32.
    """

    features: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    domains: NDArray[np.int64]
    head: torch.Tensor


def config_of(folder: Path, method: str) -> RunConfig:
    """The settings of a run with a method."""
    values = {"data": {"root": "PACS"}, "teacher": {"spec": "file:none"}, "method": method}
    return parse(RunConfig, values | {"student": {"spec": student(folder), "size": SIZE}}, "the benchmark")


def load(folder: Path) -> Images:
    """Read the client's images, and pass them through the pretrained student once."""
    listed = json.loads((folder / "teacher" / "split.json").read_text())["client"]
    arrays = np.load(folder / "teacher" / "pacs_image_embeddings.npz")
    row = {str(path): i for i, path in enumerate(arrays["paths"])}
    parts = [Path(path).parts for path in listed]
    classes = sorted({part[-2] for part in parts})
    backbone = open_student(config_of(folder, "adip"))
    pixels = np.stack([np.asarray(square(decode((folder / "data" / path).read_bytes()), SIZE)) for path in listed])
    passed = pass_through(
        backbone.module, backbone.preprocess, pixels, np.arange(len(pixels)), torch.device("cpu")
    )  # fmt: skip
    prompts = [render(template, name) for name in classes for template in load_templates("photo")]
    texts = torch.from_numpy(SimulatedVendor(folder).embed_texts(prompts))
    return Images(
        features=torch.cat(list(passed)).numpy(),
        embeddings=arrays["embeddings"][[row[path] for path in listed]].astype(np.float32),
        labels=np.array([classes.index(part[-2]) for part in parts], np.int64),
        domains=np.array([DOMAINS.index(part[-3]) for part in parts], np.int64),
        head=text_head(texts.reshape(len(classes), -1, texts.shape[-1])),
    )


def imbalanced(images: Images, target: int, seed: int) -> TrainingData:
    """The training and validation images of the source domains, after most images of some classes are removed."""
    generator = np.random.default_rng(seed)
    classes = int(images.labels.max()) + 1
    share = RATIO ** -(generator.permutation(classes) / (classes - 1))
    training, validation = [], {}
    for domain in range(len(DOMAINS)):
        if domain == target:
            continue
        rows = np.flatnonzero(images.domains == domain)
        chosen = []
        for k in range(classes):
            of_class = generator.permutation(rows[images.labels[rows] == k])
            chosen.append(of_class[: max(LEAST, round(share[k] * len(of_class)))])
        rows = np.concatenate(chosen)
        train, held_out = domainbed_holdout(len(rows), seed, domain)
        training.append(rows[train])
        validation[DOMAINS[domain]] = rows[held_out], images.labels[rows[held_out]]
    slots, ends = np.concatenate(training), np.cumsum([len(rows) for rows in training])
    return TrainingData(
        pixels=np.zeros((0, 1, 1, 3), np.uint8), slots=slots, labels=images.labels[slots],
        embeddings=images.embeddings[slots], head=images.head, logit_scale=LOGIT_SCALE,
        groups=tuple(np.split(np.arange(len(slots)), ends[:-1])), shares=(32,) * len(training),
        validation=validation, digest="", cache=Path(),
    )  # fmt: skip


def measure(images: Images, config: RunConfig, target: int, seed: int) -> dict[str, Any]:
    """Macro accuracy on validation images and on the target domain, by exponent, and what ``auto`` would choose."""
    data = imbalanced(images, target, seed)
    rows = np.flatnonzero(images.domains == target)
    unseen = replace(data, validation={DOMAINS[target]: (rows, images.labels[rows])})
    validation = {e: macro_accuracy(images.features, data, config, e) for e in EXPONENTS}
    test = {e: macro_accuracy(images.features, unseen, config, e) for e in EXPONENTS}
    chosen = max(validation, key=lambda e: validation[e])
    return {"validation": validation, "target": test, "auto": test[chosen], "chosen": chosen, "images": len(data.slots)}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard error over seeds of the mean over targets, in percent."""

    def spread_of(name: str, key: object) -> str:
        by_seed: dict[int, list[float]] = {}
        for run in runs:
            value = run[name] if key is None else run[name][key]
            by_seed.setdefault(run["seed"], []).append(value)
        return str(Spread.of([fmean(values) for values in by_seed.values()]))

    accuracies = {name: {f"{e:g}": spread_of(name, e) for e in EXPONENTS} for name in ("validation", "target")}
    accuracies["target"]["auto"] = spread_of("auto", None)
    return accuracies


def main() -> None:
    """Run the benchmark and write `results/imbalance.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    a = parser.parse_args()
    folder = need_shared()
    torch.set_num_threads(1)
    context, started = circumstances(range(a.seeds)), time.process_time()
    images, accuracies = load(folder), {}
    for method, title in METHODS.items():
        config = config_of(folder, method)
        runs = [
            measure(images, config, target, seed) | {"seed": seed, "target_domain": DOMAINS[target]}
            for seed in range(a.seeds)
            for target in range(len(DOMAINS))
        ]
        accuracies[title] = summary(runs) | {"runs": runs}
    keep(
        "imbalance", {"context": context, "cpu_seconds": round(time.process_time() - started, 1), "probes": accuracies}
    )


if __name__ == "__main__":
    main()
