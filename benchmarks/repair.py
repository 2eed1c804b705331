"""Repair of PACS students on their unseen domain: 50 queries and no labels, accuracy there and on the sources.

The students are those of `benchmarks/pacs_grids.py run students --out FOLDER`; each has one domain held out. That
domain plays the new site. `measure` repairs every student with the settings of `vl2v repair`. Accuracy is measured on
the images of the place that were not queried, and on the validation images of the sources.

`choose` compares settings without a target's labels. It trains students with two domains held out. One of them plays
the new site. The other one is the target that the choice is for, and nothing of it is used.

    python benchmarks/repair.py measure --students FOLDER/students/jobs --out runs/repair
    python benchmarks/repair.py choose --students FOLDER/students/jobs --out runs/repair
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import ROOT, circumstances, keep, write_table
from vl2v.allocator import keep_freed_memory
from vl2v.cli.console import LogLines
from vl2v.commands.distill import run as distill
from vl2v.commands.repair import repair
from vl2v.commands.repair_plan import QUERIES, RepairPlan, plan_repair
from vl2v.data.pixels import CachedPixels
from vl2v.data.scan import FileIndex
from vl2v.evaluation.evaluation import OUT_OF_DOMAIN, student_answers
from vl2v.evaluation.split import evaluation_domains
from vl2v.locations import StoragePaths
from vl2v.nested import nested
from vl2v.planning.plan import plan_run
from vl2v.planning.prepare import list_folder, read_datasets
from vl2v.planning.split import split_dataset
from vl2v.progress import Silent
from vl2v.purchase import BoughtEmbeddings, export_embeddings
from vl2v.runs.folder import RunFolder
from vl2v.settings import make_config
from vl2v.student.model import Student
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.training.align_options import solve_projection
from vl2v.training.data import TrainingData, write_slots
from vl2v.training.feature_cache import FeatureCache
from vl2v.training.process import make_accelerator

PAGE = ROOT / "docs" / "results" / "repair.md"
PAIRS = (("art_painting", "sketch"), ("cartoon", "photo"))  # held out together, for `choose`
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the trained weights; 0 has the new projection alone
CANDIDATES: dict[str, dict[str, Any]] = {
    "60 steps, 16 new images": {"distill.wise_ft": 1.0},
    "60 steps, 8 new images": {"distill.wise_ft": 1.0, "repair.per_batch": 8},
    "60 steps, 16 new images, no divergence": {"distill.wise_ft": 1.0, "vl2v.kl_weight": 0.0},
    "60 steps, 16 new images, divergence 0.5": {"distill.wise_ft": 1.0, "vl2v.kl_weight": 0.5},
    "60 steps, 24 new images, divergence 0.5": {"distill.wise_ft": 1.0, "repair.per_batch": 24, "vl2v.kl_weight": 0.5},
}


def measure(jobs: Path, out: Path) -> None:
    """Repair every finished student, and write the results; finished results are not computed again."""
    storage = StoragePaths(out / "cache", out / "vectors.sqlite")
    for job in sorted(jobs.iterdir(), key=lambda job: (RunFolder(job).config().seed, job.name)):
        folder, figures = RunFolder(job), out / "measured" / f"{job.name}.json"
        if not folder.evaluation_file.exists() or figures.exists():
            continue
        config = folder.config()
        (target,) = config.data.held_out
        plan = plan_repair(
            job, config.data.root / target, out / "runs" / job.name, storage=storage, progress=LogLines(), budget="0"
        )
        repaired = repair(plan, progress=LogLines(), report=False)
        site = out_of_domain(repaired.folder, target, plan)
        old = out_of_domain(job, target, plan)
        values = {"target": target, "seed": config.seed, "place": {"old": old, "new": site}} | repaired.to_dict()
        for key in ("run", "student"):
            del values[key]
        figures.parent.mkdir(parents=True, exist_ok=True)
        figures.write_text(json.dumps(values, indent=2))
    save(out)


def out_of_domain(run: Path, target: str, plan: RepairPlan) -> float:
    """Accuracy of a run's student on the images of its held-out domain that the plan does not query."""
    saved = np.load(RunFolder(run).predictions_file)
    queried = {(p.root / path).absolute() for p in (plan.trained, plan.checked) for path in p.paths}
    root = plan.config.data.root.absolute()
    rows = [
        i
        for i, (role, domain, path) in enumerate(zip(saved["role"], saved["domain"], saved["path"], strict=True))
        if role == OUT_OF_DOMAIN and domain == target and root / str(path) not in queried
    ]
    return float((saved["student"][rows].argmax(axis=1) == saved["label"][rows]).mean())


