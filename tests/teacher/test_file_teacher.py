from __future__ import annotations

import hashlib
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from vl2v.errors import TeacherError
from vl2v.parquet_files import batches_of, open_parquet
from vl2v.teacher.base import Price, Teacher
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.registry import open_teacher

CONTENTS = [b"one", b"two", b"three"]
PATHS = ["art/cat/1.png", "art/dog/2.png", "photo/cat/3.png"]
TEXTS = ["a cat", "a dog"]
RNG = np.random.default_rng(0)
IMAGES, PROMPTS = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(2, 4)).astype(np.float32)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digests() -> np.ndarray:
    return np.stack([np.frombuffer(hashlib.sha256(c).digest(), np.uint8) for c in CONTENTS])


def npz(path: Path, **other: Any) -> Path:
    arrays: dict[str, Any] = {
        "paths": np.array(PATHS),
        "embeddings": IMAGES,
        "texts": np.array(TEXTS),
        "text_embeddings": PROMPTS,
    }
    arrays |= other
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def unit(embeddings: np.ndarray) -> np.ndarray:
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))


def test_npz_embeddings_are_looked_up_by_path(tmp_path: Path) -> None:
    teacher = FileTeacher(npz(tmp_path / "v.npz"))
    teacher.bind(PATHS, digests())
    assert isinstance(teacher, Teacher)
    assert np.allclose(unit(teacher.embed_images(CONTENTS[::-1])), unit(IMAGES[::-1]))
    assert np.allclose(teacher.embed_texts(["a dog", "a cat", "a dog"]), unit(PROMPTS)[[1, 0, 1]])


@pytest.mark.parametrize("upper", [False, True])
def test_npz_embeddings_are_looked_up_by_sha256(tmp_path: Path, upper: bool) -> None:
    keys = np.array([sha(c).upper() if upper else sha(c) for c in CONTENTS])
    teacher = open_teacher(f"file:{npz(tmp_path / 'v.npz', paths=None, sha256=keys)}")
    assert np.allclose(unit(teacher.embed_images(CONTENTS[1:])), unit(IMAGES[1:]))


def test_the_description_is_that_of_the_file(tmp_path: Path) -> None:
    path = npz(tmp_path / "v.npz")
    card = FileTeacher(path).describe()
    assert (card.identity, card.dimension, card.logit_scale) == ("file:v.npz", 4, 100.0)
    assert card.price.free
    price = Price(Decimal(2))
    file = npz(tmp_path / "w.npz", logit_scale=50.0, identity="vendor", revision="7")
    stated = FileTeacher(file, price).describe()
    assert (stated.identity, stated.revision, stated.logit_scale, stated.price) == ("vendor", "7", 50.0, price)
    changed = npz(tmp_path / "v.npz", embeddings=IMAGES + 1)
    assert FileTeacher(changed).describe().revision != card.revision


@pytest.mark.parametrize("key", ["path", "sha256"])
def test_parquet_files_are_read(tmp_path: Path, key: str) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    keys = PATHS if key == "path" else [sha(c) for c in CONTENTS]
    columns = {key: [*keys, None, None], "text": [None] * 3 + TEXTS, "embedding": [*IMAGES.tolist(), *PROMPTS.tolist()]}
    table = pa.table(columns).replace_schema_metadata({"logit_scale": "42.5", "identity": "vendor"})
    pq.write_table(table, tmp_path / "v.parquet")
    teacher = FileTeacher(tmp_path / "v.parquet")
    teacher.bind(PATHS, digests())
    assert np.allclose(unit(teacher.embed_images(CONTENTS)), unit(IMAGES))
    assert np.allclose(teacher.embed_texts(TEXTS), unit(PROMPTS))
    assert (teacher.describe().logit_scale, teacher.describe().identity) == (42.5, "vendor")
    for lacking in ("embedding", key, "text"):
        pq.write_table(table.drop_columns([lacking]), tmp_path / "lacks.parquet")
        with pytest.raises(TeacherError):
            FileTeacher(tmp_path / "lacks.parquet")


