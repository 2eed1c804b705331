from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from vl2v.evaluation.features import CHUNK, pass_through
from vl2v.progress import Advance
from vl2v.student.backbones import Backbone, Recipe
from vl2v.student.preprocess import Preprocess
from vl2v.training.feature_cache import FeatureCache, fingerprint

PREPROCESS = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Counting:
    """Counts the images whose features were computed."""

    count = 0

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        def advance(steps: int) -> None:
            self.count += steps

        yield advance

    def note(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def backbone() -> Any:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=0).eval()


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def cache(folder: Path, backbone: Any, pixels: NDArray[np.uint8]) -> FeatureCache:
    return FeatureCache(folder, Backbone(backbone, backbone.num_features, PREPROCESS, Recipe("timm", "")), pixels)


def test_features_are_those_of_the_images_and_computed_once(backbone: Any, tmp_path: Path) -> None:
    pixels, progress, cpu = images(3 * CHUNK + 5), Counting(), Accelerator(cpu=True)
    slots = np.array([0, 3 * CHUNK + 4, 70], np.int64)
    features = cache(tmp_path, backbone, pixels).of(slots, cpu, progress, "features")
    (expected,) = pass_through(backbone, PREPROCESS, pixels, slots, torch.device("cpu"))
    np.testing.assert_allclose(features[slots], expected.numpy(), atol=1e-5)
    assert progress.count == 2 * CHUNK + 5, "the blocks of these slots and no other"
    again = cache(tmp_path, backbone, pixels).of(slots, cpu, progress, "features")
    assert progress.count == 2 * CHUNK + 5
    assert np.array_equal(again[slots], features[slots])


def test_a_grown_cache_preserves_its_features_and_fills_the_last_block(backbone: Any, tmp_path: Path) -> None:
    every, progress, cpu = images(CHUNK + 20), Counting(), Accelerator(cpu=True)
    few = cache(tmp_path, backbone, every[: CHUNK + 10])
    first = np.array(few.of(np.arange(CHUNK + 10), cpu, progress, "features"))
    more = cache(tmp_path, backbone, every).of(np.arange(CHUNK + 20), cpu, progress, "features")
    assert progress.count == CHUNK + 10 + 20, "the last block again, the full one not"
    np.testing.assert_allclose(more[: CHUNK + 10], first, atol=1e-6)
    assert np.abs(more[-10:]).sum() > 0


def test_features_do_not_depend_on_the_order_of_requests(backbone: Any, tmp_path: Path) -> None:
    pixels, cpu = images(2 * CHUNK + 9), Accelerator(cpu=True)
    one = cache(tmp_path / "one", backbone, pixels).of(np.arange(2 * CHUNK + 9), cpu, Counting(), "features")
    other = cache(tmp_path / "other", backbone, pixels)
    for slot in (2 * CHUNK + 8, 5, CHUNK):
        assert np.array_equal(other.of(np.array([slot]), cpu, Counting(), "features")[slot], one[slot])


def test_other_weights_or_pixels_have_separate_files(backbone: Any) -> None:
    before = fingerprint(backbone, PREPROCESS)
    assert fingerprint(backbone, Preprocess(32, (0.4, 0.5, 0.5), (0.5, 0.5, 0.5))) != before
    with torch.no_grad():
        first = next(backbone.parameters())
        first += 1e-3
        assert fingerprint(backbone, PREPROCESS) != before
        first -= 1e-3
