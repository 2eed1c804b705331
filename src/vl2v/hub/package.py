"""The files of a run that are published, without private data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vl2v.errors import HubError, RunError
from vl2v.hints import resume_command
from vl2v.hub.card import Facts, model_card
from vl2v.onnx_export.exported import EXPORT, REPORT, sort_exports
from vl2v.progress import Progress, Silent, warn
from vl2v.redaction import PRIVATE, private_strings, public_config, public_provenance
from vl2v.runs.folder import RunFolder
from vl2v.runs.run_files import read_evaluation, read_export
from vl2v.student.files import CARD, WEIGHTS, check_weights, read_card, read_trust
from vl2v.trust import files as trust_file
from vl2v_runtime.names import shown
from vl2v_runtime.onnx_scan import objection

CARD_FILE, SETTINGS, FIGURES = "README.md", "config.yaml", "evaluation.json"
# Keys of the provenance that the model card needs.
NEEDED = ("made_with", "made_at", "teacher", "prompts", "data", "weights")
KNOWN = (CARD_FILE, SETTINGS, FIGURES, "student/", "export/")
"""Files and folders that a push writes, and replaces if they exist in the repository."""
PUBLISHED = {CARD_FILE, SETTINGS, FIGURES, f"{EXPORT}/{REPORT}"}
PUBLISHED |= {f"student/{name}" for name in (CARD, WEIGHTS, trust_file.FILE)}

Files = Mapping[str, bytes | Path]
"""Content by path in the repository. A `Path` is a local file that is uploaded unchanged."""


def make_package(run: Path, name: str, licence: str | None = None, progress: Progress | None = None) -> Files:
    """Collect the files of a run that are published.

    The training state, pixels, images, bought embeddings, keys and ONNX files of other students are never published.

    Args:
        name: the repository, ``user/name``.
        licence: licence of the student as an identifier of the hub. None states no licence.
        progress: receives a warning of each ONNX file in the folder of exports that is left out.

    Raises:
        RunError: if the run is not finished, or an exported file is of another student.
        StudentError, ModelError: if an exported file cannot be read, or was not exported by vl2v.
        HubError: if private information would be published.
    """
    folder = RunFolder(run)
    config = folder.config().model_dump(mode="json")
    if not folder.evaluation_file.is_file() or not (folder.student / CARD).is_file():
        step = f"continue it: {resume_command(run)}"
        raise RunError(
            f"{run} is an unfinished run.", expected=f"{FIGURES} and a student", found="none", next_step=step
        )
    private = private_strings(config, run)
    student, origin = _redact_provenance(_described(folder)), folder.origin()
    figures = read_evaluation(folder.evaluation_file, origin)
    _check_links(run, (run / EXPORT).glob("*.onnx"))
    (exported, others), report = sort_exports(run, origin), run / EXPORT / REPORT
    for path, what in others.items():
        warn(progress or Silent(), f"{shown(path)} is left out: it is not an exported file of this run ({what})")
    settings = public_config({key: value for key, value in config.items() if key not in ("budget", "origin")})
    trust = trust_file.content_of(trust_data, origin) if (trust_data := read_trust(folder.student, origin)) else None
    facts = Facts(name, licence, student, figures, settings, trust, tuple(path.name for path in exported))
    texts: dict[str, str] = {
        CARD_FILE: model_card(facts),
        SETTINGS: yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        FIGURES: _json(figures),
        f"student/{CARD}": _json(student),
    }
    if facts.trust is not None:
        texts[f"student/{trust_file.FILE}"] = _json(facts.trust)
    if report.is_file():
        texts[f"{EXPORT}/{REPORT}"] = _json(_redact_provenance(read_export(report, origin)))
    files: dict[str, bytes | Path] = {key: _remove_private(text, private).encode() for key, text in texts.items()}
    check_weights(folder.student)
    files[f"student/{WEIGHTS}"] = folder.student / WEIGHTS
    files |= {f"{EXPORT}/{path.name}": path for path in exported}
    _check_links(run, [part for part in files.values() if isinstance(part, Path)])
    _check_binary(files)
    _check(files, private)
    return dict(sorted(files.items()))


def is_published(name: str) -> bool:
    """Whether `make_package` may return a file with this path in the repository."""
    folder, _, file = name.rpartition("/")
    return name in PUBLISHED or (folder == EXPORT and file.endswith(".onnx"))


def _redact_provenance(value: Any) -> Any:
    """Redact every ``provenance`` in plain values."""
    if isinstance(value, list):
        return [_redact_provenance(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        key: public_provenance(part) if key == "provenance" else _redact_provenance(part) for key, part in value.items()
    }


def _described(folder: RunFolder) -> dict[str, Any]:
    """Read `student.json` and check that it has the provenance that the model card needs."""
    card = read_card(folder.student)
    if lacking := [key for key in NEEDED if card["provenance"].get(key) is None]:
        found, step = f"no {', '.join(lacking)}", "publish a run that vl2v distill made"
        problem = f"{folder.path} has no provenance."
        raise RunError(problem, expected="its provenance", found=found, next_step=step)
    return card


def _check_links(run: Path, paths: Iterable[Path]) -> None:
    """Check that files that are uploaded unchanged are in the run folder."""
    for path in paths:
        if not path.resolve().is_relative_to(run.resolve()):
            raise _unusable(path.relative_to(run).as_posix(), "a file of the run", "a link that leads out of it")


def _check_binary(files: Files) -> None:
    """Check that files that are uploaded unchanged have the format of their name."""
    for name, part in files.items():
        if not isinstance(part, Path):
            continue
        try:
            found = objection(part) if part.suffix == ".onnx" else ""
        except ValueError as error:
            found = str(error)
        if found:
            raise _unusable(name, "one ONNX file", found)


def _unusable(name: str, expected: str, found: str) -> HubError:
    step = "make the file again (vl2v export), or remove it from the run folder"
    return HubError(f"{name} cannot be published.", expected=expected, found=found, next_step=step)


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _remove_private(text: str, private: Iterable[str]) -> str:
    for part in sorted(private, key=len, reverse=True):
        text = text.replace(part, PRIVATE)
    return text


def _check(files: Files, private: Iterable[str]) -> None:
    """Check that no file contains a path of this machine or a private address."""
    for name, part in files.items():
        content = part.read_bytes() if isinstance(part, Path) else part
        if any(text.encode() in content for text in private):
            raise HubError(
                f"{name} contains private information.",
                expected="no path of this machine, and no address of a private vendor",
                found="one of them",
                next_step="make the file again (vl2v export), or remove it from the run folder",
            )
