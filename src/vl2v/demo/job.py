"""The demo: the main job offline, on drawings, with a teacher and a student from pip packages."""

from __future__ import annotations

from pathlib import Path

from vl2v.demo.drawings import draw
from vl2v.demo.weights import lite0_checkpoint
from vl2v.job.folder import RunFolder
from vl2v.job.prepare import Places
from vl2v.job.run import Run
from vl2v.progress import Progress

HELD_OUT = "line"
SIZE = 96  # pixels; small enough for two cores and a few minutes
SETTINGS = {
    "data": {"held_out": (HELD_OUT,)},
    "teacher": {"prompts": "name"},  # the teacher's text space is one of sentences about names, not of captions
    "student": {"size": SIZE},
    "align": {"steps": 2001, "learning_rate": 5e-4},
    "distill": {"steps": 121, "learning_rate": 1e-4, "checkpoint_every": 20},
    "batch_per_domain": 16,
}


def demo(out: Path, progress: Progress) -> Run | None:
    """Draw the task, open ``conse:``, and distil it into an ImageNet-pretrained efficientnet-lite0, one style held out.

    Everything lies under `out`: ``task``, ``cache``, ``student-weights`` and ``run``. Called again, it goes on with a
    run that was stopped.

    Raises:
        MissingExtraError: if the extra ``demo`` is not installed.
        RunError: if the demo has run here already.
    """
    from vl2v.api import distill

    task = draw(out / "task")
    weights = lite0_checkpoint(out / "student-weights")
    folder = out / "run"
    stopped = RunFolder(folder).config_file.exists() and not RunFolder(folder).evaluation_file.exists()
    return distill(
        task,
        "conse:",
        f"timm:tf_efficientnet_lite0@{weights}",
        out=folder,
        resume=stopped,
        places=Places(out / "cache", out / "vectors.sqlite"),
        progress=progress,
        settings=SETTINGS,
    )
