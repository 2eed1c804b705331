"""A student on disk: `student.json` says what it is, `model.safetensors` holds its weights. No pickle.

`trust.json` beside them says how far its answers can be trusted; folders of earlier versions have none.
The weights are written first and carry the names of the classes too, so that a kill between the two files leaves a
student whose head and names agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from vl2v.errors import StudentError
from vl2v.student.backbones import Backbone, Recipe, build
from vl2v.student.preprocess import Preprocess
from vl2v.trust import files as trust_file

if TYPE_CHECKING:
    from vl2v.student.model import Student

FORMAT = 1
CARD, WEIGHTS = "student.json", "model.safetensors"
HELD = "student"  # the one key in the weights' metadata: safetensors writes several in any order
CHANGES = "classes_changed"  # in the provenance: what was added and removed after training, oldest first


def save(student: Student, folder: Path) -> Path:
    """Write a student; an older one in the same folder is replaced file by file, each at once, weights first.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    linear = isinstance(student.projection, nn.Linear)
    card = {
        "format": FORMAT,
        "backbone": asdict(student.recipe),
        "features": student.features,
        "dimension": student.dimension,
        "projection": "linear" if linear else "identity",
        "classifier": "linear" if student.head is None else "cosine",
        "preprocess": asdict(student.preprocess) | {"resize": "square, bilinear, antialiased"},
        "classes": student.classes,
        "logit_scale": student.logit_scale,
        "provenance": student.provenance,
    }
    names = {"classes": student.classes, CHANGES: student.provenance.get(CHANGES, [])}
    card["stamp"] = stamp = _stamp(names, student.head)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in student.state_dict().items()}
    save_file(tensors, folder / f"{WEIGHTS}.new", metadata={HELD: json.dumps(names | {"stamp": stamp})})
    (folder / f"{WEIGHTS}.new").replace(folder / WEIGHTS)
    write_json(folder / CARD, card)
    trust_file.save(student.trust, folder)
    return folder


def load(folder: Path, backbone: nn.Module | None = None) -> Student:
    """Read a student, in eval mode, on the CPU.

    Args:
        folder: a student's folder, or a run's folder that holds one.
        backbone: the architecture, where `student.json` names a module of the user's own.

    Raises:
        StudentError: if a file is missing, broken or of another format, or the weights do not fit.
    """
    from vl2v.student.model import Student

    folder = folder / "student" if (folder / "student" / CARD).is_file() else folder
    card = _reconciled(_read_card(folder), folder / WEIGHTS)
    recipe = Recipe(**card["backbone"])
    p = card["preprocess"]
    preprocess = Preprocess(p["size"], tuple(p["mean"]), tuple(p["std"]))
    module = backbone if backbone is not None else build(recipe)
    features, dimension = int(card["features"]), int(card["dimension"])
    projection = nn.Linear(features, dimension) if card["projection"] == "linear" else nn.Identity()
    student = Student(
        Backbone(module, features, preprocess, recipe),
        projection,
        torch.ones(len(card["classes"]), dimension) if card["classifier"] == "cosine" else None,
        card["classes"],
        card["logit_scale"],
        card["provenance"],
    )
    path = folder / WEIGHTS
    try:
        student.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        found = " ".join(str(error).split())[:300]
        step = "copy the whole folder again from where it was made"
        raise StudentError(
            f"{path} cannot be used.", expected="this student's weights", found=found, next_step=step
        ) from error
    try:
        student.trust = trust_file.load(folder)
    except ValueError as error:
        step = "copy it again from where it was made, fit it again with vl2v trust, or delete it"
        raise StudentError(
            f"{folder / trust_file.FILE} cannot be used.", expected="what vl2v wrote", found=str(error), next_step=step
        ) from error
    return student.eval()


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    step = "give the folder that vl2v distill printed at its end (runs/<name>, or runs/<name>/student)"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        found = "a run without a finished student" if (folder / "config.yaml").exists() else f"no {CARD}"
        raise StudentError(f"{folder} holds no student.", expected=CARD, found=found, next_step=step) from error
    except (OSError, ValueError) as error:
        raise StudentError(f"{path} cannot be read.", expected="JSON", found=str(error), next_step=step) from error
    wanted = {"format", "backbone", "features", "dimension", "projection", "preprocess", "classes", "logit_scale"}
    if not isinstance(card, dict) or card.get("format") != FORMAT or not wanted <= card.keys():
        found = f"format {card.get('format') if isinstance(card, dict) else '?'}"
        step = "load it with the version of vl2v named in its provenance"
        raise StudentError(f"{path} is of another kind.", expected=f"format {FORMAT}", found=found, next_step=step)
    try:
        Recipe(**card["backbone"]), Preprocess(**{key: card["preprocess"][key] for key in ("size", "mean", "std")})
    except (TypeError, KeyError) as error:
        step = "copy the whole folder again from where it was made"
        raise StudentError(f"{path} is broken.", expected="a recipe", found=str(error), next_step=step) from error
    return {"provenance": {}, "classifier": "cosine", **card}


def _stamp(names: Mapping[str, Any], head: torch.Tensor | None) -> str:
    """Differs between two states of a student's classes: the mark by which its two files know each other."""
    digest = hashlib.sha256(json.dumps(names, sort_keys=True).encode())
    if head is not None:
        digest.update(head.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _reconciled(card: dict[str, Any], weights: Path) -> dict[str, Any]:
    """The card, brought up to the weights if a kill came between the two: weights are written first."""
    try:
        with safe_open(weights, "pt") as file:
            held = json.loads((file.metadata() or {}).get(HELD, "{}"))
        if "stamp" not in held or held["stamp"] == card.get("stamp"):
            return card
        provenance = card["provenance"] | ({CHANGES: held[CHANGES]} if held[CHANGES] else {})
        return card | {"classes": held["classes"], "provenance": provenance}
    except (OSError, SafetensorError, ValueError, KeyError):
        return card  # what is wrong with the weights is said where they are loaded


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(path)


def read_json(path: Path) -> Any:
    """Plain values from JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
