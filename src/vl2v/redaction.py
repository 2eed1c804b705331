"""What may leave the machine: settings without its paths, the data folder's name, or a private vendor's address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vl2v.pretrained.open_clip import ClipSpec
from vl2v.teacher.prompts import CLIP_80, NAMED

DATA, FILE, PRIVATE = "DATA", "FILE", "PRIVATE"  # stand where a folder, a file or an address stood


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run for others to read; still settings that `vl2v distill --config` takes.

    Args:
        config: a dump of `RunConfig`; keys may be missing.

    Returns:
        A copy. Folders, files and private addresses are replaced by `DATA`, `FILE` and `PRIVATE`; how the run was
        tracked is left out.
    """
    public = deepcopy(dict(config))
    public.pop("tracking", None)
    data, teacher, student = (public.get(part) or {} for part in ("data", "teacher", "student"))
    for key in ("root", "unlabelled"):
        if data.get(key) is not None:
            data[key] = DATA
    if "spec" in teacher:
        teacher["spec"] = public_teacher(teacher["spec"])
    prompts = teacher.get("prompts")
    if isinstance(prompts, str) and prompts not in (*NAMED, CLIP_80) and "{" not in prompts:
        teacher["prompts"] = FILE
    if "spec" in student:
        name, at, _ = str(student["spec"]).partition("@")
        student["spec"] = f"{name}@{FILE}" if at else _public_clip(name)
    return public


def public_teacher(name: str) -> str:
    """A teacher's spelling or identity without a file's name, a private address, or what stands after ``#``."""
    kind, _, rest = name.partition("#")[0].partition(":")
    if kind in ("http", "https"):
        return f"{kind}://{PRIVATE}"
    if kind in ("file", "azure"):
        return f"{kind}:{FILE if kind == 'file' else PRIVATE}"
    return _public_clip(f"{kind}:{rest}" if rest else name.partition("#")[0])


def public_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a student remembers of its making, for others to read: its settings and its teacher's identity redacted."""
    public = {key: value for key, value in provenance.items() if key != "signature"}  # it means nothing elsewhere
    if "config" in public:
        public["config"] = public_config(public["config"])
    if "teacher" in public:
        public["teacher"] = public["teacher"] | {"identity": public_teacher(public["teacher"]["identity"])}
    return public


def private_strings(config: Mapping[str, Any], run: Path) -> tuple[str, ...]:
    """What must not stand in anything that is published: this machine's paths, and a private vendor's address.

    Args:
        config: a dump of `RunConfig`, not redacted.
        run: the run's folder.
    """
    paths = [str(run.resolve()), _home(), *_paths(config)]
    found = {text for text in paths if Path(text).is_absolute() and len(Path(text).parts) > 2}
    kind, _, rest = str(config.get("teacher", {}).get("spec", "")).partition("#")[0].partition(":")
    if kind in ("http", "https", "azure"):
        address = urlsplit(rest if "//" in rest else f"//{rest}").netloc
        found |= {part for part in (address, address.rpartition(":")[0]) if "." in part or ":" in part}
    return tuple(sorted(found))


def _home() -> str:
    """The user's folder; empty where the system knows none."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def _paths(config: Mapping[str, Any]) -> Iterator[str]:
    data, teacher, student = (config.get(part) or {} for part in ("data", "teacher", "student"))
    for folder in (data.get("root"), data.get("unlabelled")):
        if folder:
            yield from (str(folder), str(Path(folder).resolve()))
    kind, _, rest = str(teacher.get("spec", "")).partition(":")
    yield rest if kind == "file" else rest.partition("/")[2]
    yield str(teacher.get("prompts") or "")
    yield str(student.get("spec", "")).partition("@")[2]


def _public_clip(name: str) -> str:
    if not name.startswith("open_clip:"):
        return name
    spec = ClipSpec.parse(name.removeprefix("open_clip:"))
    return f"open_clip:{spec.model}/{FILE}" if spec.file else name
