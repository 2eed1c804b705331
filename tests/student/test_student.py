from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.student.architectures import Recipe, build
from vl2v.student.backbones import Backbone, from_module, load_backbone, read_checkpoint
from vl2v.student.model import Student, cosine_logits
from vl2v.student.preprocess import Preprocess
from vl2v_runtime.imaging import UnreadableImageError

PREPROCESS = Preprocess(8, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CLASSES = ["cat", "dog", "horse"]


class Own(nn.Module):
    """A backbone of the user, with dropout so that training mode has an effect."""

    def __init__(self, features: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, features), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


def picture(seed: int, size: tuple[int, int] = (13, 9)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def student_of(backbone: Backbone | None = None, dimension: int = 4) -> Student:
    torch.manual_seed(0)
    backbone = backbone or from_module(Own(), PREPROCESS)
    projection, head = nn.Linear(backbone.features, dimension), torch.randn(len(CLASSES), dimension) * 3
    return Student(backbone, projection, head, CLASSES, 20.0, {"seed": 0})


def by_hand(student: Student, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Compute embedding and probabilities of one image in float64, step by step."""
    size = student.preprocess.size
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    inputs = (pixels - student.preprocess.mean) / student.preprocess.std
    module = student.backbone.eval()
    features = module(torch.from_numpy(inputs.transpose(2, 0, 1).copy()).float()[None])[0].detach().double().numpy()
    assert isinstance(student.projection, nn.Linear)
    weight, bias = (p.detach().double().numpy() for p in student.projection.parameters())
    projected = weight @ features + bias
    embedding = projected / np.sqrt((projected**2).sum())
    assert student.head is not None
    head = student.head.double().numpy()
    logits = np.array([20.0 * (embedding @ row) / np.sqrt(row @ row) for row in head])
    exponents = np.exp(logits - logits.max())
    return embedding, exponents / exponents.sum()


def test_predictions_agree_with_a_computation_by_hand() -> None:
    student, images = student_of(), [picture(i) for i in range(7)]
    embeddings, probabilities = student.embed(images, batch_size=3), student.predict_proba(images, batch_size=2)
    assert embeddings.dtype == probabilities.dtype == np.float32
    for i, image in enumerate(images):
        embedding, chances = by_hand(student, image)
        np.testing.assert_allclose(embeddings[i], embedding, atol=1e-5)
        np.testing.assert_allclose(probabilities[i], chances, atol=1e-4)
        assert student.predict(image) == [CLASSES[int(chances.argmax())]]
    assert len(set(student.predict(images))) > 1


def test_one_image_many_images_and_none(tmp_path: Path) -> None:
    student, path = student_of(), tmp_path / "a.png"
    picture(1).save(path)
    wanted = student.predict_proba(picture(1))
    for source in (path, str(path), path.read_bytes(), [path], (p for p in [path])):
        assert np.array_equal(student.predict_proba(source), wanted)
    assert student.predict_proba([]).shape == (0, 3)
    assert student.embed([]).shape == (0, 4)
    assert student.predict([]) == []
    with pytest.raises(UnreadableImageError):
        student.predict(b"text")


def test_predicting_uses_no_dropout_and_does_not_change_the_mode() -> None:
    student = student_of().train()
    first = student.predict_proba([picture(0), picture(1)])
    assert student.training
    assert student.backbone.training
    assert np.array_equal(first, student.predict_proba([picture(0), picture(1)]))


def test_cosine_logits_of_a_zero_row_are_zero() -> None:
    logits = cosine_logits(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[5.0, 0.0], [0.0, 0.1]]), 10.0)
    assert torch.allclose(logits, torch.tensor([[0.0, 0.0], [6.0, 8.0]]))


def test_a_class_can_be_added() -> None:
    student = student_of()
    before = student.predict_proba(picture(0))
    embedding = student.embed(picture(0))[0]
    student.add_class("zebra", embedding * 7)
    assert student.classes == [*CLASSES, "zebra"]
    assert student.predict(picture(0)) == ["zebra"]
    after = student.predict_proba(picture(0))
    np.testing.assert_allclose(after[:, :3] / after[:, :3].sum(), before, atol=1e-5)
    assert student.head is not None
    np.testing.assert_allclose(student.head.norm(dim=1).numpy(), 1, atol=1e-6)
    refused: list[tuple[str, Any]] = [
        ("cat", [1, 0, 0, 0]), ("x", [1, 0, 0]), ("x", [0, 0, 0, 0]), ("x", [1, np.nan, 0, 0]), ("x", "abcd"),
        ("x", [1j, 0, 0, 0]), ("x", [None] * 4),
    ]  # fmt: skip
    for name, vector in refused:
        with pytest.raises(StudentError):
            student.add_class(name, vector)
    assert len(student.classes) == len(student.head) == 4


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 1001, 5, None])
def test_a_class_needs_a_valid_name(name: Any) -> None:
    student = student_of()
    with pytest.raises(StudentError, match="name cannot be used"):
        student.add_class(name, [1, 0, 0, 0])
    assert student.classes == CLASSES


@pytest.mark.parametrize("change", [{"logit_scale": float("nan")}, {"classes": ["cat", "dog", ""]}])
def test_a_student_that_cannot_be_loaded_does_not_replace_another(tmp_path: Path, change: dict[str, Any]) -> None:
    student_of().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = student_of()
    for name, value in change.items():
        setattr(broken, name, value)
    with pytest.raises(StudentError, match="cannot be saved"):
        broken.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("size", [0, -1])
def test_no_image_is_dropped_by_an_empty_batch(size: int) -> None:
    for method in (student_of().predict, student_of().predict_proba, student_of().embed):
        with pytest.raises(ValueError, match="at least 1 image"):
            method([picture(0), picture(1)], batch_size=size)


@pytest.mark.parametrize(
    ("head", "classes"), [((2, 4), CLASSES), ((3, 4), ["a", "b", "a"]), ((3, 4, 1), CLASSES), ((3,), CLASSES)]
)
def test_head_and_classes_have_to_fit(head: tuple[int, ...], classes: list[str]) -> None:
    with pytest.raises(StudentError, match="Head and classes"):
        Student(from_module(Own(), PREPROCESS), nn.Linear(5, 4), torch.ones(head), classes, 20.0)


def test_a_module_of_the_user_survives_saving(tmp_path: Path) -> None:
    student, images = student_of(), [picture(i) for i in range(4)]
    student.add_class("zebra", [1, 2, 3, 4])
    student.save(tmp_path / "run" / "student")
    names = sorted(path.name for path in (tmp_path / "run" / "student").iterdir())
    assert names == [
        "model.safetensors",
        "student.json",
    ]
    for folder in (tmp_path / "run" / "student", tmp_path / "run"):
        loaded = Student.load(folder, backbone=Own())
        assert not loaded.training
        assert np.array_equal(loaded.predict_proba(images), student.predict_proba(images))
        assert np.array_equal(loaded.embed(images), student.embed(images))
        assert loaded.classes == [*CLASSES, "zebra"]
        assert (loaded.preprocess, loaded.logit_scale) == (student.preprocess, 20.0)
        assert loaded.provenance == {"seed": 0}
    with pytest.raises(StudentError, match="custom module"):
        Student.load(tmp_path / "run")
    with pytest.raises(StudentError, match="cannot be used"):
        Student.load(tmp_path / "run", backbone=Own(6))


def test_a_student_without_projection_survives_saving(tmp_path: Path) -> None:
    student = Student(from_module(Own(4), PREPROCESS), nn.Identity(), torch.eye(3, 4), CLASSES, 20.0)
    student.save(tmp_path)
    loaded = Student.load(tmp_path, backbone=Own(4))
    assert isinstance(loaded.projection, nn.Identity)
    assert np.array_equal(loaded.embed(picture(0)), student.embed(picture(0)))


def broken(folder: Path, kind: str) -> None:
    card, weights = folder / "student.json", folder / "model.safetensors"
    content = json.loads(card.read_text())
    if kind == "no card":
        card.unlink()
    elif kind == "no weights":
        weights.unlink()
    elif kind == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif kind == "empty weights":
        weights.write_bytes(b"")
    elif kind == "card is text":
        card.write_text("{not json")
    elif kind == "card is a list":
        card.write_text("[]")
    elif kind == "other format":
        card.write_text(json.dumps(content | {"format": 2}))
    elif kind == "a field is missing":
        del content["classes"]
        card.write_text(json.dumps(content))
    elif kind == "other dimension":
        card.write_text(json.dumps(content | {"dimension": 9}))


@pytest.mark.parametrize(
    "kind",
    [
        "no card",
        "no weights",
        "truncated weights",
        "empty weights",
        "card is text",
        "card is a list",
        "other format",
        "a field is missing",
        "other dimension",
    ],
)
def test_a_broken_folder_is_refused(tmp_path: Path, kind: str) -> None:
    student_of().save(tmp_path)
    broken(tmp_path, kind)
    with pytest.raises(StudentError):
        Student.load(tmp_path, backbone=Own())


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="contains no student"):
        Student.load(tmp_path / "nothing")


def test_the_feature_dimension_is_measured() -> None:
    module = Own(11).train()
    backbone = from_module(module, PREPROCESS)
    assert (backbone.features, backbone.recipe) == (11, Recipe("module", "Own"))
    assert module.training


class Wrong(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.how = kind

    def forward(self, x: Tensor) -> Any:
        answers = {"4-D": x, "tuple": (x.flatten(1),), "whole": x.flatten(1).long(), "one": x.flatten()[None]}
        if self.how == "raises":
            raise RuntimeError("not today")
        return answers[self.how]


@pytest.mark.parametrize("kind", ["4-D", "tuple", "whole", "one"])
def test_a_module_without_feature_dimension_is_refused(kind: str) -> None:
    with pytest.raises(StudentError, match="no feature dimension"):
        from_module(Wrong(kind), PREPROCESS)


def test_a_module_that_accepts_no_image_batch_is_refused() -> None:
    with pytest.raises(StudentError, match="not today"):
        from_module(Wrong("raises"), PREPROCESS)


def write(state: dict[str, Tensor], path: Path, wrap: str = "") -> Path:
    state = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrap: state} if wrap else state, path)
    return path


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
@pytest.mark.parametrize(
    ("suffix", "classes", "wrap"),
    [
        (".safetensors", 1000, ""),
        (".safetensors", 0, ""),
        (".pth", 1000, "state_dict"),
        (".pth", 0, "model"),
        (".pt", 0, ""),
    ],
)
def test_timm_loads_a_local_checkpoint(tmp_path: Path, name: str, suffix: str, classes: int, wrap: str) -> None:
    torch.manual_seed(1)
    source: Any = timm.create_model(name, pretrained=False, num_classes=classes).eval()
    file = write(source.state_dict(), tmp_path / f"weights{suffix}", wrap)
    backbone = load_backbone(f"timm:{name}@{file}")
    assert backbone.features == source.num_features
    size = backbone.preprocess.size
    inputs = torch.randn(2, 3, size, size)
    source.reset_classifier(0)
    with torch.no_grad():
        assert torch.equal(backbone.module.eval()(inputs), source(inputs))
    student = student_of(backbone)
    student.save(tmp_path / "student")
    file.unlink()  # a student on disk needs nothing else
    loaded = Student.load(tmp_path / "student")
    assert np.array_equal(loaded.predict_proba(picture(0)), student.predict_proba(picture(0)))


def test_another_image_size_is_saved(tmp_path: Path) -> None:
    source = timm.create_model("test_vit", pretrained=False)
    file = write(source.state_dict(), tmp_path / "vit.safetensors")
    backbone = load_backbone(f"timm:test_vit@{file}", size=96, mean=(0.1, 0.2, 0.3))
    assert (backbone.preprocess.size, backbone.preprocess.mean) == (96, (0.1, 0.2, 0.3))
    student = student_of(backbone)
    student.save(tmp_path / "student")
    loaded = Student.load(tmp_path / "student")
    assert loaded.preprocess == backbone.preprocess
    assert np.array_equal(loaded.predict_proba(picture(0)), student.predict_proba(picture(0)))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    file = write(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "r.safetensors")
    with pytest.raises(StudentError):
        load_backbone(f"timm:test_vit@{file}")
    half = {k: v for i, (k, v) in enumerate(timm.create_model("test_vit").state_dict().items()) if i % 2}
    with pytest.raises(StudentError):
        load_backbone(f"timm:test_vit@{write(half, tmp_path / 'half.safetensors')}")


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("timm:test_nothing", "Unknown timm model"),
        ("timm:test_vit.no_such_tag", "Unknown timm weights"),
        ("timm:", "Unknown student"),
        ("resnet50", "Unknown student"),
        ("timm:test_vit@nowhere.safetensors", "is missing"),
    ],
)
def test_an_unknown_name_is_refused(spec: str, part: str) -> None:
    with pytest.raises(StudentError, match=part):
        load_backbone(spec)


def test_unreadable_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nonsense")
    (tmp_path / "b.pth").write_bytes(b"nonsense")
    torch.save({"weight": torch.ones(2), "epoch": 3}, tmp_path / "c.pth")
    torch.save(Own(), tmp_path / "d.pth")  # a pickled module would run code
    for name in "a.safetensors", "b.pth", "c.pth", "d.pth":
        with pytest.raises(StudentError, match=name):
            read_checkpoint(tmp_path / name)
    torch.save({"module.weight": torch.ones(2)}, tmp_path / "e.pth")
    assert list(read_checkpoint(tmp_path / "e.pth")) == ["weight"]


@pytest.fixture
def tiny_clip(tmp_path: Path) -> str:
    open_clip = pytest.importorskip("open_clip")
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-student.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-student.json")
    torch.manual_seed(2)
    file = write(open_clip.create_model("tiny-student").state_dict(), tmp_path / "clip.safetensors")
    return f"open_clip:tiny-student/{file}"


def test_an_open_clip_tower_survives_saving(tmp_path: Path, tiny_clip: str) -> None:
    backbone = load_backbone(tiny_clip)
    assert (backbone.features, backbone.preprocess.size) == (32, 32)
    student = student_of(backbone)
    student.save(tmp_path / "student")
    loaded = Student.load(tmp_path / "student")
    images = [picture(i) for i in range(3)]
    assert np.array_equal(loaded.predict_proba(images), student.predict_proba(images))
    embedding, _ = by_hand(student, images[0])
    np.testing.assert_allclose(loaded.embed(images[0])[0], embedding, atol=1e-5)


def test_the_activation_is_saved(tiny_clip: str) -> None:
    plain, quick = (build(Recipe("open_clip", "tiny-student", o)) for o in ({}, {"force_quick_gelu": True}))
    assert not any(type(module).__name__ == "QuickGELU" for module in plain.modules())
    assert any(type(module).__name__ == "QuickGELU" for module in quick.modules())
    assert load_backbone(tiny_clip).recipe.options == {}
