from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vl2v.errors import TeacherError
from vl2v.teacher.registry import open_teacher

open_clip = pytest.importorskip("open_clip")
NAME = "tiny-teacher"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    """A small model with random weights, and its state dict in both formats."""
    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    (folder / f"{NAME}.json").write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(3)
    model = open_clip.create_model(NAME).eval()
    model.logit_scale.data.fill_(3.0)
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "clip.safetensors")
    torch.save(model.state_dict(), folder / "clip.pt")
    return model, folder / "clip.safetensors", folder / "clip.pt"


def images(count: int) -> list[bytes]:
    out = []
    for seed in range(count):
        buffer = io.BytesIO()
        values = np.random.default_rng(seed).integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(values).save(buffer, "PNG")
        out.append(buffer.getvalue())
    return out


@pytest.mark.parametrize("which", [1, 2])
def test_embeddings_are_those_of_the_model(files: tuple[Any, Path, Path], which: int) -> None:
    model, file = files[0], files[which]
    assert isinstance(file, Path)
    teacher = open_teacher(f"open_clip:{NAME}/{file}", device="cpu")
    card = teacher.describe()
    assert card.identity == f"open_clip:{NAME}/{file.name}"
    assert card.revision == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert card.dimension == 32
    assert card.logit_scale == pytest.approx(np.exp(3.0), rel=1e-5)
    assert card.price.free
    transform = open_clip.image_transform(32, is_train=False)
    pixels = torch.stack([transform(Image.open(io.BytesIO(data))) for data in images(5)])
    with torch.no_grad():
        seen = model.encode_image(pixels, normalize=True).numpy()
        read = model.encode_text(open_clip.get_tokenizer(NAME)(["a cat", "a dog"]), normalize=True).numpy()
    embedded, texts = teacher.embed_images(images(5)), teacher.embed_texts(["a cat", "a dog"])
    np.testing.assert_allclose(embedded, seen, atol=1e-5)
    np.testing.assert_allclose(texts, read, atol=1e-5)
    assert embedded.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([embedded, texts]), axis=1), 1, atol=1e-5)
    assert np.abs(embedded[0] - embedded[1]).max() > 1e-3


def test_another_order_gives_the_same_rows(files: tuple[Any, Path, Path]) -> None:
    teacher = open_teacher(f"open_clip:{NAME}/{files[1]}", device="cpu")
    data, order = images(6), [4, 0, 5, 2, 1, 3]
    embeddings = teacher.embed_images(data)
    np.testing.assert_allclose(teacher.embed_images([data[i] for i in order]), embeddings[order], atol=1e-6)
    np.testing.assert_allclose(teacher.embed_images(data[2:3])[0], embeddings[2], atol=1e-5)


def test_an_unreadable_image_is_refused(files: tuple[Any, Path, Path]) -> None:
    with pytest.raises(TeacherError, match="rejected"):
        open_teacher(f"open_clip:{NAME}/{files[1]}", device="cpu").embed_images([b"text"])


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("no-such-model/openai", "Unknown open_clip model"),
        (f"{NAME}/nowhere.pt", "is missing"),
        (NAME, "specifies no weights"),
        (f"{NAME}/", "specifies no weights"),
        (f"{NAME}/no-such-tag", "Unknown weights"),
    ],
)
def test_models_that_cannot_be_opened_are_refused(files: tuple[Any, Path, Path], spec: str, part: str) -> None:
    with pytest.raises(TeacherError, match=part):
        open_teacher(f"open_clip:{spec}", device="cpu").describe()


def test_weights_of_another_architecture_are_refused(files: tuple[Any, Path, Path], tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.pt").write_bytes(b"nonsense")
    for name in ("other.safetensors", "broken.pt"):
        with pytest.raises(TeacherError, match="could not be opened"):
            open_teacher(f"open_clip:{NAME}/{tmp_path / name}", device="cpu").describe()


@pytest.mark.parametrize(
    ("spec", "quick"),
    [("ViT-B-16/openai", True), ("ViT-B-16-quickgelu/openai", True), ("ViT-B-32/laion2b_s34b_b79k", False)],
)
def test_a_tag_is_opened_with_the_activation_it_was_trained_with(
    monkeypatch: pytest.MonkeyPatch, spec: str, quick: bool
) -> None:
    requested: dict[str, Any] = {}

    def offline(name: str, **settings: Any) -> None:
        """Record the request to open_clip instead of downloading."""
        requested.update(settings)
        raise OSError("no network in tests")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", offline)
    with pytest.raises(TeacherError, match="no network"):
        open_teacher(f"open_clip:{spec}", device="cpu").describe()
    assert requested["force_quick_gelu"] is quick
