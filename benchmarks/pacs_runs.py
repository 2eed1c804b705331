"""Short runs of `vl2v distill` on PACS, for benchmarks that compare different data or queries."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import need_shared
from pacs_dataset import link_images, student, vectors_file
from vl2v.api import distill
from vl2v.cli.console import LogLines
from vl2v.locations import StoragePaths
from vl2v.nested import merge
from vl2v.runs.folder import RunFolder


def short_settings(scratch: Path, target: str, seed: int, method: str = "vl2v") -> dict[str, Any]:
    """Settings of a run of 300 steps at 96 pixels with the recipe, the simulated vendor and one held-out domain."""
    folder = need_shared()
    return {
        "method": method,
        "seed": seed,
        "device": "cpu",
        "data": {"root": str(link_images(folder, scratch)), "held_out": [target]},
        "teacher": {"spec": f"file:{vectors_file(folder, scratch)}", "prompts": "name"},
        "student": {"spec": student(folder), "size": 96},
        "distill": {"steps": 300, "freeze": 0.03, "checkpoint_every": 25},
    }


def accuracies(
    out: Path,
    settings: Mapping[str, Any],
    storage: StoragePaths,
    more: Mapping[str, Any] | None = None,
    budget: str | None = None,
) -> dict[str, float]:
    """Train a student, unless its run is finished, and return its accuracies.

    Args:
        out: folder of the run; an interrupted run continues.
        settings: see `short_settings`.
        storage: its cache and store.
        more: settings that take precedence.
        budget: the most to spend.

    Returns:
        The accuracy on the held-out domain, and the mean over the validation images of the source domains.
    """
    run, (target,) = RunFolder(out), settings["data"]["held_out"]
    if not run.evaluation_file.exists():
        distill(
            out=out,
            settings=merge(settings, more or {}),
            storage=storage,
            budget=budget,
            progress=LogLines(),
            resume=out.exists(),
            report=False,
        )
    domains = json.loads(run.evaluation_file.read_text())["domains"]
    (unseen,) = (d["student"] for d in domains if d["domain"] == target)
    return {"unseen": unseen, "in-domain": statistics.fmean(d["student"] for d in domains if d["domain"] != target)}
