"""Export a run to files for a device, each verified against the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn

from vl2v.commands.moved import ensure_images
from vl2v.commands.trust import read_answers
from vl2v.config import DataConfig
from vl2v.data.folder import search
from vl2v.data.tables.base import is_table
from vl2v.data.unlabelled_folder import class_folders
from vl2v.errors import ConfigError, RunError, StudentError
from vl2v.evaluation.evaluation import student_answers
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.hints import resume_command
from vl2v.json_files import write_json
from vl2v.locations import StoragePaths
from vl2v.onnx_export.exported import EXPORT, REPORT
from vl2v.onnx_export.onnx import need_onnx, to_onnx, write
from vl2v.onnx_export.parity import Compared, check_parity, compare
from vl2v.onnx_export.quantise import quantise
from vl2v.onnx_export.sample import Sample, batches, random_sample, run_sample
from vl2v.origin import ORIGIN, origin_of
from vl2v.planning.prepare import known_columns, known_order
from vl2v.progress import Progress, Silent, warn
from vl2v.redaction import public_provenance
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.runs.run_files import read_export
from vl2v.runs.start_checks import ensure_outside
from vl2v.runs.storage import storage_of
from vl2v.student.architectures import CUSTOM_MODULE
from vl2v.student.files import CARD
from vl2v.student.model import Student
from vl2v.student.provenance import check_provenance, data_settings
from vl2v.validation import parse
from vl2v.writing import ensure_writable
from vl2v_runtime.model import FLOAT, INT8, Model
from vl2v_runtime.names import quoted

FORMAT = 1
POINTS = 0.5  # default maximum loss of accuracy of INT8


@dataclass(frozen=True)
class Export:
    """The exported files.

    Attributes:
        images: the images on which files and student were compared; see `vl2v.onnx_export.sample.Sample.what`.
        files: comparison with the student, by name of the file.
    """

    folder: Path
    images: str
    files: Mapping[str, Compared]
    reference: Reference = LABELS

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, accuracies in [0, 1]."""
        files = {name: asdict(file) | {"images_are": self.images} for name, file in self.files.items()}
        measure = {} if self.reference is LABELS else {"measure": self.reference.measure}
        return {"format": FORMAT, **measure, "files": files}

    def table(self) -> Table:
        """Return a table for a terminal, accuracies in percent."""
        some = next(iter(self.files.values()))
        table = Table(title=f"{self.folder}, compared with the student on {some.images:,} {self.images}")
        measure = self.reference.measure.removeprefix("top-1 ")
        for name in ("file", "MB", "greatest difference", "same class", measure, "student", "lost"):
            table.add_column(name, justify="left" if name == "file" else "right", no_wrap=name == "file")
        for name, file in self.files.items():
            accuracies = ("-", "-", "-")
            if file.accuracy is not None and file.student is not None:
                accuracies = (f"{100 * file.accuracy:.2f}", f"{100 * file.student:.2f}", f"{file.lost:.2f}")
            cells = (f"{file.bytes / 1e6:.1f}", f"{file.logits:.1e}", f"{100 * file.agreement:.1f}")
            table.add_row(name, *cells, *accuracies)
        return table


