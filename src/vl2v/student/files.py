"""A student on disk: `student.json` describes it, `model.safetensors` contains its weights.

The folder may come from an untrusted source. Loading it runs no code from it and opens no file or address that it
names. One strict reader parses the JSON, and every key has a model. The architecture comes from an installed package.
Shapes are compared before memory is allocated.

`trust.json` contains the calibration, the rejection thresholds, the drift reference and negative texts. Folders of
earlier versions do not have it. It is written first, so that repeating an interrupted change of classes completes it.
The weights come next and contain the class names as well, so head and class names agree even if the process is killed
between the two files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.hints import resume_command
from vl2v.json_files import write_json
from vl2v.origin import origin_of
from vl2v.strict import described
from vl2v.student.architectures import Recipe, Shapes, build, compare_shapes, shapes_of
from vl2v.student.backbones import Backbone
from vl2v.student.card import StudentCard
from vl2v.student.preprocess import Preprocess
from vl2v.student.provenance import check_provenance
from vl2v.tensor_files import open_tensors
from vl2v.trust import files as trust_file
from vl2v.writing import atomic_write
from vl2v_runtime import strict_json
from vl2v_runtime.fits import RESIZES
from vl2v_runtime.trust import Trust

if TYPE_CHECKING:
    from vl2v.student.model import Student

FORMAT = 1
CARD, WEIGHTS = "student.json", "model.safetensors"
BACKBONE = "backbone."  # prefix of the backbone's weights
METADATA_KEY = "student"  # the only metadata key of the weights, since safetensors writes several in any order
CHANGES = "classes_changed"  # in the provenance: classes added and removed after training, oldest first


def read_card(folder: Path) -> dict[str, Any]:
    """Read `student.json` as a mapping, without loading the student. The types of all values are checked.

    The class names are those of the weights if a process was killed before it had written `student.json`.

    Raises:
        StudentError: if the file is missing, or it or its provenance is not in the format of vl2v.
    """
    raw = _read_raw(folder)
    with suppress(StudentError), _opened(folder / WEIGHTS) as (_, _, saved_names):
        raw |= _newer_names(raw, saved_names)
    card = _checked(raw, folder / CARD)
    check_provenance(card.provenance, str(folder))
    return {"provenance": {}, "classifier": card.classifier, **raw}


def save(student: Student, folder: Path) -> Path:
    """Write a student to a folder, and return the folder.

    Files of an older student in the folder are replaced atomically, one by one: trust data, weights, description.

    Raises:
        StudentError: if `load` would not accept the student; nothing is written then.
    """
    linear = isinstance(student.projection, nn.Linear)
    card = {
        "format": FORMAT,
        "backbone": asdict(student.recipe),
        "features": student.features,
        "dimension": student.dimension,
        "projection": "linear" if linear else "identity",
        "classifier": "linear" if student.head is None else "cosine",
        "preprocess": asdict(student.preprocess) | {"resize": RESIZES[student.preprocess.fit]},
        "classes": student.classes,
        "logit_scale": student.logit_scale,
        "provenance": student.provenance,
    }
    names = {"classes": student.classes, CHANGES: student.provenance.get(CHANGES, [])}
    if any(student.offsets):  # other students are written as in earlier versions
        names["offsets"] = card["offsets"] = student.offsets
    try:
        StudentCard.model_validate(card)
    except ValidationError as error:
        problem, step = "The student cannot be saved.", "correct it; nothing was written"
        raise StudentError(problem, expected="what vl2v can load", found=described(error), next_step=step) from error
    folder.mkdir(parents=True, exist_ok=True)
    card["stamp"] = stamp = _stamp(names, student.head)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in student.state_dict().items()}
    trust_file.save(student.trust, folder, origin_of(student.provenance))
    with atomic_write(folder / WEIGHTS) as fresh:
        save_file(tensors, fresh, metadata={METADATA_KEY: json.dumps(names | {"stamp": stamp})})
    write_json(folder / CARD, card)
    return folder


def load(folder: Path, backbone: nn.Module | None = None, *, trust: bool = True) -> Student:
    """Load a student in eval mode on the CPU.

    Args:
        folder: the folder of a student, or a run folder that contains one.
        backbone: the architecture, if the backbone is a custom module.
        trust: whether to read its `trust.json`, if there is one.

    Raises:
        StudentError: if a file is missing, damaged or in another format, or the weights do not fit.
    """
    folder = folder / "student" if (folder / "student" / CARD).is_file() else folder
    raw = _read_raw(folder)
    with _opened(folder / WEIGHTS) as (file, shapes, saved_names):
        card = _checked(raw | _newer_names(raw, saved_names), folder / CARD)
        recipe = Recipe(**card.backbone.model_dump())
        preprocess = Preprocess(**card.preprocess.model_dump(exclude={"resize"}))
        _compare_top(card, shapes)
        backbone_shapes = {n.removeprefix(BACKBONE): shape for n, shape in shapes.items() if n.startswith(BACKBONE)}
        module = backbone if backbone is not None else build(recipe, backbone_shapes)
        compare_shapes(f"the backbone {recipe.name}", shapes_of(module.state_dict()), backbone_shapes)
        student = _assembled(card, Backbone(module, card.features, preprocess, recipe))
        try:
            student.load_state_dict({name: file.get_tensor(name) for name in shapes})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise _broken(folder / WEIGHTS, "this student's weights", error) from error
    _try(student.eval(), folder / WEIGHTS)
    student.trust = trust_data = read_trust(folder, origin_of(student.provenance)) if trust else None
    if trust_data is not None:
        try:
            trust_data.check_dimension(None if student.head is None else student.dimension)
        except ValueError as error:
            raise _broken_trust(folder, error) from error
    return student


def _assembled(card: StudentCard, backbone: Backbone) -> Student:
    """Build a student with the shapes of a card and random weights."""
    from vl2v.student.model import Student

    linear = card.projection == "linear"
    projection = nn.Linear(card.features, card.dimension) if linear else nn.Identity()
    head = torch.ones(len(card.classes), card.dimension) if card.classifier == "cosine" else None
    return Student(backbone, projection, head, card.classes, card.logit_scale, card.provenance, card.offsets)


@torch.no_grad()
def _try(student: Student, path: Path) -> None:
    """Classify a black and a white image, so that a student that loads can also predict."""
    size = student.preprocess.size
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, size, size)
    expected = f"[2, {student.features}] features of [2, 3, {size}, {size}] pixels, and finite logits"
    try:
        features = student.backbone(student.preprocess.normalise(pixels))
        if not isinstance(features, Tensor) or tuple(features.shape) != (2, student.features):
            raise ValueError(f"features {list(features.shape) if isinstance(features, Tensor) else type(features)}")
        if not student.logits(student.projection(features)).isfinite().all():
            raise ValueError("logits that are not finite")
    except Exception as error:  # a backbone may raise anything for an unsupported size
        raise _broken(path, expected, error) from error


def read_trust(folder: Path, origin: str) -> Trust | None:
    """Read the `trust.json` of a student with an origin, or return None if there is none.

    Raises:
        StudentError: if it is damaged, in another format, or of another student.
    """
    try:
        return trust_file.load(folder, origin)
    except (OSError, ValueError) as error:
        raise _broken_trust(folder, error) from error


def _broken_trust(folder: Path, error: Exception) -> StudentError:
    step = "copy it again from its source, fit it again with vl2v trust, or delete it"
    problem = f"{folder / trust_file.FILE} cannot be used."
    return StudentError(problem, expected="what vl2v wrote for this student", found=str(error), next_step=step)


def check_weights(folder: Path) -> None:
    """Check that the weights in a folder are those of its student.

    If the backbone is a custom module, only the projection and the head are checked.

    Raises:
        StudentError: if the student cannot be loaded.
    """
    card = _checked(_read_raw(folder), folder / CARD)
    if card.backbone.kind != "module":
        load(folder)
        return
    with _opened(folder / WEIGHTS) as (_, shapes, _):
        _compare_top(card, shapes)


def _compare_top(card: StudentCard, shapes: Shapes) -> None:
    """Compare the shapes of the projection and the head in the weights with those of a card."""
    top = {name: shape for name, shape in shapes.items() if not name.startswith(BACKBONE)}
    compare_shapes(f"a student with this {CARD}", card.top, top)


def _read_raw(folder: Path) -> dict[str, Any]:
    """Read `student.json` and check its format, but no other key."""
    path = folder / CARD
    try:
        card = strict_json.read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        run = _run_of(folder)
        found = f"no {CARD}" if run is None else "a run without a finished student"
        step = "pass the folder that vl2v distill printed at its end (runs/<name> or runs/<name>/student)"
        step = step if run is None else f"finish it: {resume_command(run)}"
        raise StudentError(f"{folder} contains no student.", expected=CARD, found=found, next_step=step) from error
    except (OSError, ValueError) as error:
        step = _again(folder)
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
    step = _again(path.parent)
    return StudentError(f"{path} cannot be used.", expected=expected, found=found, next_step=step)


def _run_of(folder: Path) -> Path | None:
    """Return the folder of the run that a student's folder is in, or that was passed in its place; None without one."""
    return next((run for run in (folder, folder.parent) if (run / "config.yaml").is_file()), None)


