"""A student on disk: `student.json` describes it, `model.safetensors` contains its weights.

Whoever made the folder may be a stranger. Loading it runs no code of it and opens no file or address that it names:
JSON goes through one strict reader and a model of every key, the architecture comes from an installed package by its
name, and shapes are compared before anything is allocated.

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
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vl2v.errors import RunError, StudentError
from vl2v.student.architectures import Recipe, build, compare_shapes, described, shapes_of
from vl2v.student.backbones import Backbone
from vl2v.student.card import StudentCard
from vl2v.student.preprocess import Preprocess
from vl2v.student.provenance import check_provenance
from vl2v.trust import files as trust_file
from vl2v.writing import replacing, write_text
from vl2v_runtime import strict_json
from vl2v_runtime.names import printable
from vl2v_runtime.trust import Trust

if TYPE_CHECKING:
    from vl2v.student.model import Student

FORMAT = 1
CARD, WEIGHTS = "student.json", "model.safetensors"
BACKBONE = "backbone"  # under which `Student` has it
HELD = "student"  # the one key in the weights' metadata: safetensors writes several in any order
CHANGES = "classes_changed"  # in the provenance: what was added and removed after training, oldest first


def read_described(folder: Path) -> dict[str, Any]:
    """The content of `student.json` as it is, for those who only describe the student; its types are checked.

    Raises:
        StudentError: if it is missing or not what vl2v wrote, its provenance included.
    """
    raw = _read_raw(folder)
    checked = _checked(raw, folder / CARD)
    check_provenance(checked.provenance, str(folder))
    return {"provenance": {}, "classifier": checked.classifier, **raw}


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
    with replacing(folder / WEIGHTS) as fresh:
        save_file(tensors, fresh, metadata={HELD: json.dumps(names | {"stamp": stamp})})
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
    folder = folder / "student" if (folder / "student" / CARD).is_file() else folder
    raw = _read_raw(folder)
    shapes, remembered = _read_header(folder / WEIGHTS)
    card = _checked(raw | _newer_names(raw, remembered), folder / CARD)
    recipe, preprocess = (
        Recipe(**card.backbone.model_dump()),
        Preprocess(**card.preprocess.model_dump(exclude={"resize"})),
    )
    below = {name.removeprefix(f"{BACKBONE}."): s for name, s in shapes.items() if name.startswith(f"{BACKBONE}.")}
    top = {name: shape for name, shape in shapes.items() if not name.startswith(f"{BACKBONE}.")}
    compare_shapes(f"a student with this {CARD}", card.top, top)
    module = backbone if backbone is not None else build(recipe, below)
    compare_shapes(f"the backbone {recipe.name}", shapes_of(module.state_dict()), below)
    student = _assembled(card, Backbone(module, card.features, preprocess, recipe))
    try:
        student.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _broken(folder / WEIGHTS, "this student's weights", error) from error
    _try(student.eval(), folder / WEIGHTS)
    student.trust = trust = read_trust(folder)
    width = None if trust is None or trust.reference is None else trust.reference.centres.shape[1]
    if width is not None and (student.head is None or width != student.dimension):
        found = f"centres of dimension {width}, the student's embeddings have {student.dimension}"
        raise _broken_trust(folder, ValueError(found))
    return student


def _assembled(card: StudentCard, backbone: Backbone) -> Student:
    """A student of a card's shapes, with random weights."""
    from vl2v.student.model import Student

    linear = card.projection == "linear"
    projection = nn.Linear(card.features, card.dimension) if linear else nn.Identity()
    head = torch.ones(len(card.classes), card.dimension) if card.classifier == "cosine" else None
    return Student(backbone, projection, head, card.classes, card.logit_scale, card.provenance)


@torch.no_grad()
def _try(student: Student, path: Path) -> None:
    """Classify a black and a white image, so that a student that loads also predicts.

    Raises:
        StudentError: if the backbone does not take them or gives something else than [2, F], or a logit is not finite.
    """
    size = student.preprocess.size
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, size, size)
    expected = f"[2, {student.features}] features of [2, 3, {size}, {size}] pixels, and finite logits"
    try:
        features = student.backbone(student.preprocess.normalise(pixels))
        if not isinstance(features, Tensor) or tuple(features.shape) != (2, student.features):
            raise ValueError(f"features {list(features.shape) if isinstance(features, Tensor) else type(features)}")
        if not student.logits(student.projection(features)).isfinite().all():
            raise ValueError("logits that are not finite")
    except Exception as error:  # a backbone of a size that it does not take may raise anything
        raise _broken(path, expected, error) from error


