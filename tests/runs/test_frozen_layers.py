"""The first layers of a student may be frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import group_parameters
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture
from torch import nn

import vl2v
from vl2v.errors import StudentError
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.student.backbones import from_module
from vl2v.student.frozen import freeze
from vl2v.student.preprocess import Preprocess

PREPROCESS = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def distilled(bench: Bench, out: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Weights of a trained student's backbone."""
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    run = vl2v.distill(
        bench.data,
        bench.teacher,
        bench.student,
        out=out,
        held_out=["rose"],
        settings=TINY | {"distill": {"steps": 3, "checkpoint_every": 1, "learning_rate": 1e-2} | settings},
        storage=storage,
        report=False,
        progress=Silent(),
    )
    module = vl2v.Student.load(run.folder).backbone
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("weights", ["swad", "last"])
@pytest.mark.parametrize("method", ["vl2v", "erm"])
def test_frozen_layers_keep_their_weights_and_the_others_are_trained(
    bench: Bench, tmp_path: Path, weights: str, method: str
) -> None:
    pretrained = load_file(bench.student.partition("@")[2])
    groups = group_parameters(module := timm.create_model("test_resnet"), module.group_matcher(coarse=True))
    trained = distilled(bench, tmp_path / "run", freeze=3, weights=weights)
    frozen = {name for group in (0, 1, 2) for name in groups[group]}
    for name, tensor in trained.items():
        if name in dict(module.named_parameters()):
            assert torch.equal(tensor, pretrained[name].to(tensor)) == (name in frozen), name


def test_more_groups_than_the_student_has_are_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="All layers.*would be frozen") as found:
        distilled(bench, tmp_path / "run", freeze=50)
    assert "50" in str(found.value)
    assert "has 5 groups" in str(found.value)


def test_a_network_without_groups_is_refused() -> None:
    backbone = from_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), PREPROCESS)
    freeze(backbone, 0)
    with pytest.raises(StudentError, match="a network of timm"):
        freeze(backbone, 1)


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext"])
def test_groups_are_frozen_from_the_input_on(name: str) -> None:
    module = timm.create_model(name, num_classes=0, **({"img_size": 32} if "vit" in name else {}))
    backbone = from_module(module, PREPROCESS)
    count = len(group_parameters(module, module.group_matcher(coarse=True)))
    freeze(backbone, count - 1)
    left = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    names = [name for name, _ in module.named_parameters()]
    assert left
    assert left == names[-len(left) :]
