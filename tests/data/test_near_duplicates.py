"""Copies of training images in other files are found; images with only similar outlines are not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vl2v.config import DataConfig
from vl2v.data import alignment
from vl2v.data import near_duplicates as near
from vl2v.data.alignment import CORRELATION, aligned_correlations
from vl2v.data.folder import DomainFolder
from vl2v.data.pixels import PixelCache
from vl2v.planning import split_duplicates as planned
from vl2v.planning.split import split_dataset
from vl2v.planning.split_duplicates import split_duplicates, split_duplicates_by_embedding
from vl2v.progress import Advance, Silent


def scene(seed: int, size: int = 64) -> Image.Image:
    """Return an image with structure at all scales."""
    generator = np.random.default_rng(seed)
    image = np.zeros((size, size, 3))
    for cells in (4, 8, 16):
        part = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), np.uint8))
        image += np.asarray(part.resize((size, size), Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(image.astype(np.uint8))


def compressed(image: Image.Image) -> Image.Image:
    """Return a smaller, darker, strongly compressed copy."""
    data = io.BytesIO()
    small = image.resize((40, 40)).point(lambda value: int(0.8 * value))
    small.save(data, "JPEG", quality=60)
    return Image.open(data).resize(image.size)


def stacked(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(image.convert("RGB")) for image in images])


def test_a_copy_in_another_file_is_found_and_a_distinct_image_is_not() -> None:
    originals = [scene(seed) for seed in range(40)]
    tested = [compressed(originals[7]), scene(100), compressed(originals[31])]
    pairs = near.near_duplicates(stacked([*originals, *tested]), np.arange(40, 43), np.arange(40))
    assert pairs.pairs.tolist() == [[0, 7], [2, 31]]
    assert pairs.complete


def test_copies_of_large_images_are_found_from_a_sample_of_their_pixels() -> None:
    originals = [scene(seed, 200) for seed in range(5)]
    duplicates = near.near_duplicates(stacked([*originals, compressed(originals[3])]), np.arange(5, 6), np.arange(5))
    assert duplicates.pairs.tolist() == [[0, 3]]


def test_images_without_structure_have_no_duplicates() -> None:
    blank = [Image.new("RGB", (32, 32), colour) for colour in ("white", "white", "black", "gray")]
    pixels = stacked(blank)
    pixels[:, 3, 3] ^= 9  # a speck
    assert (near.hashes(pixels, np.arange(4)) == near.FLAT).all()
    assert not len(near.near_duplicates(pixels, np.arange(2), np.arange(2, 4)).pairs)


def test_an_equal_hash_alone_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = stacked([scene(0), scene(1)])
    monkeypatch.setattr(near, "hashes", lambda pixels, slots: np.full(len(slots), 5, np.uint64))
    assert not len(near.near_duplicates(pixels, np.arange(1), np.arange(1, 2)).pairs)


def test_close_hashes_agree_with_a_comparison_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    training = generator.integers(0, 2**63, 300, np.uint64)
    tested = training[generator.integers(0, 300, 200)]
    for _ in range(8):  # distances from 0 to 8
        flips = generator.integers(0, 64, 200).astype(np.uint64)
        tested = np.where(generator.random(200) < 0.6, tested ^ (np.uint64(1) << flips), tested)
    monkeypatch.setattr(near, "PARTNERS", 1000)
    duplicates, complete = near.close_pairs(tested, training)
    distances = np.bitwise_count(tested[:, None] ^ training)
    expected = np.argwhere(distances <= near.DISTANCE)
    assert complete
    assert 10 < len(expected) < 200
    assert sorted(duplicates.tolist()) == expected.tolist()
    assert near.close_pairs(tested, training, most=3)[1] is False


def changed(image: Image.Image) -> list[Image.Image]:
    """Return copies that a perceptual hash of the complete image does not find."""
    width, height = image.size
    crop = image.crop((width // 20, 0, width, height - height // 10)).resize(image.size, Image.Resampling.BICUBIC)
    return [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), crop, crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def test_cropped_and_mirrored_copies_correlate_once_aligned_and_other_pictures_do_not() -> None:
    originals = [scene(seed, 96) for seed in range(12)]
    copies = [copy for image in originals for copy in changed(image)]
    pixels, one = stacked([*originals, *copies]), np.arange(12, 48)
    assert not len(near.near_duplicates(pixels, one, np.arange(12)).pairs)
    assert aligned_correlations(pixels, one, np.repeat(np.arange(12), 3)).min() >= CORRELATION
    assert aligned_correlations(pixels, np.repeat(np.arange(12), 3), one).min() >= CORRELATION  # the copy is the larger
    others = (np.repeat(np.arange(12), 3) + np.tile([1, 2, 3], 12)) % 12
    assert aligned_correlations(pixels, one, others).max() < 0.9


def test_images_without_structure_do_not_correlate() -> None:
    pixels = stacked([Image.new("RGB", (64, 64), colour) for colour in ("white", "white", "black")])
    pixels[:, 3, 3] ^= 9
    assert (aligned_correlations(pixels, np.arange(2), np.arange(1, 3)) == 0).all()


def test_neighbours_agree_with_a_comparison_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    tested, training = (generator.standard_normal((n, 3), np.float32) for n in (50, 90))
    rows, columns = generator.permutation(50)[:40], generator.permutation(90)[:70]
    monkeypatch.setattr(near, "ROWS", 16)
    monkeypatch.setattr(near, "COLUMNS", 20)
    pairs, cosines = near.neighbours(near.EmbeddingRows(tested, rows), near.EmbeddingRows(training, columns))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (tested[rows], training[columns]))
    nearest = np.argsort(-(a @ b.T), axis=1)[:, : near.PARTNERS]
    expected = [(i, j) for i, row in enumerate(nearest.tolist()) for j in row if a[i] @ b[j] >= near.COSINE]
    assert sorted(map(tuple, pairs.tolist())) == sorted(expected)
    assert np.allclose(cosines, (a[pairs[:, 0]] * b[pairs[:, 1]]).sum(1), atol=1e-6)


class Stages(Silent):
    """Progress that records its stages as (title, total, done)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        steps = [done]
        yield steps.append
        self.seen.append((title, total, sum(steps)))