def read_trust(folder: Path) -> Trust | None:
    """Read a student's `trust.json`; None where there is none.

    Raises:
        StudentError: if it is broken or of another format.
    """
    try:
        return trust_file.load(folder)
    except (OSError, ValueError) as error:
        raise _broken_trust(folder, error) from error


def _broken_trust(folder: Path, error: Exception) -> StudentError:
    step = "copy it again from its source, fit it again with vl2v trust, or delete it"
    problem = f"{folder / trust_file.FILE} cannot be used."
    return StudentError(problem, expected="what vl2v wrote", found=str(error), next_step=step)


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are not the student's. A user's own backbone is compared as far as it is known.

    Raises:
        StudentError: if it cannot be loaded.
    """
    card = _checked(_read_raw(folder), folder / CARD)
    if card.backbone.kind != "module":
        load(folder)
        return
    shapes, _ = _read_header(folder / WEIGHTS)
    top = {name: shape for name, shape in shapes.items() if not name.startswith(f"{BACKBONE}.")}
    compare_shapes(f"a student with this {CARD}", card.top, top)


def _read_raw(folder: Path) -> dict[str, Any]:
    """The content of `student.json`, an object of this format; nothing else is checked."""
    path = folder / CARD
    step = "pass the folder that vl2v distill printed at its end (runs/<name> or runs/<name>/student)"
    try:
        card = strict_json.read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "a run without a finished student" if (folder / "config.yaml").exists() else f"no {CARD}"
        raise StudentError(f"{folder} contains no student.", expected=CARD, found=found, next_step=step) from error
    except (OSError, ValueError) as error:
        raise StudentError(f"{path} cannot be read.", expected="JSON", found=str(error), next_step=step) from error
    format_ = card.get("format") if isinstance(card, dict) else None
    if not isinstance(card, dict) or type(format_) is not int or format_ != FORMAT:
        found = f"format {str(format_)[:40]}" if isinstance(card, dict) else type(card).__name__
        step = "load it with the version of vl2v that its provenance states"
        raise StudentError(f"{path} has another format.", expected=f"format {FORMAT}", found=found, next_step=step)
    return card


def _checked(card: Mapping[str, Any], path: Path) -> StudentCard:
    try:
        return StudentCard.model_validate(card)
    except ValidationError as error:
        raise _broken(path, "what vl2v wrote", ValueError(described(error))) from error


def _broken(path: Path, expected: str, error: Exception) -> StudentError:
    found = " ".join(str(error).split())[:300]
    step = "copy the whole folder again from its source"
    return StudentError(f"{path} cannot be used.", expected=expected, found=found, next_step=step)


def _stamp(names: Mapping[str, Any], head: torch.Tensor | None) -> str:
    """Differs between two states of a student's classes: the mark by which its two files know each other."""
    digest = hashlib.sha256(json.dumps(names, sort_keys=True).encode())
    if head is not None:
        digest.update(head.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """The shape of every tensor in the weights, and what they say of the classes; nothing is allocated."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("a folder, a pipe or a device instead of the file")
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            remembered = strict_json.parse((file.metadata() or {}).get(HELD, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise _broken(path, "this student's weights", error) from error
    if not isinstance(remembered, dict):
        raise _broken(path, "this student's weights", ValueError(f"metadata that are {type(remembered).__name__}"))
    return shapes, remembered


def _newer_names(card: Mapping[str, Any], remembered: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights say of the classes, if a kill came between the two files: weights are written first."""
    if "stamp" not in remembered or remembered["stamp"] == card.get("stamp"):
        return {}
    provenance, changes = card.get("provenance", {}), remembered.get(CHANGES)
    if changes and isinstance(provenance, dict):
        provenance = provenance | {CHANGES: changes}
    return {"classes": remembered.get("classes"), "provenance": provenance}


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if printable(text) != text:  # a path that is not UTF-8: as escapes, which reading turns back
        text = json.dumps(content, indent=2)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Plain values from a JSON file of a run or a benchmark.

    Raises:
        RunError: if it cannot be read, is not JSON, or exceeds a limit of `vl2v_runtime.strict_json`.
    """
    try:
        return strict_json.read(path)
    except (OSError, ValueError) as error:
        found = (error.strerror if isinstance(error, OSError) else None) or str(error)
        step = "copy it again from its source, or make it again"
        raise RunError(f"{path} cannot be read.", expected="JSON", found=found, next_step=step) from error
