"""`python -m vl2v_runtime MODEL IMAGES...`, installed as `vl2v-predict`: classify images with an exported file."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vl2v_runtime import __version__
from vl2v_runtime.errors import ModelError, short_lines
from vl2v_runtime.inputs import search
from vl2v_runtime.model import BATCH, Attempt, Model, load
from vl2v_runtime.names import cell, printable, shown
from vl2v_runtime.network import Floats
from vl2v_runtime.terminal import clean, flush_streams, is_unicode, prepare_streams
from vl2v_runtime.trust import ALL_SCORES, CONFIDENCE, NEGATIVES, REJECT_COVERAGE, REJECTED, UNSURE, refusal

FORMATS = ("table", "json", "csv")
UNREADABLE = 3  # exit code if an image could not be read, as in vl2v predict
MOST_THREADS, MOST_BATCH = 1024, 100_000
COMPARED = 10_000  # images that are compared with the training domains; more would only need memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    paths = _find(flags.images)
    if missing := [path for path in flags.images if not path.exists()]:
        return _fail(f"no such file or folder: {', '.join(map(shown, missing))}", UNREADABLE)
    if not paths:
        return _fail("no image in the given folders", UNREADABLE)
    try:
        score, least = _selected(flags, parser)
        model = load(flags.model, threads=flags.threads, int8=flags.int8 or None, spinning=False)
        if least is not None:
            _check_coverage(model, score, least, parser)
        # without a coverage, no prediction is rejected
        score, coverage = (CONFIDENCE, 1.0) if least is None else (score, least)
        attempts = model.attempts(paths, flags.batch_size, score=score, coverage=coverage)
        mark = "" if least is None else REJECTED if score == NEGATIVES else UNSURE
        faults, embeddings = _print(zip(paths, attempts, strict=True), flags.format, mark)
    except ModelError as error:
        return _fail(str(error), error.exit_code)
    _hint(model, embeddings)
    return UNREADABLE if faults else 0


def _fail(message: str, code: int) -> int:
    print(clean(short_lines(f"error: {message}")), file=sys.stderr)
    return code


def _selected(flags: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[str, float | None]:
    """Return the score and the coverage that --score, --coverage and --reject select; the coverage may be None."""
    if flags.score is not None and flags.coverage is None and not flags.reject:
        parser.error("argument --score: it has no effect without --coverage, such as --coverage 0.95")
    if not flags.reject:
        return CONFIDENCE if flags.score is None else flags.score, flags.coverage
    if flags.score not in (None, NEGATIVES):
        parser.error(f"argument --reject: it selects --score {NEGATIVES}, not {flags.score}")
    return NEGATIVES, REJECT_COVERAGE if flags.coverage is None else flags.coverage


def _check_coverage(model: Model, score: str, coverage: float, parser: argparse.ArgumentParser) -> None:
    if parts := refusal(model.trust, score, linear=model.dimension is None):
        raise ModelError(**parts)
    assert model.trust is not None
    try:
        model.trust.threshold(score, coverage)
    except ValueError as error:
        parser.error(f"argument --coverage: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vl2v-predict",
        description="Classify images with a model exported by vl2v. The exit code is 3 if an image cannot be read.",
    )
    parser.add_argument("--version", action="version", version=f"vl2v-runtime {__version__}")
    parser.add_argument("model", type=_path, help="an .onnx file, or the folder of an export or a run")
    parser.add_argument("images", type=_path, nargs="+", help="images, or folders of images")
    parser.add_argument("--format", choices=FORMATS, default="table", help="output format (default: table)")
    parser.add_argument("--int8", action="store_true", help="use the quantised file of a folder")
    parser.add_argument("--threads", type=_count(MOST_THREADS), help="CPU threads (default: all cores)")
    parser.add_argument(
        "--batch-size", type=_count(MOST_BATCH), default=BATCH, help="images per batch (default: %(default)s)"
    )
    parser.add_argument(
        "--coverage",
        type=_share,
        help="mark predictions as unsure below the threshold that accepts this share of validation images, e.g. 0.95",
    )
    parser.add_argument("--score", choices=ALL_SCORES, help=f"score for --coverage (default: {CONFIDENCE})")
    parser.add_argument(
        "--reject",
        action="store_true",
        help=f"mark images that are probably none of the classes: --score {NEGATIVES} --coverage {REJECT_COVERAGE:g}",
    )
    return parser


def _path(text: str) -> Path:
    """Parse a path. An empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; is a variable of the shell unset?")
    return Path(text)