def export(
    folder: Path,
    *,
    onnx: bool = False,
    int8: bool = False,
    out: Path | None = None,
    data: Path | None = None,
    tolerance: float = POINTS,
    backbone: nn.Module | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write a student as ONNX, in float32, INT8 or both. Each file is compared with the student before it is renamed.

    Args:
        folder: folder of a finished run or of a student.
        onnx: whether to write `model.onnx`; also written if `int8` is false.
        int8: whether to write `model.int8.onnx`, calibrated on training images of the source domains.
        out: folder of the files; None for `export` in `folder`.
        data: the run's images, if they have moved, or images for a student without a run.
        tolerance: maximum loss of accuracy of INT8, in percentage points; see `check_parity`.
        backbone: the architecture, if it is a custom module.
        storage: paths of the caches; None uses those of the run.

    Raises:
        StudentError: if a file disagrees with the student; no file is replaced then.
        RunError: if the run is not finished, or its images are missing.
        OSError: before any work, if `out` cannot be written.
        Vl2vError: for any other fault.
    """
    if not 0 <= tolerance < float("inf"):
        expected, step = "percentage points, 0 or more", "pass another tolerance, such as 0.5"
        raise ConfigError("The tolerance is not valid.", expected=expected, found=f"{tolerance:g}", next_step=step)
    need_onnx()
    if out is not None:
        ensure_writable(out / FLOAT)
        ensure_outside(out, data or RunFolder(folder).images())
    with alone_in(folder if out is None else None, "vl2v export"):
        out = out or folder / EXPORT
        progress = progress or Silent()
        student = load_student(folder, backbone)
        sample = _sample(folder, student, data, int8, storage or storage_of(folder, uses_store=False), progress)
        out.mkdir(parents=True, exist_ok=True)
        names = [FLOAT] * (onnx or not int8) + [INT8] * int8
        files = _write_files(student, sample, names, out, tolerance, progress)
        done = Export(out, sample.what, files, sample.reference)
        _write_report(done, origin_of(student.provenance))
        return done


def _write_files(
    student: Student, sample: Sample, names: Sequence[str], out: Path, tolerance: float, progress: Progress
) -> dict[str, Compared]:
    """Write files under temporary names, compare them with the student, and rename them."""
    fresh = {name: out / f"{name}.new" for name in (FLOAT, INT8)}
    files = {}
    try:
        with progress.stage("export", 2 + len(names)) as advance:
            write(to_onnx(student, public_provenance(student.provenance)), fresh[FLOAT])
            advance(1)
            if INT8 in names:
                quantise(fresh[FLOAT], fresh[INT8], batches(student.preprocess, sample.pixels, sample.calibration))
            truth = student_answers(student, sample.pixels, sample.slots)
            advance(1)
            for name in names:
                files[name] = compare(Model(fresh[name]), truth, sample)
                check_parity(name, files[name], tolerance, sample.reference)
                advance(1)
        for name in names:
            fresh[name].replace(out / name)
    finally:
        for path in fresh.values():
            path.unlink(missing_ok=True)
    return files


def load_student(folder: Path, backbone: nn.Module | None = None) -> Student:
    """Load the student to export, with the provenance checked.

    Args:
        folder: folder of a finished run or of a student.
        backbone: the architecture, if it is a custom module.

    Raises:
        StudentError: if there is no student, or it cannot be loaded.
        RunError: if the run is not finished.
    """
    run = RunFolder(folder)
    if run.config_file.is_file() and not (run.student / CARD).is_file():
        step = f"continue it: {resume_command(folder)}"
        raise RunError(
            f"{folder} is an unfinished run.",
            expected="a finished run",
            found="a run without a student",
            next_step=step,
        )
    try:
        student = Student.load(folder, backbone)
    except StudentError as error:
        if backbone is None and error.problem.startswith(CUSTOM_MODULE):
            error = StudentError(
                error.problem,
                expected=error.expected,
                found=error.found,
                next_step="export it from Python: vl2v.export(folder, backbone=your_module)",
            )
        raise error from None
    check_provenance(student.provenance, str(folder))
    return student


def _sample(
    folder: Path, student: Student, data: Path | None, int8: bool, storage: StoragePaths, progress: Progress
) -> Sample:
    run = RunFolder(folder)
    if run.config_file.is_file():
        run_data: dict[str, Any] = run.config().data.model_dump(mode="json")
    else:
        run_data = dict(data_settings(student.provenance))
    if data is None and not run.config_file.is_file():
        if int8:
            raise ConfigError(
                "INT8 needs images to calibrate on.",
                expected="a run's folder, or --data with images of the student's classes",
                found="a student's folder alone",
                next_step="add --data DATA, or pass the folder of the run",
            )
        warn(progress, "no run and no --data: the file is compared with the student on random images, without accuracy")
        return random_sample(student.preprocess.size)
    settings = run_data | ({"root": str(data)} if data else {})
    if data:
        settings |= known_columns(run_data, data) | {"class_first": known_order(run_data, data, student.classes)}
    if data and is_table(data):
        settings |= {"domain_folders": False}
    elif data and class_folders(search(data), settings.get("classes") or ()):  # labelled images, not those of the run
        settings |= {"classes": [], "domain_folders": False}
    if data and not settings.get("classes"):
        settings |= {"allow_missing_classes": True}
    config = parse(DataConfig, settings, "the student's provenance")
    ensure_images(
        config, folder, ("drop",), {"drop": f"state the new location once: vl2v trust {quoted(folder)} --drop PATH"}
    )
    return run_sample(student, config, storage, progress, _teacher_answers(folder) if config.classes else None)


def _teacher_answers(folder: Path) -> dict[str, str]:
    """Return the class that the teacher predicted for every image of a run without labels, by path."""
    run = RunFolder(folder)
    if not run.predictions_file.is_file():
        return {}
    predictions, names = read_answers(run), run.config().data.classes
    return {str(path): names[label] for path, label in zip(predictions.path, predictions.label, strict=True)}


def _write_report(done: Export, origin: str) -> None:
    """Write the report. Entries of files of the same student that were not written again do not change."""
    path = done.folder / REPORT
    files: dict[str, Any] = {}
    with suppress(RunError):  # a damaged report, or that of another student, is replaced
        files = read_export(path, origin)["files"] if path.is_file() else {}
    content = done.to_dict() | ({ORIGIN: origin} if origin else {})
    write_json(path, content | {"files": files | content["files"]})
