"""The evidence: PACS by DomainBed's protocol, with the simulated vendor and with the offline one.

Uses the maintainers' folder: the client's 6,992 images only, and the vendor's own vectors. May be stopped at any time
and called again, also several times at once: finished jobs are not done again.

    python benchmarks/pacs_grid.py --out runs/pacs --grid main
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import shared
from pacs import lay_out
from vl2v.benchmark.protocol import Grid, Variant, make_variants
from vl2v.benchmark.sweep import Sweep
from vl2v.job.console import LogLines
from vl2v.job.prepare import Places

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
SETTINGS: dict[str, Any] = {
    "student": {"size": 128},
    # Every method trains its last layer on kept features first: those that a random one would throw back in the few
    # steps that follow are the baselines.
    "align": {"steps": 1001, "learning_rate": 1e-3},
    "distill": {"steps": 201, "warmup_steps": 20, "checkpoint_every": 50},
    "batch_per_domain": 8,
    "measure": {"weights": ["last"], "wise_ft": [0.5]},
}
# Chosen by the source domains' zero-shot accuracy: for every target the three others agree.
PROMPTS = {"simulated": "name", "offline": "photo"}
VARY = {"distill.learning_rate": (1e-4, 5e-4)}
ABLATIONS = {
    "no-align": Variant(title="no Align", settings={"method": "adip", "align": {"steps": 0}}),
    "image-only": Variant(title="image only (lambda 1)", settings={"method": "adip", "image_weight": 1.0}),
    "lambda-0.9": Variant(title="lambda 0.9", settings={"method": "adip", "image_weight": 0.9}),
    "lambda-0.1": Variant(title="lambda 0.1", settings={"method": "adip", "image_weight": 0.1}),
    "text-only": Variant(title="text only (lambda 0)", settings={"method": "adip", "image_weight": 0.0}),
    "views-2": Variant(title="2 views", settings={"method": "adip", "teacher": {"views": 2}}),
    "views-4": Variant(title="4 views", settings={"method": "adip", "teacher": {"views": 4}}),
}


def grid(name: str, scratch: Path, folder: Path) -> Grid:
    """One of the grids by name: main, offline, ablations."""
    kind = "offline" if name == "offline" else "simulated"
    teacher = "offline:" if kind == "offline" else f"file:{lay_out(folder, scratch)}"
    student = folder / "student" / "tf_efficientnet_lite0.in1k.safetensors"
    settings = SETTINGS | {
        "data": {"root": str(scratch / "PACS")},
        "teacher": {"spec": teacher, "prompts": PROMPTS[kind]},
        "student": SETTINGS["student"] | {"spec": f"timm:tf_efficientnet_lite0@{student}"},
    }
    methods = {"main": ("erm", "kd", "adip"), "offline": ("kd", "adip"), "ablations": ()}[name]
    return Grid(
        settings=settings,
        variants=make_variants(methods, ABLATIONS if name == "ablations" else {}),
        domains=DOMAINS,
        targets=DOMAINS,
        seeds=(0,) if name == "ablations" else (0, 1, 2),
        vary=VARY,
        tune="first-seed",
    )


def main() -> None:
    """Run a grid to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grid", choices=("main", "offline", "ablations"), default="main")
    a = parser.parse_args()
    folder = shared()
    if folder is None:
        print("skipped: the maintainers' folder is not beside the checkout")
        return
    places = Places(a.out / "cache", a.out / "vectors.sqlite")
    sweep = Sweep(grid(a.grid, a.out / "task", folder), a.out / a.grid, places)
    progress = LogLines()
    sweep.open(progress)
    done = sweep.run(progress)
    print(f"{len(done.finished)} jobs finished, {len(done.failed)} failed: {done.failed}")


if __name__ == "__main__":
    main()
