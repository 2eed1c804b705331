"""In VL2V-SD the student is the image encoder of the teacher, distilled from the frozen original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_dataset import Bench

import vl2v
from vl2v.locations import StoragePaths
from vl2v.teacher.registry import open_teacher

open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.slow
NAME = "tiny-white-box"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small open_clip model of random weights in a local file; its input has the size of the images."""
    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 48, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    (folder / f"{NAME}.json").write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(3)
    save_file(open_clip.create_model(NAME).state_dict(), folder / "clip.safetensors")
    return f"open_clip:{NAME}/{folder / 'clip.safetensors'}"


def run(bench: Bench, teacher: str, out: Path, **settings: Any) -> vl2v.Student:
    base = {"batch_per_domain": 4, "workers": 0, "device": "cpu"}
    storage = StoragePaths(bench.root / "cache", bench.root / "white-box.sqlite")
    done = vl2v.distill(
        bench.data, teacher, "teacher", out=out, held_out=["rose"], storage=storage, settings=base | settings,
        report=False,
    )  # fmt: skip
    assert done is not None
    return vl2v.load(out)


def test_before_distilling_the_student_is_the_teacher(bench: Bench, teacher: str, tmp_path: Path) -> None:
    student = run(bench, teacher, tmp_path / "run", distill={"steps": 1, "learning_rate": 1e-12})
    images = [path.read_bytes() for path in sorted((bench.data / "rose").rglob("*.png"))]
    opened_teacher = open_teacher(teacher, device="cpu")
    np.testing.assert_allclose(student.embed(images), opened_teacher.embed_images(images), atol=1e-5)
    assert student.logit_scale == pytest.approx(opened_teacher.describe().logit_scale)
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())["domains"]
    assert all(row["student"] == row["zero_shot"] for row in rows)


def test_distilling_trains_the_encoder_and_skips_align(bench: Bench, teacher: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(bench, teacher, out, distill={"steps": 40, "learning_rate": 1e-3, "checkpoint_every": 10}, image_weight=0.0)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"distill"}
    assert lines[-1]["losses"][-1] < lines[0]["losses"][0] - 0.1
    card = json.loads((out / "student" / "student.json").read_text())
    assert (card["projection"], card["backbone"]["kind"]) == ("identity", "open_clip")
    weights = load_file(out / "student" / "model.safetensors")
    assert not any(name.startswith("projection") for name in weights)
    original = load_file(teacher.partition("/")[2])
    moved = [n for n, t in weights.items() if n.startswith("backbone.") and not t.equal(original[f"visual.{n[9:]}"])]
    assert len(moved) > 10


def test_miro_limits_the_distance_from_the_original_encoder(bench: Bench, teacher: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"distill": {"steps": 8, "learning_rate": 1e-3, "checkpoint_every": 4}, "method": "miro"}
    original, moved = load_file(teacher.partition("/")[2]), []
    for weight in (0.0, 100.0):
        out = tmp_path / f"{weight}"
        student = run(bench, teacher, out, **settings, miro={"weight": weight})
        assert student.head is None
        state = load_file(out / "state.safetensors")
        assert {n for n in state if n.startswith("penalty/")} == {f"penalty/variances.{i}.b" for i in range(2)}
        weights = load_file(out / "student" / "model.safetensors")
        pairs = [(t, original[f"visual.{n[9:]}"]) for n, t in weights.items() if n.startswith("backbone.transformer")]
        moved.append(sum(float((a - b).square().sum()) for a, b in pairs))
    assert 0 < moved[1] < moved[0]