def _count(most: int) -> Callable[[str], int]:
    """Return a parser of an integer from 1 to `most`."""

    def parse(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]} is not a whole number from 1 to {most:,}")
        return number

    parse.__name__ = "whole number"  # in messages of argparse
    return parse


def _share(text: str) -> float:
    """Parse a finite number."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number


_share.__name__ = "number"  # in messages of argparse


def _find(inputs: Sequence[Path]) -> list[Path]:
    """Return the given files and the images in the given folders. Skipped files are reported on standard error."""
    paths: list[Path] = []
    for path in inputs:
        if path.is_dir():
            images, left_out = search(path)
            paths += images
            if left_out:
                print(f"warning: {shown(path)}: {left_out}", file=sys.stderr)
        else:
            paths.append(path)
    return paths


def _print(done: Iterator[tuple[Path, Attempt]], output: str, mark: str) -> tuple[int, list[Floats]]:
    """Print the predictions.

    Args:
        done: images and their results.
        output: one of `FORMATS`.
        mark: mark of predictions that are not accepted, in a table; empty if none is rejected.

    Returns:
        The number of unreadable images, and the embeddings to compare with the training domains.
    """
    if output == "csv":
        _write_row(("path", "label", "confidence", "accepted", "fault"))
    rows: list[dict[str, Any]] = []
    embeddings: list[Floats] = []
    faults = 0
    for path, attempt in done:
        answer, faults = attempt.answer, faults + bool(attempt.fault)
        if attempt.embedding is not None and len(embeddings) < COMPARED:
            embeddings.append(attempt.embedding)
        label, confidence = (answer.label, answer.confidence) if answer else ("", None)
        accepted = answer.accepted if answer and mark else None
        if output == "json":
            chances = answer.probabilities if answer else {}
            row = {"path": printable(path), "label": label, "confidence": confidence, "accepted": accepted}
            rows.append(row | {"fault": attempt.fault, "probabilities": chances})
        elif output == "csv":
            sure = {None: "", True: "yes", False: "no"}[accepted]
            number = "" if confidence is None else f"{confidence:.6f}"
            _write_row((printable(path), cell(label), number, sure, attempt.fault))
        else:
            result = f"not read: {attempt.fault}" if answer is None else f"{confidence:.3f}  {label}"
            print(clean(f"{shown(path)}  {result}{f'  ({mark})' if accepted is False else ''}"))
    if output == "json":
        _write(json.dumps(rows, indent=2, ensure_ascii=not is_unicode(sys.stdout)) + "\n")
    return faults, embeddings


def _write_row(values: Sequence[str]) -> None:
    row = io.StringIO()
    csv.writer(row).writerow(values)
    _write(row.getvalue())


def _write(text: str) -> None:
    """Write exact text to a file or a pipe; a terminal displays control characters of file names as escapes."""
    sys.stdout.write(clean(text) if sys.stdout.isatty() else text)


def _hint(model: Model, embeddings: list[Floats]) -> None:
    """Warn on standard error if the images are unlike the training domains."""
    drift = model.trust.drift(np.stack(embeddings)) if model.trust and embeddings else None
    if drift is not None and drift.unusual:
        print(clean(f"warning: {drift.text}"), file=sys.stderr)


def script() -> None:
    """Entry point of the command `vl2v-predict`."""
    prepare_streams()
    try:
        code = main()
        code = flush_streams() or code
    except BrokenPipeError:
        code = flush_streams() or 1
    except OSError as error:  # e.g. a full disk behind standard output
        where = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{where}{error.strerror or error}", 1)
    sys.exit(code)


if __name__ == "__main__":
    script()
