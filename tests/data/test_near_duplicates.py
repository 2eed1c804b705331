"""Copies of training images in other files are found; images that only look alike in outline are not."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vl2v.config import DataConfig
from vl2v.data import near_duplicates as near
from vl2v.data.folder import DomainFolder
from vl2v.data.pixels import PixelCache
from vl2v.planning import resemblance as planned
from vl2v.planning.resemblance import resemblance
from vl2v.planning.split import split_dataset


def scene(seed: int, size: int = 64) -> Image.Image:
    """A picture with structure at all scales."""
    generator = np.random.default_rng(seed)
    image = np.zeros((size, size, 3))
    for cells in (4, 8, 16):
        part = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), np.uint8))
        image += np.asarray(part.resize((size, size), Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(image.astype(np.uint8))


def compressed(image: Image.Image) -> Image.Image:
    """A smaller, darker copy in poor quality."""
    data = io.BytesIO()
    small = image.resize((40, 40)).point(lambda value: int(0.8 * value))
    small.save(data, "JPEG", quality=60)
    return Image.open(data).resize(image.size)


def stacked(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(image.convert("RGB")) for image in images])


def test_a_copy_in_another_file_is_found_and_a_picture_of_its_own_is_not() -> None:
    originals = [scene(seed) for seed in range(40)]
    tested = [compressed(originals[7]), scene(100), compressed(originals[31])]
    found = near.near_duplicates(stacked([*originals, *tested]), np.arange(40, 43), np.arange(40))
    assert found.pairs.tolist() == [[0, 7], [2, 31]]
    assert found.complete


def test_large_images_are_found_by_a_part_of_their_pixels() -> None:
    originals = [scene(seed, 200) for seed in range(5)]
    found = near.near_duplicates(stacked([*originals, compressed(originals[3])]), np.arange(5, 6), np.arange(5))
    assert found.pairs.tolist() == [[0, 3]]


def test_images_without_structure_resemble_nothing() -> None:
    blank = [Image.new("RGB", (32, 32), colour) for colour in ("white", "white", "black", "gray")]
    pixels = stacked(blank)
    pixels[:, 3, 3] ^= 9  # a speck
    assert (near.hashes(pixels, np.arange(4)) == near.FLAT).all()
    assert not len(near.near_duplicates(pixels, np.arange(2), np.arange(2, 4)).pairs)


def test_an_equal_hash_alone_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = stacked([scene(0), scene(1)])
    monkeypatch.setattr(near, "hashes", lambda pixels, slots: np.full(len(slots), 5, np.uint64))
    assert not len(near.near_duplicates(pixels, np.arange(1), np.arange(1, 2)).pairs)


def test_close_hashes_are_those_of_a_comparison_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    training = generator.integers(0, 2**63, 300, np.uint64)
    tested = training[generator.integers(0, 300, 200)]
    for _ in range(8):  # distances from 0 to 8
        flips = generator.integers(0, 64, 200).astype(np.uint64)
        tested = np.where(generator.random(200) < 0.6, tested ^ (np.uint64(1) << flips), tested)
    monkeypatch.setattr(near, "PARTNERS", 1000)
    found, complete = near.close_pairs(tested, training)
    distances = np.bitwise_count(tested[:, None] ^ training)
    expected = np.argwhere(distances <= near.DISTANCE)
    assert complete
    assert 10 < len(expected) < 200
    assert sorted(found.tolist()) == expected.tolist()
    assert near.close_pairs(tested, training, most=3)[1] is False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two domains of ten images, of which a held-out one is a copy of a training image."""
    for number, (domain, kind) in enumerate((d, c) for d in ("ink", "rose") for c in ("cat", "dog")):
        path = tmp_path / "data" / domain / kind
        path.mkdir(parents=True)
        for i in range(10):
            scene(100 * number + i).save(path / f"{i}.png")
    return tmp_path / "data"


def test_a_split_with_copies_is_told_once_and_read_the_next_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PixelCache(tmp_path / "cache", 32)) as cache:
        config = DataConfig(root=folder, held_out=("rose",))
        dataset = DomainFolder(folder).scan(cache=cache)
        plain = resemblance(dataset, split_dataset(dataset, config, 0), cache)
        assert (plain.validation, plain.test, plain.text()) == (0, 0, "")
        train = split_dataset(dataset, config, 0).training["ink"].tolist()
        copied = dataset.paths[next(row for row in train if "cat" in dataset.paths[row])]
        compressed(Image.open(folder / copied)).save(folder / "rose" / "cat" / "3.png")
        (folder / "rose" / "dog" / "0.png").write_bytes((folder / copied).read_bytes())  # the same file: told elsewhere
        dataset = DomainFolder(folder).scan(cache=cache)
        split = split_dataset(dataset, config, 0)
        found = resemblance(dataset, split, cache)
        assert (found.validation, found.test) == (0, 1)
        assert found.examples == (("rose/cat/3.png", copied),)
        assert found.text().startswith(f"1 test image resembles a training image, such as rose/cat/3.png and {copied};")
        assert "--group" in found.text()

        def again(*_: object) -> None:
            raise AssertionError("compared again")

        monkeypatch.setattr(planned, "near_duplicates", again)
        assert resemblance(dataset, split, cache) == found


def test_runs_that_plan_the_same_split_at_once_write_one_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PixelCache(tmp_path / "cache", 32)) as cache:
        dataset = DomainFolder(folder).scan(cache=cache)
    split, together = split_dataset(dataset, DataConfig(root=folder, held_out=("rose",)), 0), Barrier(4)
    compare = near.near_duplicates

    def waiting(*arguments: np.ndarray) -> near.NearDuplicates:
        found = compare(*arguments)
        together.wait(20)
        return found

    def plan(_: int) -> str:
        with closing(PixelCache(tmp_path / "cache", 32)) as own:
            return resemblance(dataset, split, own).text()

    monkeypatch.setattr(planned, "near_duplicates", waiting)
    for _ in range(25):
        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(plan, range(4))) == {""}
        (saved,) = [file for file in (tmp_path / "cache").rglob("*") if file.name.startswith("resemblance")]
        saved.unlink()
