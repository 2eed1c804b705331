"""A run folder whose student was solved in closed form: accurate without training, within a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from tiny_dataset import Bench
from torch import nn

from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN
from vl2v.evaluation.split import DomainPredictions, save_predictions, trust_of
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.runs.signatures import MARK, sign_teacher
from vl2v.settings import make_config
from vl2v.student.architectures import Recipe
from vl2v.student.backbones import from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.teacher.file import FileTeacher

CLASSES = ["bar", "blank", "zebra_stripe"]
DOMAINS = {"ink": IN_DOMAIN, "neon": IN_DOMAIN, "rose": OUT_OF_DOMAIN}
PREPROCESS = Preprocess(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def make_run(bench: Bench, run: Path, linear: bool = False, price: str = "0.1") -> Path:
    """Write a run folder with a student, its predictions and its settings, without training."""
    method = "erm" if linear else "adip"
    settings: dict[str, Any] = {
        "data": {"root": str(bench.data)}, "student": {"size": 32}, "method": method,
        "teacher": {"spec": bench.teacher, "price_per_1000_texts": price},
    }  # fmt: skip
    config = make_config(None, settings)
    teacher = FileTeacher(bench.teacher.removeprefix("file:"))
    card = teacher.describe()
    folder = RunFolder(run)
    folder.create(config, StoragePaths(bench.root / "cache", run.parent / "vectors.sqlite"))
    texts = [f"a photo of a {name.replace('_', ' ')}" for name in CLASSES]
    provenance = {
        "teacher": {"identity": card.identity, "revision": card.revision, "dimension": card.dimension},
        "prompts": texts, "templates": ["a photo of a {}"], "seed": 0,
        "config": config.model_dump(mode="json", exclude={"made_with", "budget", "tracking"}),
        MARK: sign_teacher(config),
    }  # fmt: skip
    torch.manual_seed(0)
    recipe = Recipe("timm", "test_resnet")
    backbone = from_module(timm.create_model("test_resnet", num_classes=0), PREPROCESS, recipe)
    backbone.module.eval()
    paths = {domain: sorted((bench.data / domain).rglob("*.png")) for domain in DOMAINS}
    labels = {domain: np.array([CLASSES.index(p.parent.name) for p in paths[domain]]) for domain in DOMAINS}
    head = teacher.embed_texts(texts)
    with torch.no_grad():
        pixels = {domain: torch.stack([PREPROCESS(p) for p in paths[domain]]) for domain in DOMAINS}
        features = {domain: backbone.module(rows) for domain, rows in pixels.items()}
    every = torch.cat(list(features.values()))
    targets = np.eye(3, dtype=np.float32) if linear else head
    wanted = torch.from_numpy(targets[np.concatenate(list(labels.values()))])
    ones = torch.cat([every, torch.ones(len(every), 1)], 1)
    solution = torch.linalg.lstsq(ones, wanted, driver="gelsd").solution
    projection = nn.Linear(backbone.features, wanted.shape[1])
    with torch.no_grad():
        projection.weight.copy_(solution[:-1].T)
        projection.bias.copy_(solution[-1])
    student = Student(
        backbone, projection, None if linear else torch.from_numpy(head), CLASSES, 20.0, provenance
    ).eval()
    parts = []
    with torch.no_grad():
        for domain, role in DOMAINS.items():
            projected = projection(features[domain])
            names = [path.relative_to(bench.data).as_posix() for path in paths[domain]]
            rows = None if linear else student.embeddings(projected).numpy()
            logits = student.logits(projected).numpy()
            parts.append(DomainPredictions(domain, role, names, labels[domain], logits, rows, classes=CLASSES))
    student.trust = trust_of(parts)
    student.save(folder.student)
    save_predictions(parts, folder.predictions_file)
    return run


def trust_content(run: Path) -> dict[str, Any]:
    """Return the content of `trust.json` in the folder of a run."""
    content: dict[str, Any] = json.loads((run / "student" / "trust.json").read_text())
    return content
