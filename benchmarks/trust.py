"""Evaluate trust data, fitted on validation images of the source domains, there and on the held-out domain.

For every finished job of a grid that training-domain validation selects: calibration error before and after the
temperature; the risk-coverage curve by confidence and by energy; what the sources' thresholds do on the held-out
domain. The calibrated in-domain error is cross-fitted: the temperature comes from one half of every source's validation
images, the error from the other. Drift covers one seed of one method, from embeddings of the jobs' images: false
alarms on the half of the validation images that the reference does not know, detections on the held-out domain.

    python benchmarks/trust.py RUNS/pacs/main [--embeddings FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import circumstances, keep
from vl2v.benchmark.results import JOBS, ZERO_SHOT, Record, records_of
from vl2v.benchmark.selection import select
from vl2v.benchmark.statistics import Spread
from vl2v.commands.trust import SIZES, read_answers
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN
from vl2v.evaluation.predictions import Predictions
from vl2v.json_files import read_json
from vl2v.runs.folder import RunFolder
from vl2v.student.model import Student
from vl2v.trust.calibration import fit_temperature, reliability
from vl2v.trust.drift import fit_reference, share_unusual
from vl2v.trust.fit import fit
from vl2v.trust.rejection import risk_coverage
from vl2v_runtime.trust import SCORES, probabilities

DRIFT_METHOD, DRIFT_SEED, ONE_CLASS = "adip", 0, 8
Figures = dict[str, float]


def main() -> None:
    """Measure and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", type=Path, help="a benchmark's folder with finished jobs")
    parser.add_argument("--embeddings", type=Path, help="keep them here, to compute them once")
    arguments = parser.parse_args()
    jobs = selected(arguments.grid)
    measured: dict[str, dict[int, dict[str, Figures]]] = defaultdict(lambda: defaultdict(dict))
    for (method, target, seed), folder in jobs.items():
        measured[method][seed][target] = measure(read_answers(RunFolder(folder)))
    drift = {
        target: measure_drift(folder, arguments.embeddings)
        for (method, target, seed), folder in jobs.items()
        if (method, seed) == (DRIFT_METHOD, DRIFT_SEED)
    }
    figures = {"methods": {method: summary(by_seed) for method, by_seed in measured.items()}}
    means = {key: fmean(row[key] for row in drift.values() if key in row) for key in next(iter(drift.values()), {})}
    about = {"method": DRIFT_METHOD, "seed": DRIFT_SEED, "mean": means, "targets": drift}
    keep("trust", figures | {"drift": about, "circumstances": circumstances(sorted({seed for *_, seed in jobs}))})


def selected(grid: Path) -> dict[tuple[str, str, int], Path]:
    """The folder of the candidate that training-domain validation selects, by method, target and seed."""
    folders, records = {}, []
    for file in sorted((grid / JOBS).glob("*/job.json")):
        facts = read_json(file)
        if facts["crossed"] is None:
            several = [r for r in records_of(file) if r.saved and r.method != ZERO_SHOT]
            records += several
            folders[_name(facts["method"], facts["target"], facts["seed"], facts["candidate"])] = file.parent
    seeds = sorted({record.seed for record in records})
    chosen: list[Record] = []
    for seed in seeds:  # by seed, since further seeds may have one candidate only, the first seed's choice
        chosen += select([record for record in records if record.seed == seed]).records
    return {(r.method, r.target, r.seed): folders[_name(r.method, r.target, r.seed, r.candidate)] for r in chosen}


def _name(method: str, target: str, seed: int, candidate: Mapping[str, Any]) -> str:
    return json.dumps([method, target, seed, dict(candidate)], sort_keys=True)


def measure(results: Predictions) -> Figures:
    """Return the figures of one job, as shares in [0, 1]."""
    sources, held_out = results.role == IN_DOMAIN, results.role == OUT_OF_DOMAIN
    trust = fit(results.student[sources], results.label[sources], results.domain[sources])
    assert trust is not None
    logits, labels = results.student[held_out], results.label[held_out]
    right = logits.argmax(axis=1) == labels
    measured = {
        "temperature": trust.temperature,
        "in_domain_ece": reliability(probabilities(results.student[sources]), results.label[sources]).error,
        "in_domain_ece_calibrated": _crossed_ece(results),
        "ece": reliability(probabilities(logits), labels).error,
        "ece_calibrated": reliability(trust.probabilities(logits), labels).error,
        "temperature_wanted": fit_temperature(logits, labels),  # reported only: uses held-out labels
        "wrong": float(1 - right.mean()),
        "overconfidence_calibrated": float(trust.probabilities(logits).max(axis=1).mean() - right.mean()),
    }
    for score in SCORES:
        curve = risk_coverage(trust.scores(logits, score), right)
        measured |= {f"aurc_{score}": curve.area, f"wrong_at_80_{score}": curve.at(0.8)}
        inside = results.student[sources].argmax(axis=1) == results.label[sources]
        measured[f"in_domain_aurc_{score}"] = risk_coverage(trust.scores(results.student[sources], score), inside).area
        for coverage in (0.95, 0.8):
            accepted = trust.accepts(logits, score, coverage)
            measured[f"answered_by_threshold_{100 * coverage:.0f}_{score}"] = float(accepted.mean())
            measured[f"wrong_by_threshold_{100 * coverage:.0f}_{score}"] = float(1 - right[accepted].mean())
    error, sure = measured["wrong"], 1 - measured["wrong"]
    return measured | {"aurc_least_possible": error + sure * np.log(sure)}  # of Geifman et al., ICLR 2019


