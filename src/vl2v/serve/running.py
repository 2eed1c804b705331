"""Start the server of a run."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

import vl2v_runtime
from vl2v import __version__
from vl2v.addresses import is_local
from vl2v.commands.moved import MOVED
from vl2v.errors import ConfigError, DataError, RunError, Vl2vError
from vl2v.faults import explain
from vl2v.locations import StoragePaths, locations_in
from vl2v.onnx_export.exported import EXPORT
from vl2v.origin import check_origin, origin_of
from vl2v.progress import Progress, warn
from vl2v.redaction import FILE, PRIVATE
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.serve.app import create_app
from vl2v.serve.gallery import NAME, Gallery, identity_of
from vl2v.serve.schemas import ModelInfo
from vl2v.serve.service import Service
from vl2v.serve.settings import ServeSettings
from vl2v.serve.source import Source
from vl2v.student.provenance import check_provenance
from vl2v.threads import cores, measured, preferred, requested_threads
from vl2v.web.limits import Limits
from vl2v.web.running import check_port, listen, quiet_logs
from vl2v_runtime import Model
from vl2v_runtime.formats import readable
from vl2v_runtime.metadata import AGAIN
from vl2v_runtime.model import FLOAT, INT8

logger = logging.getLogger("vl2v.serve")


def serve(settings: ServeSettings, storage: StoragePaths, progress: Progress) -> None:
    """Serve a student until the process is stopped; requests in flight are finished.

    Args:
        progress: progress callback for the work before the first request, such as the export and the gallery.

    Raises:
        Vl2vError: if the run is not finished, the port is in use, or the model is unusable.
    """
    check_port(settings.host, settings.port)
    service = open_service(settings, storage, progress)
    quiet_logs()
    about, host = service.about(), f"[{settings.host}]" if ":" in settings.host else settings.host
    logger.info("%s, %d classes: http://%s:%d", about.name, about.classes, host, settings.port)
    for absent in (about.no_gallery, about.no_edits):
        if absent:
            logger.info("%s", absent)
    listen(create_app(service, local=is_local(settings.host)), settings.host, settings.port)


def open_service(settings: ServeSettings, storage: StoragePaths, progress: Progress) -> Service:
    """Create the service: export the run if necessary, load the model, and create or read the gallery.

    Raises:
        Vl2vError: see `serve`.
    """
    run = _run_of(settings.run)
    if run is not None:
        _need_export(run, settings.int8, storage, progress)
    path = settings.run if run is None else run
    load_model = partial(vl2v_runtime.load, path, int8=settings.int8, spinning=False)
    load = partial(load_model, threads=settings.threads or _threads(lambda count: load_model(threads=count)))
    model = load()
    check_provenance(model.metadata.provenance, str(model.path))
    if run is not None:
        check_origin(origin_of(model.metadata.provenance), RunFolder(run).origin(), Path(model.path), AGAIN)
    gallery, no_gallery = _gallery(run, model, storage, progress) if settings.gallery else (None, "--no-gallery")
    no_edits = _no_edits(settings, run, model)

    def about(model: Model) -> ModelInfo:
        return _about(model, (run or settings.run.absolute()).name, settings.limits, gallery, no_gallery, no_edits)

    editor = None
    if run is not None and no_edits is None:
        from vl2v.serve.editing import RunEditor

        editor = RunEditor(run, storage, settings.budget)
    return Service(model, about, gallery, editor, settings.limits, Source(model.path, load))


def _threads(load_model: Callable[[int], Model]) -> int:
    """Measure the best number of threads for a model with one image."""
    most = requested_threads() or cores()
    if most == 1 or requested_threads() is not None:
        return most
    models = cache(load_model)
    current = models(1)
    image = current.normalise(np.zeros((1, current.size, current.size, 3), np.uint8))

    def use(count: int) -> None:
        nonlocal current
        current = models(count)

    return preferred(measured(lambda _: current.run(image), 1, 10**6, most, use))


def _run_of(path: Path) -> Path | None:
    """Return the absolute path of the run folder; None for a separate exported file."""
    if path.suffix == ".onnx" and path.is_file():
        return None
    path = path.absolute()
    return path.parent if path.name in ("student", EXPORT) and not (path / "student").exists() else path


def _need_export(run: Path, int8: bool, storage: StoragePaths, progress: Progress) -> None:
    """Export the run if it has not been exported yet."""
    name = INT8 if int8 else FLOAT
    if (run / EXPORT / name).is_file():
        return
    from vl2v.commands.export import export, load_student

    load_student(run)  # before the note, which would announce a file that cannot be written
    progress.note(f"not exported yet: writing {run / 'export' / name}")
    try:
        export(run, onnx=not int8, int8=int8, storage=storage, progress=progress)
    except (DataError, RunError):
        if int8 or not (run / "student").is_dir():
            raise
        warn(progress, "the run's images have moved: the file is compared with the student on random images; " + MOVED)
        export(run / "student", out=run / EXPORT, storage=storage, progress=progress)


def _gallery(
    run: Path | None, model: Model, storage: StoragePaths, progress: Progress
) -> tuple[Gallery | None, str | None]:
    """Return the gallery, or the reason why there is none."""
    if model.dimension is None:
        return None, "a linear classifier has no embedding to compare images by."
    if run is None:
        return None, "an exported file alone does not contain their paths; serve the run folder."
    path = run / EXPORT / NAME
    if path.is_file():
        file_gallery = Gallery.load(path)
        if file_gallery.origin == identity_of(model) and file_gallery.embeddings.shape[1] == model.dimension:
            return file_gallery, None
    from vl2v.serve.collect import build

    try:
        config = RunFolder(run).config()
        if not config.data.root.exists():
            return None, f"the images of the run have moved; {MOVED}."
        gallery = build(config, model, storage, progress)
    except ConfigError as error:  # quotes the file, which may be a link to any other; clients read the reason
        warn(progress, f"there is no gallery: {error}")
        return None, "the settings of the run cannot be read; the log of the server says why."
    except (Vl2vError, OSError, sqlite3.Error) as error:
        explanation = explain(error, locations_in({"run": run, "storage": storage}))
        return None, f"{explanation.problem} {explanation.found}".strip() if explanation else str(error)
    try:
        with alone_in(run, "vl2v serve"):
            gallery.save(path)
    except OSError as error:  # a run on a read-only disk can be served, too
        warn(progress, f"the gallery cannot be saved for the next start: {error.strerror or error}")
    return gallery, None


def _no_edits(settings: ServeSettings, run: Path | None, model: Model) -> str | None:
    """Return the reason why classes cannot be changed; None if they can."""
    if run is None:
        return "Classes can only be changed in a run folder; this is an exported file alone."
    if model.dimension is None:
        return "Classes of a student with a linear head cannot be added or removed."
    if settings.edits is None and not is_local(settings.host):
        return "Classes can be changed from this machine only, unless vl2v serve has --edits."
    return "Classes are fixed: --no-edits." if settings.edits is False else None


def _about(
    model: Model, name: str, limits: Limits, gallery: Gallery | None, no_gallery: str | None, no_edits: str | None
) -> ModelInfo:
    trust, teacher = model.trust, (model.metadata.provenance.get("teacher") or {}).get("identity", "")
    return ModelInfo(
        name=name,
        version=__version__,
        size=model.size,
        fit=model.fit,
        int8=model.metadata.quantised is not None,
        classes=len(model.classes),
        teacher=None if teacher.endswith((FILE, PRIVATE)) else teacher or None,
        coverages=list(trust.coverages) if trust else [],
        scores=list(trust.available) if trust else [],
        drift=bool(trust and trust.reference),
        gallery=len(gallery) if gallery else 0,
        no_gallery=no_gallery,
        editable=no_edits is None,
        no_edits=no_edits,
        image_bytes=limits.image_bytes,
        body_bytes=limits.body_bytes,
        inputs=limits.inputs,
        formats=[form.title for form in readable()],
        suffixes=[suffix for form in readable() for suffix in form.suffixes],
    )
