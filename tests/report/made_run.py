"""The folder of a finished run, written file by file from numbers that a test can compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vl2v.config import RunConfig
from vl2v.evaluation.evaluation import DomainScore, Evaluation
from vl2v.json_files import write_json
from vl2v.runs.folder import RunFolder
from vl2v.student.backbones import Backbone, Recipe
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.validation import parse

CLASSES = ("cat", "dog", "owl")
DOMAINS = {"ink": "in-domain", "neon": "in-domain", "rose": "out-of-domain"}
EACH = 20  # images per domain


@dataclass(frozen=True)
class Made:
    """The values that were written."""

    folder: Path
    classes: Sequence[str]
    domain: NDArray[Any]
    role: NDArray[Any]
    label: NDArray[np.int64]
    student: NDArray[np.float16]
    teacher: NDArray[np.float16]

    @property
    def right(self) -> NDArray[np.bool_]:
        correct: NDArray[np.bool_] = self.student.argmax(axis=1) == self.label
        return correct


def make_run(root: Path, classes: Sequence[str] = CLASSES, *, embeddings: bool = True, method: str = "adip") -> Made:
    """Write a run on three domains, one of them held out. The images of the third domain are missing."""
    generator = np.random.default_rng(0)
    folder, count = RunFolder(root / "run"), len(classes)
    domain = np.repeat(list(DOMAINS), EACH)
    role = np.array([DOMAINS[name] for name in domain])
    label = generator.integers(count, size=len(domain))
    logits = generator.normal(size=(len(domain), count)) * 2 + 3 * np.eye(count)[label]
    teacher = generator.normal(size=(len(domain), count)) + 3 * np.eye(count)[label]
    made = Made(folder.path, classes, domain, role, label, logits.astype(np.float16), teacher.astype(np.float16))
    path = np.array([f"{name}/thing/{i}.png" for i, name in enumerate(domain)])
    _write_images(root / "data", path[role == "in-domain"])
    folder.create(_config(root / "data", method))
    np.savez_compressed(
        folder.predictions_file, domain=domain, role=role, path=path, label=label, student=made.student,
        zero_shot=made.teacher,
    )  # fmt: skip
    _write_evaluation(folder, made)
    _write_student(folder, classes, method)
    _write_metrics(folder)
    if embeddings:
        _write_embeddings(folder, made, path, generator)
    return made


def _config(data: Path, method: str) -> RunConfig:
    values = {
        "data": {"root": str(data), "held_out": ["rose"]},
        "teacher": {"spec": "file:teacher.npz", "price_per_1000_images": "0.5"},
        "student": {"spec": "timm:test_resnet", "size": 32},
        "method": method,
    }
    return parse(RunConfig, values, "made")


def _write_images(data: Path, paths: Sequence[str]) -> None:
    for path in paths:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), "teal").save(data / path)


def _write_evaluation(folder: RunFolder, made: Made) -> None:
    rows = []
    for name, role in DOMAINS.items():
        of_domain = made.domain == name
        teacher = float((made.teacher.argmax(axis=1) == made.label)[of_domain].mean())
        rows.append(DomainScore(name, role, EACH, float(made.right[of_domain].mean()), teacher, 0.1, 0.1))
    usage = {"image_queries": 160, "text_queries": 3, "cost": "0.08", "currency": "USD"}
    write_json(folder.evaluation_file, Evaluation(tuple(rows)).to_dict() | {"asked": usage})


def _write_student(folder: RunFolder, classes: Sequence[str], method: str) -> None:
    torch.manual_seed(0)
    preprocess = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    module = timm.create_model("test_resnet", num_classes=0)
    features = int(module.num_features)
    backbone = Backbone(module, features, preprocess, Recipe("timm", "test_resnet", {}))
    linear = method == "erm"
    projection = nn.Linear(features, len(classes) if linear else 16)
    made = {"data": {"images": 200, "digest": "abc", "domains": list(DOMAINS)}, "seed": 0}
    made["swad"] = {"converged_at": 4, "dead_at": 12, "threshold": 0.5}
    head = None if linear else torch.randn(len(classes), 16)
    Student(backbone, projection, head, classes, 20.0, made).save(folder.student)


def _write_metrics(folder: RunFolder) -> None:
    for stage in ("align", "distill"):
        for step in range(0, 17, 4):
            line = {"stage": stage, "step": step, "losses": [1 / (1 + step)] * (1 if step == 0 else 4), "val_loss": 0.5}
            domains = {name: {"loss": 0.5, "accuracy": 0.5 + step / 100} for name in ("ink", "neon")}
            folder.add_metrics(line | {"val_accuracy": 0.5, "domains": domains})


def _write_embeddings(folder: RunFolder, made: Made, path: NDArray[Any], generator: np.random.Generator) -> None:
    texts = generator.normal(size=(len(made.classes), 16))
    near = texts[made.label] + generator.normal(size=(len(made.label), 16))
    parts = {"features": generator.normal(size=(len(made.label), 24)), "aligned": near, "distilled": near}
    halved = {name: rows.astype(np.float16) for name, rows in (parts | {"texts": texts}).items()}
    known = {"path": path, "domain": made.domain, "role": made.role, "label": made.label}
    np.savez_compressed(folder.embeddings_file, allow_pickle=False, **known, **halved)