def control(out: Path) -> None:
    """Solve the projection of every measured student again, with the new images and without any; no step of Distill."""
    storage, rows = StoragePaths(out / "cache", out / "vectors.sqlite"), []
    for file in sorted((out / "measured").glob("*.json")):
        run, target = out / "runs" / file.stem, json.loads(file.read_text())["target"]
        config = RunFolder(run).config()
        plan = plan_run(config, storage)
        with closing(EmbeddingStore(storage.store)) as store:
            export_embeddings(plan, store, out / "work")
        write_slots(plan, out / "work")
        embeddings = BoughtEmbeddings.load(plan, out / "work")
        data = TrainingData.build(plan, embeddings, evaluation_domains(plan, embeddings), out / "work")
        backbone, accelerator = plan.student_backbone, make_accelerator(config)
        cache = FeatureCache(data.cache, backbone, data.pixels)
        features = cache.of(data.slots, accelerator, Silent(), "features")[data.slots]
        new = {row.tobytes() for row in plan.examples.digests[plan.examples.groups[-1]]}
        there = [r for r in plan.dataset.rows_of(target) if plan.dataset.digests[r].tobytes() not in new]
        chosen = np.random.default_rng(0).permutation(there)[:600]
        sample, repaired = (plan.dataset.digests[chosen], plan.dataset.labels[chosen]), {}
        without = replace(data, groups=data.groups[:-1], shares=data.shares[:-1])
        for name, part in (("with", data), ("without", without)):
            layer = torch.nn.Linear(backbone.features, data.head.shape[1])
            solve_projection(layer, features, part, config)
            student = Student(backbone, layer, data.head, plan.dataset.names, data.logit_scale)
            repaired[name] = accuracy(student, *sample, storage)
        earlier = accuracy(Student.load(config.repair.run), *sample, storage) if config.repair else 0.0
        rows.append({"target": target, "seed": config.seed, "before": earlier} | repaired)
        print(rows[-1], flush=True)
    keep("repair-control", {"students": rows, "circumstances": circumstances(sorted({r["seed"] for r in rows}))})


