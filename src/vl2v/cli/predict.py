"""`vl2v evaluate` and `vl2v predict`. Heavy imports happen when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vl2v.allocator import keep_freed_memory
from vl2v.cli.common import CacheOpt, DataArg, ImageOpt, Json, Quiet, finite, make_progress, storage_paths
from vl2v.cli.settings import with_settings
from vl2v.errors import ConfigError
from vl2v.schema import Metric
from vl2v.terminal import say


@with_settings(
    *("data.image", "data.label", "data.split", "data.group", "data.skip_bad", "data.class_first"),
    assign=False,
    texts={
        "data.image": "Table column with the image paths (default: as in training, else recognised by name).",
        "data.label": "Table column with the classes (default: as in training, else recognised by name).",
        "data.split": "Table column with the split; only the test images are evaluated (default: as in training, else "
        "all images).",
        "data.group": "Table column with groups, to reproduce the split of the run (default: as in training).",
        "data.class_first": "Read folders as class/domain/image (default: as in training, if the classes are on that "
        "level).",
    },
)
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run or a student.")],
    data: DataArg,
    domain: Annotated[list[str] | None, typer.Option(help="Domain to evaluate (default: all); repeatable.")] = None,
    domain_column: Annotated[
        str | None, typer.Option(help="Table column with the domains, or none (default: as in training).")
    ] = None,
    metric: Annotated[Metric, typer.Option(help="accuracy, or macro: the mean of the classes' recall.")] = "accuracy",
    cache: CacheOpt = None,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Evaluate a student on a folder or a table of labelled images."""
    keep_freed_memory()
    from vl2v.api import evaluate as measure
    from vl2v.cli.console import show

    columns = settings["data"]  # the given ones
    result = measure(
        run,
        data,
        domains=domain or (),
        skip_bad=columns.pop("skip_bad", False),
        class_first=columns.pop("class_first", None),
        columns=columns | {"domain": domain_column},
        metric=metric,
        storage=storage_paths(cache, None),
        progress=make_progress(quiet, as_json),
    )
    show(result.to_dict() if as_json else result.table())


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run or a student, or hf:user/name.")],
    images: Annotated[
        list[Path], typer.Argument(help="Images, folders of images, tables that list them, or datasets of other tools.")
    ],
    image: ImageOpt = None,
    output: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    coverage: Annotated[
        float | None,
        typer.Option(
            help="Mark predictions as unsure below the threshold that accepts this share of validation images.",
            callback=finite,
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(help="Score for --coverage: confidence, energy or negatives.", show_default="confidence"),
    ] = None,
    reject: Annotated[
        bool,
        typer.Option(
            "--reject",
            help="Mark images that are probably none of the classes: --score negatives --coverage 0.95. "
            "The student needs negative texts; see vl2v trust --reject.",
        ),
    ] = False,
) -> None:
    """Classify images. Unreadable images and rows of a table are listed with the error, and the exit code is 3."""
    keep_freed_memory()
    from vl2v.api import load
    from vl2v.cli.printing import FORMATS, show_answers
    from vl2v.commands.evaluate import classify
    from vl2v.commands.given_images import find_images
    from vl2v.student.provenance import data_settings
    from vl2v_runtime.trust import CONFIDENCE, NEGATIVES, REJECT_COVERAGE, REJECTED, UNSURE

    if output not in FORMATS:
        raise ConfigError("Unknown format.", expected=", ".join(FORMATS), found=output, next_step="correct --format")
    if reject and score not in (None, NEGATIVES):
        step = "drop --reject or --score"
        found = f"--reject --score {score}"
        raise ConfigError("Two scores are selected.", expected=f"--score {NEGATIVES}", found=found, next_step=step)
    if score is not None and coverage is None and not reject:
        raise ConfigError(
            "--score has no effect without a threshold.",
            expected="a share of validation images to accept, such as --coverage 0.95",
            found=f"--score {score} alone",
            next_step="add --coverage, or drop --score",
        )
    if reject:
        score, coverage = NEGATIVES, REJECT_COVERAGE if coverage is None else coverage
    student = load(run)
    run_data = data_settings(student.provenance)
    inputs, left_out = find_images(images, image, run_data=run_data, progress=make_progress(quiet=False, as_json=False))
    for text in left_out:
        say(f"warning: {text}")
    answers, drift = classify(
        student, inputs, coverage=coverage, score=CONFIDENCE if score is None else score, every_class=output == "json"
    )
    faults = show_answers(answers, output, REJECTED if score == NEGATIVES else UNSURE)
    if drift is not None and drift.unusual:
        say(f"warning: {drift.text}")
    if faults:
        raise typer.Exit(3)
