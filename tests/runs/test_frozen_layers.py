"""The first layers of a student can be frozen."""

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
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.recipes import with_recipe
from vl2v.student.frozen import freeze


def distilled(bench: Bench, out: Path, student: Any = None, **settings: Any) -> dict[str, torch.Tensor]:
    """Weights of a trained student's backbone; `student` replaces that of the bench."""
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    run = vl2v.distill(
        bench.data,
        bench.teacher,
        bench.student if student is None else student,
        out=out,
        held_out=["rose"],
        settings=TINY | {"distill": {"steps": 3, "checkpoint_every": 1, "learning_rate": 1e-2} | settings},
        storage=storage,
        report=False,
        progress=Silent(),
    )
    assert run is not None
    module = vl2v.Student.load(run.folder, student).backbone
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("weights", ["swad", "last"])
@pytest.mark.parametrize("method", ["vl2v", "erm"])
def test_frozen_layers_keep_their_weights_and_the_others_are_trained(
    bench: Bench, tmp_path: Path, weights: str, method: str
) -> None:
    pretrained = load_file(bench.student.partition("@")[2])
    groups = group_parameters(module := timm.create_model("test_resnet"), module.group_matcher(coarse=True))
    trained = distilled(bench, tmp_path / "run", freeze=0.2, weights=weights)
    frozen = {name for group in (0, 1, 2) for name in groups[group]}
    for name, tensor in trained.items():
        if name in dict(module.named_parameters()):
            assert torch.equal(tensor, pretrained[name].to(tensor)) == (name in frozen), name


def test_a_network_that_the_user_passes_is_frozen_during_the_run_only(bench: Bench, tmp_path: Path) -> None:
    module = timm.create_model("test_resnet", num_classes=0)
    module.conv1.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    groups = group_parameters(module, module.group_matcher(coarse=True))
    start = {name: parameter.clone() for name, parameter in module.named_parameters()}
    distilled(bench, tmp_path / "run", module, freeze=0.2, weights="last")
    changed = {name for name, parameter in module.named_parameters() if not torch.equal(parameter, start[name])}
    assert changed == set(start) - {name for group in (0, 1, 2) for name in groups[group]}
    assert {name: parameter.requires_grad for name, parameter in module.named_parameters()} == before


def test_a_network_without_groups_is_trained_completely() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert freeze(module, 0.5) == 0
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_network_whose_groups_timm_does_not_define_is_trained_completely() -> None:
    with torch.device("meta"):
        module = timm.create_model("rdnet_tiny", num_classes=0)
    assert freeze(module, 0.5) == 0


@pytest.mark.parametrize(
    ("name", "share", "last"),
    [
        ("tf_efficientnet_lite0", 0.03, "blocks.2."),
        ("resnet50", 0.03, "layer1."),
        ("convnext_atto", 0.03, "stages.0."),
        ("vit_base_patch16_224", 0.03, "patch_embed."),
        ("resnet50", 0.99, "layer3."),
        ("resnet50", 0.0, ""),
    ],
)
def test_the_first_groups_up_to_a_share_of_the_parameters_are_frozen(name: str, share: float, last: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=0)
    freeze(module, share)
    names = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    every = [name for name, _ in module.named_parameters()]
    assert names == every[: len(names)]
    if last:
        assert names[-1].startswith(last)
        assert not any(name.startswith(last) for name in every[len(names) :])
    else:
        assert not names


def test_the_recipe_freezes_first_layers_of_convolutional_networks_only() -> None:
    def share(student: str) -> object:
        return with_recipe({"recipe": "ood", "student": {"spec": student}})["distill"].get("freeze", 0)

    assert share("timm:resnet50") == 0.03
    assert share("timm:vit_base_patch16_224") == 0
