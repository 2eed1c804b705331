"""One PACS target from end to end: the simulated vendor's vectors, an EfficientNet-Lite0 student, one domain held out.

Uses the maintainers' folder: the client's 6,992 images only, and the vendor's own vectors for them and for the prompts.
The default settings are the paper's but for the number of steps, the batch and the size, which are those of a CPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

import numpy as np

import vl2v
from common import circumstances, keep, shared
from vl2v.job.console import for_people
from vl2v.job.prepare import Places
from vl2v.teacher.prompts import load_templates, render


def lay_out(folder: Path, scratch: Path) -> Path:
    """Link the client's images into a folder of their own and write the teacher's file; returns the latter."""
    sys.path.insert(0, str(folder / "teacher"))
    simulated = importlib.import_module("vendor").SimulatedVendor(folder / "teacher")

    for path in json.loads((folder / "teacher" / "split.json").read_text())["client"]:
        link = scratch / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(folder / "data" / path)
    arrays = np.load(folder / "teacher" / "pacs_image_embeddings.npz")
    classes = sorted(path.name for path in (scratch / "PACS" / "photo").iterdir())
    prompts = [render(t, name) for kind in ("photo", "name") for t in load_templates(kind) for name in classes]
    file = scratch / "teacher.npz"
    np.savez(
        file,
        paths=np.array([str(path).removeprefix("PACS/") for path in arrays["paths"]]),
        embeddings=arrays["embeddings"].astype(np.float32),
        texts=np.array(prompts),
        text_embeddings=simulated.embed_texts(prompts),
        logit_scale=20.0,
        identity="simulated vendor",
    )
    return file


def main() -> None:
    """Run one target and keep its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for links, cache and the run")
    parser.add_argument("--target", default="sketch")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=601)
    parser.add_argument("--batch-per-domain", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    folder = shared()
    if folder is None:
        print("skipped: the maintainers' folder is not beside the checkout")
        return
    teacher = lay_out(folder, a.scratch)
    run = vl2v.distill(
        a.scratch / "PACS",
        f"file:{teacher}",
        f"timm:tf_efficientnet_lite0@{folder / 'student' / 'tf_efficientnet_lite0.in1k.safetensors'}",
        out=a.scratch / f"{a.target}-{a.seed}",
        held_out=[a.target],
        places=Places(a.scratch / "cache", a.scratch / "vectors.sqlite"),
        progress=for_people(),
        settings={
            "student": {"size": a.size},
            "distill": {"steps": a.steps, "checkpoint_every": 50},
            "batch_per_domain": a.batch_per_domain,
            "seed": a.seed,
        },
    )
    assert run is not None
    setting = {key: value for key, value in vars(a).items() if key != "scratch"}
    figures = {"setting": setting, "image_queries": run.image_queries, **run.evaluation.to_dict()}
    keep(f"pacs-{a.target}-{a.seed}", figures | {"circumstances": circumstances([a.seed])})


if __name__ == "__main__":
    main()