def save(out: Path) -> None:
    """Write the figures of all repaired students, and the table of the page."""
    rows = [json.loads(file.read_text()) for file in sorted((out / "measured").glob("*.json"))]
    if not rows:
        return
    lines = [
        "| new site | students | before | after | change there | change on the sources |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for target in [*sorted({row["target"] for row in rows}), "all"]:
        part = [row for row in rows if target in ("all", row["target"])]
        before, after = ([100 * row["place"][when] for row in part] for when in ("old", "new"))
        gains = [b - a for a, b in zip(before, after, strict=True)]
        sources = [100 * row["validation"]["change"] for row in part]
        means = [f"{statistics.mean(values):.1f}" for values in (before, after)]
        cells = [target, str(len(part)), *means, *(spread(values) for values in (gains, sources))]
        lines.append(f"| {' | '.join(cells)} |")
    write_table(PAGE, "measured", lines)
    keep(
        "repair",
        {"students": rows, "queries": QUERIES, "circumstances": circumstances(sorted({r["seed"] for r in rows}))},
    )
    print("\n".join(lines))


def spread(values: list[float]) -> str:
    """Mean and standard deviation of several changes."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.1f}{deviation}"


def choose(jobs: Path, out: Path) -> None:
    """Compare settings on students with two held-out domains; one file per candidate, place and target."""
    storage = StoragePaths(out / "cache", out / "vectors.sqlite")
    first = next(job for job in sorted(jobs.iterdir()) if RunFolder(job).config_file.exists())
    settings = RunFolder(first).config().model_dump(mode="json", exclude={"made_with"})
    for pair in PAIRS:
        run = out / "pairs" / "-".join(pair)
        if not RunFolder(run).evaluation_file.exists():
            settings["data"]["held_out"] = pair
            distill(
                make_config(None, settings), run, resume=RunFolder(run).config_file.exists(), storage=storage,
                progress=LogLines(), report=False,
            )  # fmt: skip
        for site, target in (pair, pair[::-1]):
            for name, changes in CANDIDATES.items():
                file = out / "chosen" / f"{target}-{site}-{name.replace(', ', '-').replace(' ', '_')}.json"
                if not file.exists():
                    values = candidate(run, site, changes, file.with_suffix(""), storage)
                    file.write_text(json.dumps({"target": target, "place": site, "settings": name, "rows": values}))
                    print(file.stem, json.dumps(values), flush=True)


def candidate(
    run: Path, site: str, changes: dict[str, Any], out: Path, storage: StoragePaths
) -> list[dict[str, float]]:
    """Repair a student with changed settings: accuracy at the place and on the sources, by share of trained weights."""
    data = RunFolder(run).config().data
    settings = nested(changes)
    plan = plan_repair(run, data.root / site, out, storage=storage, progress=LogLines(), budget="0", settings=settings)
    student = repair(plan, progress=LogLines(), report=False).student
    start, end = plan.student.backbone.state_dict(), {k: v.clone() for k, v in student.backbone.state_dict().items()}
    samples = dict(sampled(plan, site, storage))
    rows = [{"share": -1.0} | {name: accuracy(plan.student, *sample, storage) for name, sample in samples.items()}]
    for share in SHARES:
        mixed = {k: v.lerp(end[k], share) if v.is_floating_point() else end[k] for k, v in start.items()}
        student.backbone.load_state_dict(mixed)
        rows.append({"share": share} | {name: accuracy(student, *s, storage) for name, s in samples.items()})
    return rows


def sampled(plan: RepairPlan, site: str, storage: StoragePaths) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Digests and labels of 600 images of the place that are not queried, and of 600 validation images."""
    config, generator = plan.config, np.random.default_rng(0)
    with closing(FileIndex(storage.cache / "files.sqlite")) as index:
        dataset, *_ = read_datasets(list_folder(config.data), config.data, index, None, Silent())
    queried = {row.tobytes() for part in (plan.trained, plan.checked) for row in part.digests}
    there = [row for row in dataset.rows_of(site) if dataset.digests[row].tobytes() not in queried]
    split = split_dataset(dataset, config.data, config.seed)
    for name, rows in (("place", np.array(there)), ("sources", np.concatenate(list(split.validation.values())))):
        chosen = generator.permutation(rows)[:600]
        yield name, (dataset.digests[chosen], dataset.labels[chosen])


def accuracy(student: Student, digests: NDArray[np.uint8], labels: NDArray[np.int64], storage: StoragePaths) -> float:
    """Top-1 accuracy in percent."""
    pixels = CachedPixels(storage.cache, student.preprocess.size, student.preprocess.fit)
    with torch.no_grad():
        logits, _ = student_answers(student, pixels.map(), pixels.slots(digests))
    return 100 * float((logits.argmax(axis=1) == labels).mean())


def main() -> None:
    """Choose the settings, measure, or rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("choose", "measure", "control", "table"))
    parser.add_argument("--students", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    keep_freed_memory()
    if a.what == "table":
        save(a.out)
    elif a.what == "control":
        control(a.out)
    else:
        {"choose": choose, "measure": measure}[a.what](a.students, a.out)


if __name__ == "__main__":
    main()