def test_missing_embeddings_are_named(tmp_path: Path) -> None:
    teacher = FileTeacher(npz(tmp_path / "v.npz"))
    with pytest.raises(TeacherError, match=sha(b"one")):
        teacher.embed_images([b"one"])  # not bound to a folder, so paths are unknown
    teacher.bind(["art/cat/9.png"], digests()[:1])
    with pytest.raises(TeacherError, match="art/cat/9"):
        teacher.embed_images([b"one"])
    with pytest.raises(TeacherError, match="'a horse'"):
        teacher.embed_texts(["a cat", "a horse"])


@pytest.mark.parametrize(
    "other",
    [
        {"texts": None},
        {"text_embeddings": None},
        {"embeddings": None},
        {"paths": None},
        {"texts": np.array([], dtype=str), "text_embeddings": np.zeros((0, 4))},
        {"paths": np.array([], dtype=str), "embeddings": np.zeros((0, 4))},
        {"text_embeddings": np.ones((2, 5))},
        {"paths": np.array(PATHS[:2])},
        {"embeddings": np.array([None, 1, 2], dtype=object)},
        {"embeddings": np.ones(3)},
    ],
    ids=lambda other: "-".join(other),
)
def test_incomplete_files_are_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    path = npz(tmp_path / "v.npz", **other)
    with pytest.raises(TeacherError):
        FileTeacher(path)


def test_embeddings_are_read_when_they_are_needed(tmp_path: Path) -> None:
    many = np.zeros((20_000, 64), np.float32)
    npz(tmp_path / "v.npz", embeddings=many, paths=np.arange(len(many)).astype(str), text_embeddings=np.ones((2, 64)))
    tracemalloc.start()
    teacher = FileTeacher(tmp_path / "v.npz")
    opened = tracemalloc.get_traced_memory()[0]
    teacher.bind(["7"], digests()[:1])
    teacher.embed_images(CONTENTS[:1])
    read = tracemalloc.get_traced_memory()[0] - opened
    tracemalloc.stop()
    assert teacher.describe().dimension == 64
    assert opened < 0.1 * many.nbytes
    assert read > many.nbytes


def test_a_file_that_changes_before_its_embeddings_are_read_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "v.npz")
    teachers = [FileTeacher(path) for _ in range(2)]
    for teacher in teachers:
        teacher.bind(PATHS, digests())
    npz(path, embeddings=IMAGES + 1)
    with pytest.raises(TeacherError, match="changed"):
        teachers[0].embed_images(CONTENTS)
    npz(path)
    assert np.array_equal(teachers[0].embed_images(CONTENTS), IMAGES)
    path.unlink()
    assert np.array_equal(teachers[0].embed_images(CONTENTS), IMAGES)
    with pytest.raises(TeacherError, match="cannot be read"):
        teachers[1].embed_images(CONTENTS)


@pytest.mark.parametrize("missing", [0, 1])
def test_embeddings_with_too_few_bytes_are_refused(tmp_path: Path, missing: int) -> None:
    complete, path = npz(tmp_path / "whole.npz"), tmp_path / "v.npz"
    with ZipFile(complete) as archive, ZipFile(path, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            copy.writestr(name, content[: len(content) - missing] if name == "embeddings.npy" else content)
    if missing:
        with pytest.raises(TeacherError, match="too few"):
            FileTeacher(path)
    else:
        FileTeacher(path)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped", "array"])
def test_a_broken_file_is_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    content = npz(tmp_path / "whole.npz").read_bytes()
    path = tmp_path / f"broken{suffix}"
    if damage == "array":
        with path.open("wb") as handle:
            np.save(handle, IMAGES)
    else:
        middle = len(content) // 4
        flipped = content[:middle] + bytes(255 - b for b in content[middle : middle + 64]) + content[middle + 64 :]
        path.write_bytes({"empty": b"", "text": b"text", "truncated": content[:-50], "flipped": flipped}[damage])
    with pytest.raises(TeacherError):
        FileTeacher(path)


@pytest.mark.parametrize("name", ["nothing.npz", "v.csv", ""])
def test_missing_and_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "v.csv").write_text("x")
    with pytest.raises(TeacherError, match="cannot be used as a teacher"):
        FileTeacher(tmp_path / name)


