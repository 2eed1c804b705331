"""Retrain on all domains for deployment, with the settings of a finished run."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from vl2v.analysis.intervals import wilson
from vl2v.commands.distill import Run, run
from vl2v.commands.moved import TRAINING, StatedLocations, locate_images
from vl2v.errors import ConfigError, RunError
from vl2v.evaluation.evaluation import Evaluation
from vl2v.json_files import read_json, write_json
from vl2v.locations import StoragePaths
from vl2v.progress import Progress
from vl2v.reports.source import evaluation_of_run
from vl2v.runs.folder import EXPECTED, RunFolder
from vl2v.runs.start_checks import ensure_finished, ensure_new, ensure_teacher_allowed
from vl2v.runs.storage import storage_of
from vl2v.settings import make_config
from vl2v_runtime.names import shown

# 97.5% quantiles of Student's t for 1 to 10 degrees of freedom; the last one also serves for more.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Expected:
    """Expected accuracy on an unseen domain, as measured by the first run.

    Attributes:
        accuracy: mean over the domains that the first run held out, in [0, 1].
        low: lower end of the 95% interval.
        high: upper end of the 95% interval.
        domains: the domains that the first run held out.
        images: number of their images.
    """

    accuracy: float
    low: float
    high: float
    domains: tuple[str, ...]
    images: int

    @classmethod
    def of(cls, evaluation: Evaluation) -> Expected | None:
        """Compute it from the evaluation of a run; return None if the run has no held-out domain.

        With several held-out domains, it is the prediction interval for another domain, by Student's t over domains.
        With one, it is Wilson's interval over images, which does not cover differences between domains.
        """
        rows = [row for row in evaluation.rows if row.role == "out-of-domain"]
        if not rows:
            return None
        values, images = [row.student for row in rows], sum(row.images for row in rows)
        mean = sum(values) / len(values)
        if len(values) == 1:
            low, high = wilson(mean * images, images)
        else:
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            quantile = T975[min(len(values) - 1, len(T975)) - 1]
            half = quantile * math.sqrt(variance * (1 + 1 / len(values)))
            low, high = max(0.0, mean - half), min(1.0, mean + half)
        return cls(mean, low, high, tuple(row.domain for row in rows), images)

    def __str__(self) -> str:
        """Format it as one line, in percent."""
        text = f"{100 * self.accuracy:.1f}% (95% interval {100 * self.low:.1f} to {100 * self.high:.1f}"
        source = f"measured by the first run on {', '.join(self.domains)}, {self.images:,} images"
        few = "; one domain says little about others" if len(self.domains) == 1 else ""
        return f"expected on a new domain: {text}; {source}{few})"


def final(
    first: Path,
    out: Path,
    *,
    budget: str | None = None,
    teacher: str | None = None,
    data: StatedLocations = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
    report: bool = True,
) -> tuple[Run | None, Expected]:
    """Train a student for deployment: the settings of a finished run, with its held-out domains as sources too.

    To continue after an interruption, call it again.

    A part of every domain remains for validation, as in any run. Nothing is bought if the first run has bought the
    embeddings of its held-out domains, which it does unless ``teacher.zero_shot`` is off.

    Args:
        out: folder of the new run, new or empty.
        budget: the most to spend; None spends nothing.
        teacher: the teacher of the run, if its address has changed or the run comes from elsewhere.
        data: the run's images, if they have moved, or `NewLocations`; both runs record them.
        storage: paths of cache and store; None uses those of the first run.
        progress: receives the progress of every stage.
        report: whether to write ``report.html`` at the end.

    Returns:
        The new run (None in all processes except the first), and the accuracy to expect on a new domain. The latter is
        also in ``expected.json`` of the new run.

    Raises:
        RunError: if the first run is not finished, `out` has another run, or the images are missing.
        ConfigError: if it has no held-out domain.
        BudgetError: if embeddings are missing that the budget does not cover.
    """
    folder = RunFolder(first)
    config = folder.config()
    ensure_finished(folder)
    expected = Expected.of(evaluation_of_run(folder)[0])
    if expected is None or not config.data.held_out:
        raise ConfigError(
            f"{first} has no held-out domain.",
            expected="a run with held-out domains, whose accuracy on unseen domains is known",
            found="a run that was trained on every domain",
            next_step="deploy its student, or run vl2v distill with --held-out first",
        )
    limit = "0" if budget is None else budget
    resume, paths = _is_begun(out, first), storage or storage_of(first)
    for begun in [folder, *([RunFolder(out)] if resume else [])]:
        config = locate_images(begun, data, paths, progress, needed=TRAINING)
    values = config.model_dump(mode="json") | {"budget": limit}
    values["data"]["held_out"] = ()
    if not resume:
        ensure_teacher_allowed(folder, teacher)
        values["teacher"]["spec"] = teacher or config.teacher.spec
    final_config = make_config(None, values)
    if int(os.environ.get("RANK", "0")) == 0 and not resume:  # of several processes, the first writes
        ensure_new(RunFolder(out), final_config.data.root)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / EXPECTED, asdict(expected) | {"first_run": str(first.resolve())})
    done = run(final_config, out, resume=resume, storage=paths, progress=progress, report=report, teacher_spec=teacher)
    return done, expected


def _is_begun(out: Path, first: Path) -> bool:
    """Whether a folder has a run that this command began, to be continued."""
    if not RunFolder(out).config_file.is_file() or not (out / EXPECTED).is_file():
        return False
    content = read_json(out / EXPECTED)
    began = str(content.get("first_run"))[:1000] if isinstance(content, dict) else "something else"
    if began != str(first.resolve()):
        step = "choose another folder: --out FOLDER"
        problem, expected = f"{shown(out)} was made from another run.", shown(str(first.resolve()))
        raise RunError(problem, expected=expected, found=shown(began), next_step=step)
    return True