@pytest.mark.parametrize(("brief", "stages"), [(5, [("comparing similar images", 6, 6)]), (6, [])])
def test_a_long_comparison_shows_progress(
    monkeypatch: pytest.MonkeyPatch, brief: int, stages: list[tuple[str, int, int]]
) -> None:
    pixels, embeddings, progress = stacked([scene(seed) for seed in range(7)]), np.ones((7, 4), np.float32), Stages()
    tested_rows, training_rows = (
        near.EmbeddingRows(embeddings, np.array([6])),
        near.EmbeddingRows(embeddings, np.arange(6)),
    )
    monkeypatch.setattr(near, "BRIEF", brief)
    monkeypatch.setattr(alignment, "BLOCK", 4)
    near.near_duplicates_of_embeddings(pixels, np.array([6]), np.arange(6), tested_rows, training_rows, progress)
    assert progress.seen == stages


def test_only_the_closest_of_too_many_candidates_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    originals = [scene(seed) for seed in range(6)]
    pixels = stacked([*originals, changed(originals[4])[0]])
    embeddings = np.ones((7, 4), np.float32)
    embeddings[:, 0] = [9, 8, 7, 6, 2, 5, 2]
    tested_rows, training_rows = (
        near.EmbeddingRows(embeddings, np.array([6])),
        near.EmbeddingRows(embeddings, np.arange(6)),
    )
    monkeypatch.setattr(near, "COSINE", 0.0)
    monkeypatch.setattr(near, "CONFIRMED", 2)
    duplicates = near.near_duplicates_of_embeddings(pixels, np.array([6]), np.arange(6), tested_rows, training_rows)
    assert (duplicates.pairs.tolist(), duplicates.complete) == ([[0, 4]], False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two domains of ten images; one held-out image is a copy of a training image."""
    for number, (domain, kind) in enumerate((d, c) for d in ("ink", "rose") for c in ("cat", "dog")):
        path = tmp_path / "data" / domain / kind
        path.mkdir(parents=True)
        for i in range(10):
            scene(100 * number + i).save(path / f"{i}.png")
    return tmp_path / "data"


def test_a_split_with_copies_is_compared_once_and_then_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PixelCache(tmp_path / "cache", 32)) as cache:
        config = DataConfig(root=folder, held_out=("rose",))
        dataset = DomainFolder(folder).scan(cache=cache)
        plain = split_duplicates(dataset, split_dataset(dataset, config, 0), cache)
        assert (plain.validation, plain.test, plain.text()) == (0, 0, "")
        train = split_dataset(dataset, config, 0).training["ink"].tolist()
        copied = dataset.paths[next(row for row in train if "cat" in dataset.paths[row])]
        compressed(Image.open(folder / copied)).save(folder / "rose" / "cat" / "3.png")
        (folder / "rose" / "dog" / "0.png").write_bytes(
            (folder / copied).read_bytes()
        )  # the same file, which is reported elsewhere
        dataset = DomainFolder(folder).scan(cache=cache)
        split = split_dataset(dataset, config, 0)
        duplicates = split_duplicates(dataset, split, cache)
        assert (duplicates.validation, duplicates.test) == (0, 1)
        assert duplicates.examples == (("rose/cat/3.png", copied),)
        assert duplicates.text().startswith(
            f"1 test image resembles a training image, such as rose/cat/3.png and {copied};"
        )
        assert "--group" in duplicates.text()

        def again(*_: object) -> None:
            raise AssertionError("compared again")

        monkeypatch.setattr(planned, "near_duplicates", again)
        assert split_duplicates(dataset, split, cache) == duplicates


def test_embeddings_find_a_mirrored_copy_and_omit_copies_found_by_the_hash(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(root=folder, held_out=("rose",))
    with closing(PixelCache(tmp_path / "cache", 64)) as cache:
        dataset = DomainFolder(folder).scan(cache=cache)
        row = next(r for r in split_dataset(dataset, config, 0).training["ink"].tolist() if "cat" in dataset.paths[r])
        original = folder / dataset.paths[row]
        compressed(Image.open(original)).save(folder / "rose" / "cat" / "3.png")  # found by the hash
        (folder / "rose" / "cat" / "4.png").write_bytes(original.read_bytes())  # the same file
        changed(Image.open(original))[2].save(folder / "rose" / "cat" / "5.png")
        dataset = DomainFolder(folder).scan(cache=cache)
        split = split_dataset(dataset, config, 0)
        training = split.training["ink"]
        embeddings = np.random.default_rng(0).standard_normal((len(dataset), 16), np.float32)
        alike = [i for i, path in enumerate(dataset.paths) if path[-9:] in ("cat/3.png", "cat/4.png", "cat/5.png")]
        embeddings[[r for r in alike if dataset.paths[r].startswith("rose")]] = embeddings[row] + 0.01
        examples = near.EmbeddingRows(embeddings, training)

        def compared(teacher: str) -> planned.SplitDuplicates:
            evaluation = embeddings[split.evaluation_rows]
            return split_duplicates_by_embedding(dataset, split, cache, training, evaluation, examples, teacher)

        duplicates = compared("a 1")
        assert (duplicates.validation, duplicates.test) == (0, 1)
        assert duplicates.examples == (("rose/cat/5.png", dataset.paths[row]),)
        assert duplicates.text().startswith(
            "1 test image resembles a training image once cropped or mirrored (found by"
        )
        assert split_duplicates(dataset, split, cache).examples == (("rose/cat/3.png", dataset.paths[row]),)

        def none(*_: object) -> near.NearDuplicates:
            return near.NearDuplicates(np.zeros((0, 2), np.int64))

        monkeypatch.setattr(planned, "near_duplicates_of_embeddings", none)
        assert compared("a 1") == duplicates  # saved
        assert compared("a 2").text() == ""  # the embeddings of another teacher are compared again


def test_runs_that_plan_the_same_split_at_once_write_one_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PixelCache(tmp_path / "cache", 32)) as cache:
        dataset = DomainFolder(folder).scan(cache=cache)
    split, together = split_dataset(dataset, DataConfig(root=folder, held_out=("rose",)), 0), Barrier(4)
    compare = near.near_duplicates

    def waiting(*arguments: np.ndarray) -> near.NearDuplicates:
        duplicates = compare(*arguments)
        together.wait(20)
        return duplicates

    def plan(_: int) -> str:
        with closing(PixelCache(tmp_path / "cache", 32)) as pixel_cache:
            return split_duplicates(dataset, split, pixel_cache).text()

    monkeypatch.setattr(planned, "near_duplicates", waiting)
    for _ in range(25):
        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(plan, range(4))) == {""}
        (saved,) = [file for file in (tmp_path / "cache").rglob("*") if file.name.startswith("resemblance")]
        saved.unlink()