def _again(folder: Path) -> str:
    """Say how a damaged file in a student's folder is restored."""
    run, step = _run_of(folder), "copy the whole folder again from its source"
    return step if run is None else f"{step}, or delete the folder student and write it again: {resume_command(run)}"


def _stamp(names: Mapping[str, Any], head: torch.Tensor | None) -> str:
    """Return a hash of the classes and the head, by which the two files of a student are matched."""
    digest = hashlib.sha256(json.dumps(names, sort_keys=True).encode())
    if head is not None:
        digest.update(head.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, tuple[int, ...]], dict[str, Any]]]:
    """Open the weights, and read the shape of every tensor and the class names from their header.

    The open file stays the same if another process replaces it, as changes of classes do.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_tensors(path))
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            saved_names = strict_json.parse((file.metadata() or {}).get(METADATA_KEY, "{}"))
        except (OSError, SafetensorError, ValueError) as error:
            raise _broken(path, "this student's weights", error) from error
        if not isinstance(saved_names, dict):
            raise _broken(path, "this student's weights", ValueError(f"metadata that are {type(saved_names).__name__}"))
        yield file, shapes, saved_names


def _newer_names(card: Mapping[str, Any], saved_names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the class names of the weights if they are newer than `student.json`.

    This happens if the process was killed between the two files, since the weights are written first.
    """
    if "stamp" not in saved_names or saved_names["stamp"] == card.get("stamp"):
        return {}
    provenance, changes = card.get("provenance", {}), saved_names.get(CHANGES)
    if changes and isinstance(provenance, dict):
        provenance = provenance | {CHANGES: changes}
    offsets = saved_names.get("offsets")
    return {"classes": saved_names.get("classes"), "offsets": offsets, "provenance": provenance}