def halves(results: Predictions) -> NDArray[np.bool_]:
    """[N] the first half of every source's validation images, as a seeded shuffle has them."""
    rng, first = np.random.default_rng(0), np.zeros(len(results.label), bool)
    for name in results.domains:
        rows = rng.permutation(np.flatnonzero((results.domain == name) & (results.role == IN_DOMAIN)))
        first[rows[: len(rows) // 2]] = True
    return first


def _crossed_ece(results: Predictions) -> float:
    first, sources = halves(results), results.role == IN_DOMAIN
    rows, labels = [], []
    for fitted, measured in ((first, sources & ~first), (sources & ~first, first)):
        temperature = fit_temperature(results.student[fitted], results.label[fitted])
        rows.append(probabilities(results.student[measured], temperature))
        labels.append(results.label[measured])
    return reliability(np.concatenate(rows), np.concatenate(labels)).error


def measure_drift(folder: Path, embeddings_folder: Path | None) -> Figures:
    """False alarms and detections of one job, shares of batches in [0, 1]."""
    results = read_answers(RunFolder(folder))
    embeddings = _embeddings(folder, results, embeddings_folder)
    sources, first = results.role == IN_DOMAIN, halves(results)
    names = list(dict.fromkeys(results.domain[sources].tolist()))
    measured: dict[str, list[float | None]] = defaultdict(list)
    for fitted in (first, sources & ~first):
        reference = fit_reference(embeddings[fitted], results.domain[fitted], results.answers[fitted])
        assert reference is not None
        unseen = sources & ~fitted
        for size in SIZES:
            parts = [unseen & (results.domain == name) for name in names]
            measured[f"false_alarms_{size}"] += [share_unusual(reference, embeddings[part], size) for part in parts]
            measured[f"false_alarms_mixed_{size}"].append(share_unusual(reference, embeddings[unseen], size))
        cells = [unseen & (results.domain == n) & (results.label == k) for n in names for k in np.unique(results.label)]
        measured["false_alarms_one_class_8"] += [share_unusual(reference, embeddings[c], ONE_CLASS, 50) for c in cells]
    reference = fit_reference(embeddings[sources], results.domain[sources], results.answers[sources])
    assert reference is not None
    for size in SIZES:
        measured[f"detections_{size}"].append(
            share_unusual(reference, embeddings[results.role == OUT_OF_DOMAIN], size, 500)
        )
    return {key: fmean(value for value in values if value is not None) for key, values in measured.items()}


def _embeddings(folder: Path, results: Predictions, keep_in: Path | None) -> NDArray[np.float32]:
    file = keep_in / f"{folder.name}.npy" if keep_in else None
    if file is not None and file.exists():
        known: NDArray[np.float32] = np.load(file)
        return known
    root = RunFolder(folder).config().data.root
    rows = Student.load(folder).embed(root / path for path in results.path.tolist())
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, rows)
    return rows


def summary(by_seed: Mapping[int, Mapping[str, Figures]]) -> dict[str, Any]:
    """Return means over seeds with standard errors, for the mean over targets and for each target."""
    targets = sorted({target for by_target in by_seed.values() for target in by_target})
    complete = [by_target for by_target in by_seed.values() if len(by_target) == len(targets)]
    each = {t: _spreads([by[t] for by in by_seed.values() if t in by]) for t in targets}
    mean = [{key: fmean(by[t][key] for t in targets) for key in by[targets[0]]} for by in complete]
    return {"mean": _spreads(mean), "targets": each}


def _spreads(rows: Sequence[Figures]) -> dict[str, Any]:
    return {key: asdict(Spread.of([row[key] for row in rows])) for key in rows[0]} if rows else {}


if __name__ == "__main__":
    main()