@pytest.mark.parametrize("spec", ["", "file:", "open_clip:", "openclip:ViT-B-16/openai", "conse:more"])
def test_unknown_teachers_are_refused(spec: str) -> None:
    with pytest.raises(TeacherError, match="Unknown teacher"):
        open_teacher(spec)


def bombs(path: Path, pa: Any) -> None:
    """Write Parquet files of a few kilobytes whose columns expand to gigabytes."""
    import pyarrow.parquet as pq

    keys = {"path": [*PATHS, None, None], "text": [None] * 3 + TEXTS}
    many = pa.array(np.zeros(2**25 // 5 * 5, np.float32))
    wide = pa.FixedSizeListArray.from_arrays(many, len(many) // 5)
    pq.write_table(pa.table(keys | {"embedding": wide}), path / "numbers.parquet", compression="zstd")
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["a" * 2**20]))
    pq.write_table(pa.table({"path": long, "text": long, "embedding": [[1.0]] * 200}), path / "texts.parquet")


def test_a_small_parquet_file_cannot_exhaust_the_memory(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    bombs(tmp_path, pa)
    for name, message in (("numbers", "values in 5 rows"), ("texts", "bytes of embeddings and texts")):
        tracemalloc.start()
        with pytest.raises(TeacherError, match=message) as caught:
            FileTeacher(tmp_path / f"{name}.parquet")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**27, name
        assert caught.value.next_step


@pytest.mark.parametrize("fixed", [True, False])
def test_parquet_takes_little_more_memory_than_its_embeddings(tmp_path: Path, fixed: bool) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    vectors = np.random.default_rng(0).normal(size=(20_000, 256)).astype(np.float32)
    flat, offsets = pa.array(vectors.ravel()), pa.array(np.arange(0, vectors.size + 1, 256, dtype=np.int32))
    lists = pa.FixedSizeListArray.from_arrays(flat, 256) if fixed else pa.ListArray.from_arrays(offsets, flat)
    names = [str(i) for i in range(len(vectors) - 1)]
    pq.write_table(pa.table({"embedding": lists, "path": [*names, None], "text": [None] * len(names) + ["a cat"]}),
                   tmp_path / "v.parquet")  # fmt: skip
    tracemalloc.start()
    teacher = FileTeacher(tmp_path / "v.parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert vectors.nbytes < peak < 1.7 * vectors.nbytes
    assert np.allclose(teacher.embed_texts(["a cat"]), unit(vectors[-1:]))


def test_numbers_with_a_dictionary_are_read_in_large_batches(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    numbers = pa.array(np.random.default_rng(0).normal(size=2**21))
    rows = pa.FixedSizeListArray.from_arrays(numbers, 64)
    pq.write_table(pa.table({"embedding": rows}), tmp_path / "v.parquet", use_dictionary=True)
    with open_parquet(tmp_path / "v.parquet") as file:
        assert "RLE_DICTIONARY" in file.metadata.row_group(0).column(0).encodings
        assert {len(batch) for batch in batches_of(file, ["embedding"], 4096)} == {4096}


@pytest.mark.parametrize(
    "other",
    [
        {"path": [b"a"] * 5},
        {"text": [["a"]] * 5},
        {"embedding": [1.0] * 5},
        {"embedding": [["a"]] * 5},
        {"embedding": [[1.0], [1.0, 2.0], [1.0], [1.0], [1.0]]},
        {"embedding": [[None, 1.0]] * 5},
    ],
    ids=str,
)
def test_columns_of_another_type_are_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"path": [*PATHS, None, None], "text": [None] * 3 + TEXTS, "embedding": [[1.0]] * 5}
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    assert FileTeacher(tmp_path / "v.parquet").describe().dimension == 1
    pq.write_table(pa.table(columns | other), tmp_path / "v.parquet")
    with pytest.raises(TeacherError, match=r"column|embeddings of"):
        FileTeacher(tmp_path / "v.parquet")
