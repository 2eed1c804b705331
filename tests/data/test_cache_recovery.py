"""A cache recovers from truncated, zeroed, deleted or overwritten files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex, read_all
from vl2v.progress import Silent
from vl2v.student.backbones import Backbone, Recipe
from vl2v.student.preprocess import Preprocess
from vl2v.training.feature_cache import FeatureCache
from vl2v_runtime.imaging import decode, square

SIZE = 16
NAMES = ["0.png", "1.png", "2.png", "3.png"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    from PIL import Image

    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        Image.fromarray(generator.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def scanned(photos: Path, cache: Path) -> NDArray[np.uint8]:
    """The cached pixels of all photos, as training reads them."""
    with closing(FileIndex(cache / "files.sqlite")) as index, closing(PixelCache(cache, SIZE)) as pixels:
        digests, faults = read_all(photos, NAMES, index=index, cache=pixels)
        assert not faults
        return np.array(pixels.map()[pixels.slots(digests)])


def right(photos: Path) -> NDArray[np.uint8]:
    return np.stack([square(decode(photos / name), SIZE) for name in NAMES])


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(3000))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [halved, zeroed, noise, emptied, Path.unlink]


@pytest.mark.parametrize("file", ["files.sqlite", f"pixels-{SIZE}.sqlite", f"pixels-{SIZE}.u8"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_training_gets_correct_pixels_from_a_damaged_cache(
    photos: Path, tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    scanned(photos, tmp_path / "cache")
    for name in ("-wal", "-shm"):
        (tmp_path / "cache" / f"{file}{name}").unlink(missing_ok=True)
    damage(tmp_path / "cache" / file)
    for _ in range(2):
        assert np.array_equal(scanned(photos, tmp_path / "cache"), right(photos))


def test_a_zeroed_page_is_detected_and_its_slot_is_reused(photos: Path, tmp_path: Path) -> None:
    scanned(photos, tmp_path / "cache")
    data = tmp_path / "cache" / f"pixels-{SIZE}.u8"
    size = data.stat().st_size
    with data.open("rb+") as handle:
        handle.seek(2 * SIZE * SIZE * 3)
        handle.write(bytes(100))
    with closing(PixelCache(tmp_path / "cache", SIZE)) as cache:
        assert cache.check() == 1
    assert np.array_equal(scanned(photos, tmp_path / "cache"), right(photos))
    assert data.stat().st_size == size


def test_an_unchanged_cache_is_not_compared_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned(photos, tmp_path / "cache")
    monkeypatch.setattr("vl2v.data.pixels.zlib.crc32", lambda _: pytest.fail("compared"))
    scanned(photos, tmp_path / "cache")


def test_a_cache_of_another_decoding_is_computed_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v.data.pixels.DECODING", 1)
    scanned(photos, tmp_path / "cache")
    monkeypatch.undo()
    with closing(PixelCache(tmp_path / "cache", SIZE)) as cache:
        assert len(cache.map()) == 0
    assert np.array_equal(scanned(photos, tmp_path / "cache"), right(photos))


def test_features_are_discarded_when_slots_are_renumbered(photos: Path, tmp_path: Path) -> None:
    scanned(photos, tmp_path / "cache")
    with closing(PixelCache(tmp_path / "cache", SIZE)) as cache:
        cache.features_folder.mkdir()
        (cache.features_folder / "features").write_text("of slots")
        before = cache.features_folder
    noise(tmp_path / "cache" / f"pixels-{SIZE}.sqlite")
    with closing(PixelCache(tmp_path / "cache", SIZE)) as cache:
        assert cache.features_folder != before
        assert not before.exists()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("suffix", ["f32", "json"])
def test_features_of_the_frozen_backbone_recover(tmp_path: Path, suffix: str, damage: Callable[[Path], None]) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=0).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    cpu, slots = Accelerator(cpu=True), np.arange(70)

    def features() -> NDArray[np.float32]:
        preprocess = Preprocess(32, (0.5,) * 3, (0.5,) * 3)
        student = Backbone(backbone, backbone.num_features, preprocess, Recipe("timm", "test_resnet"))
        feature_cache = FeatureCache(tmp_path, student, pixels)
        return np.array(feature_cache.of(slots, cpu, Silent(), "features"))

    before = features()
    damage(next(tmp_path.glob(f"*.{suffix}")))
    assert np.array_equal(features(), before)


def test_a_copied_cache_is_compared_once(photos: Path, tmp_path: Path) -> None:
    scanned(photos, tmp_path / "cache")
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    assert np.array_equal(scanned(photos, tmp_path / "copy"), right(photos))
