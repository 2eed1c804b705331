"""Redaction of paths, the name of the data folder and private addresses from everything that is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vl2v.pretrained.open_clip import ClipSpec
from vl2v.teacher.prompts import is_file
from vl2v.teacher.registry import ADDRESSED

DATA, FILE, PRIVATE = "DATA", "FILE", "PRIVATE"  # replacements for folders, files and addresses


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Redact the settings of a run; the result is still valid for `vl2v distill --config`.

    Args:
        config: a dump of `RunConfig`; keys may be missing.

    Returns:
        A copy in which folders, files and private addresses are replaced by `DATA`, `FILE` and `PRIVATE`. The settings
        of trackers are left out.
    """
    public = deepcopy(dict(config))
    public.pop("tracking", None)
    data, teacher, student = (public.get(part) or {} for part in ("data", "teacher", "student"))
    for key in ("root", "unlabelled"):
        if data.get(key) is not None:
            data[key] = DATA
    if data.get("drop") is not None:
        data["drop"] = FILE
    if public.get("repair"):
        public["repair"] |= {"run": DATA, "images": FILE}
    if "spec" in teacher:
        teacher["spec"] = public_teacher(teacher["spec"])
    prompts = teacher.get("prompts")
    if is_file(prompts):
        teacher["prompts"] = FILE
    if "spec" in student:
        name, at, _ = str(student["spec"]).partition("@")
        student["spec"] = f"{name}@{FILE}" if at else _public_clip(name)
    return public


def public_teacher(name: str) -> str:
    """Redact the name or identity of a teacher: file names, private addresses and options after ``#``."""
    kind, _, location = name.partition("#")[0].partition(":")
    if kind in ("http", "https"):
        return f"{kind}://{PRIVATE}"
    if kind == "file" or kind in ADDRESSED:
        return f"{kind}:{FILE if kind == 'file' else PRIVATE}"
    return _public_clip(f"{kind}:{location}" if location else name.partition("#")[0])


def public_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Redact the provenance of a student: its settings and the identity of its teacher."""
    public = {key: value for key, value in provenance.items() if key != "signature"}  # it is only valid on this machine
    if "config" in public:
        public["config"] = public_config(public["config"])
    if "teacher" in public:
        public["teacher"] = public["teacher"] | {"identity": public_teacher(public["teacher"]["identity"])}
    return public


def private_strings(config: Mapping[str, Any], run: Path) -> tuple[str, ...]:
    """Return the strings that must not be published: paths of this machine and the address of a private vendor.

    Args:
        config: a dump of `RunConfig`, not redacted.
    """
    paths = [str(run.resolve()), _home(), *_paths(config)]
    strings = {text for text in paths if Path(text).is_absolute() and len(Path(text).parts) > 2}
    kind, _, location = str(config.get("teacher", {}).get("spec", "")).partition("#")[0].partition(":")
    if kind in ADDRESSED:
        address = urlsplit(location if "//" in location else f"//{location}").netloc
        strings |= {part for part in (address, address.rpartition(":")[0]) if "." in part or ":" in part}
    return tuple(sorted(strings))


def _home() -> str:
    """Return the home directory; empty if there is none."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def _paths(config: Mapping[str, Any]) -> Iterator[str]:
    data, teacher, student = (config.get(part) or {} for part in ("data", "teacher", "student"))
    repair = config.get("repair") or {}
    for folder in (data.get("root"), data.get("unlabelled"), data.get("drop"), repair.get("run"), repair.get("images")):
        if folder:
            yield from (str(folder), str(Path(folder).resolve()))
    kind, _, location = str(teacher.get("spec", "")).partition(":")
    yield location if kind == "file" else location.partition("/")[2]
    yield str(teacher.get("prompts") or "")
    yield str(student.get("spec", "")).partition("@")[2]


def _public_clip(name: str) -> str:
    if not name.startswith("open_clip:"):
        return name
    spec = ClipSpec.parse(name.removeprefix("open_clip:"))
    return f"open_clip:{spec.model}/{FILE}" if spec.file else name
