"""Mutations of every JSON file and metadata entry of a student: a clear error, or a student that predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_folder import CLASSES, PREPROCESS, Small, student_of, use
from mutations import mutations
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from watching import watched

from vl2v.errors import StudentError
from vl2v.student.architectures import Recipe
from vl2v.student.backbones import from_module
from vl2v.student.model import Student

FEW, MANY = 40, 500


def attempt(folder: Path, what: str, backbone: nn.Module | None) -> bool:
    """Load and use a student and return whether it worked. Anything except a clear error fails the test."""
    refusal: StudentError | None = None
    with watched(folder) as events:
        try:
            use(Student.load(folder, backbone))
        except StudentError as error:
            refusal = error
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert events == [], what
    assert not any(Path(folder_checked, "PWNED").exists() for folder_checked in (".", folder, folder.parent)), what
    if refusal is not None:
        assert all((refusal.problem, refusal.expected, refusal.found, refusal.next_step)), what
        assert len(str(refusal)) < 3000, what
    return refusal is None


def fuzz(folder: Path, name: str, count: int, backbone: nn.Module | None, seed: int = 0) -> None:
    path = folder / name
    document, worked = json.loads(path.read_text()), 0
    for what, text in mutations(document, count, seed):
        path.write_text(text)
        worked += attempt(folder, f"{name} {what}", backbone)
    assert 0 < worked < count  # both outcomes occur


def student_folder(tmp_path: Path) -> Path:
    return student_of(backbone=from_module(Small(), PREPROCESS), config={"data": {"root": "x"}}).save(
        tmp_path / "student"
    )


@pytest.mark.parametrize("name", ["student.json", "trust.json"])
def test_a_few_mutations_are_loaded_or_refused(tmp_path: Path, name: str) -> None:
    fuzz(student_folder(tmp_path), name, FEW, Small())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["student.json", "trust.json"])
def test_many_mutations_are_loaded_or_refused(tmp_path: Path, name: str) -> None:
    fuzz(student_folder(tmp_path), name, MANY, Small(), seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"img_size": 32}])
def test_many_mutations_of_a_recipe_are_loaded_or_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Mutate the complete file with a backbone that is built, its recipe more often than the rest."""
    name = "test_vit" if options else "test_resnet"
    folder = student_of(Recipe("timm", name, options)).save(tmp_path / "student")
    fuzz(folder, "student.json", MANY // 2, None)
    path = folder / "student.json"
    card = json.loads((student_of(Recipe("timm", name, options)).save(folder) / "student.json").read_text())
    for what, text in mutations(card["backbone"], MANY // 2):
        path.write_text(json.dumps(card | {"backbone": "@@"}).replace('"@@"', text))
        attempt(folder, what, None)


def metadata_mutations(tmp_path: Path, count: int) -> None:
    folder = student_folder(tmp_path)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()["student"])
    document["stamp"] = "other"  # so that the names are read from this file
    for what, text in mutations(document, count):
        save_file(tensors, path, metadata={"student": text.encode("utf-8", "replace").decode()})
        attempt(folder, f"metadata {what}", Small())


def test_a_few_mutations_of_the_metadata_of_the_weights_are_loaded_or_refused(tmp_path: Path) -> None:
    metadata_mutations(tmp_path, FEW)


@pytest.mark.slow
def test_many_mutations_of_the_metadata_of_the_weights_are_loaded_or_refused(tmp_path: Path) -> None:
    metadata_mutations(tmp_path, MANY)


def header_mutations(tmp_path: Path, count: int) -> None:
    """The header of model.safetensors is JSON with shapes, types and offsets."""
    folder = student_folder(tmp_path)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    document, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    document["__metadata__"].pop("student")
    for what, text in mutations(document, count):
        raw = text.encode("utf-8", "replace")
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + rest)
        attempt(folder, f"header {what}", Small())


def test_a_few_mutations_of_the_header_of_the_weights_are_loaded_or_refused(tmp_path: Path) -> None:
    header_mutations(tmp_path, FEW)


@pytest.mark.slow
def test_many_mutations_of_the_header_of_the_weights_are_loaded_or_refused(tmp_path: Path) -> None:
    header_mutations(tmp_path, MANY)


def test_mutations_are_repeatable_and_of_all_kinds() -> None:
    document = {"classes": CLASSES, "scale": 1.5}
    first, again = list(mutations(document, 200)), list(mutations(document, 200))
    assert first == again
    for sign in ("NaN", "1e400", "[[[[", "delete", "add", "swap", "scale", "passwd", "http"):
        assert any(sign in what or sign in text for what, text in first), sign
