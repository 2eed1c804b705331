"""Untrusted arrays: .npz files of a run, of a gallery and of a teacher, and job.json of a benchmark."""

from __future__ import annotations

import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import mutations
from watching import watched

from vl2v.arrays import FLOAT, TEXT, ArraysError, Form, read_arrays
from vl2v.benchmark.results import job_seconds, records_of
from vl2v.errors import Vl2vError
from vl2v.evaluation.predictions import read_predictions
from vl2v.json_files import write_json
from vl2v.reports.maps import embedding_maps, map_sheet
from vl2v.reports.mistakes import confusions, mistakes
from vl2v.reports.prediction_sections import map_section, mistake_section
from vl2v.reports.source import read_run
from vl2v.runs.folder import RunFolder
from vl2v.serve.gallery import Gallery
from vl2v.teacher.file import FileTeacher

Arrays = dict[str, Any]
FEW, MANY = 40, 500
RNG = np.random.default_rng(0)
COUNT, CLASSES = 12, 3
PATHS = np.array([f"ink/cat/{i}.png" for i in range(COUNT)])
PREDICTIONS: Arrays = {
    "domain": np.repeat(["ink", "rose"], COUNT // 2),
    "role": np.repeat(["in-domain", "out-of-domain"], COUNT // 2),
    "path": PATHS,
    "label": np.arange(COUNT) % CLASSES,
    "student": RNG.normal(size=(COUNT, CLASSES)).astype(np.float16),
    "zero_shot": RNG.normal(size=(COUNT, CLASSES)).astype(np.float16),
}
EMBEDDINGS: Arrays = {
    "classes": np.array(["cat", "dog", "horse"]),
    **{name: PREDICTIONS[name] for name in ("path", "domain", "role", "label")},
    "features": RNG.normal(size=(COUNT, 5)).astype(np.float16),
    **{name: RNG.normal(size=(COUNT, 4)).astype(np.float16) for name in ("aligned", "distilled", "teacher")},
    "texts": RNG.normal(size=(CLASSES, 4)).astype(np.float16),
}
GALLERY: Arrays = {
    "format": np.array(1),
    "origin": np.array("[]"),
    "embeddings": RNG.normal(size=(4, 4)).astype(np.float16),
    **{name: np.array(["a", "b", "c", "d"]) for name in ("label", "domain", "path")},
    "pictures": RNG.integers(0, 256, 40, dtype=np.uint8),
    "ends": np.array([10, 20, 30, 40]),
}
TEACHER: Arrays = {
    "paths": PATHS[:3],
    "embeddings": RNG.normal(size=(3, 4)).astype(np.float32),
    "texts": np.array(["a cat", "a dog"]),
    "text_embeddings": RNG.normal(size=(2, 4)).astype(np.float32),
    "logit_scale": np.array(50.0),
}


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("PWNED"),)


OBJECTS = np.array([Evil(), None, 1], dtype=object)
VALUES = (
    *(np.array(value) for value in (0, -1, 2**62, np.nan, np.inf, 1e300, "x", b"x", True, 1j)),
    *(np.zeros(shape, np.float32) for shape in ((0,), (0, 3), (3, 0), (1, 1, 1), (COUNT, 1), (COUNT + 1, CLASSES))),
    np.full((COUNT, CLASSES), np.nan, np.float16),
    np.full((COUNT, CLASSES), -np.inf),
    np.full(COUNT, 10**12),
    np.full(COUNT, -1),
    np.full(4, 2**63, np.uint64),
    np.full(COUNT, "../../../etc/passwd"),
    np.full(COUNT, "/etc/passwd"),
    np.full(COUNT, "\x1b[31m<img src=x>"),
    np.array(["\udcfc"] * COUNT),
    np.full(COUNT, 0x7FFFFFFF, np.uint32).view("<U1"),
    np.zeros(COUNT, [("a", "f4"), ("b", "f4")]),
    np.zeros(COUNT, "M8[s]"),
    np.zeros(COUNT, "V8"),
    OBJECTS,
)


def mutated(arrays: Arrays, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the arrays with changed values or changed bytes of their file."""
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        changed, done = dict(arrays), []
        for _ in range(rng.choice((1, 1, 2))):
            name, action = rng.choice(sorted(changed)), rng.choice(("set", "set", "set", "drop", "cut", "type", "swap"))
            if action == "drop" and len(changed) > 1:
                del changed[name]
            elif action == "cut" and changed[name].ndim:
                changed[name] = changed[name][: rng.choice((0, 1, -1))]
            elif action == "type" and changed[name].dtype.kind in "fiu":
                changed[name] = changed[name].astype(rng.choice((">f8", "f4", "i1", "?", "c16", "U9", "S9")))
            elif action == "swap":
                changed[name] = changed[rng.choice(sorted(changed))]
            else:
                changed[name] = rng.choice(VALUES)
            done.append(f"{action} {name}")
        content = packed(changed)
        if rng.random() < 0.3:
            content, action = spoilt(content, rng)
            done.append(action)
        yield f"{number}: {'; '.join(done)}", content


def packed(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pickles objects
    return buffer.getvalue()


def spoilt(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    action = rng.choice(("cut", "empty", "text", "pickle", "flip", "flip", "zero"))
    position = rng.randrange(len(content))
    part = {
        "cut": content[:position],
        "empty": b"",
        "text": b"no archive",
        "pickle": pickle.dumps(Evil()),
        "flip": content[:position] + bytes([content[position] ^ (1 << rng.randrange(8))]) + content[position + 1 :],
        "zero": content[:position] + bytes(min(64, len(content) - position)) + content[position + 64 :],
    }
    return part[action], action


def fuzz(arrays: Arrays, path: Path, use: Callable[[], object], count: int) -> None:
    """Check that every mutation works or raises an error of vl2v."""
    path.write_bytes(packed(arrays))
    use()
    worked = 0
    for what, content in mutated(arrays, count):
        path.write_bytes(content)
        worked += attempt(use, what, path.parent)
    assert worked < count


def attempt(use: Callable[[], object], what: str, *allowed: Path) -> bool:
    refusal: Vl2vError | ArraysError | None = None
    with watched(*allowed) as events, np.errstate(all="raise", under="ignore"):
        try:
            use()
        except (Vl2vError, ArraysError) as error:
            refusal = error
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert events == [], what
    assert not Path("PWNED").exists(), what
    assert refusal is None or 0 < len(str(refusal)) < 3000, what
    return refusal is None


COUNTS = pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.system)])


@COUNTS
def test_mutated_predictions_are_read_or_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "predictions.npz"

    def use() -> None:
        predictions = read_predictions(path)
        for part in predictions.roles().values():
            assert (part.answers >= 0).all()

    fuzz(PREDICTIONS, path, use, count)


@COUNTS
@pytest.mark.parametrize("name", ["predictions", "embeddings"])
def test_mutated_arrays_of_a_report_are_read_or_omitted(tmp_path: Path, name: str, count: int) -> None:
    """The report omits unreadable parts."""
    from test_untrusted_runs import make_run

    folder = RunFolder(make_run(tmp_path))
    folder.predictions_file.write_bytes(packed(PREDICTIONS))
    folder.embeddings_file.write_bytes(packed(EMBEDDINGS))
    missing = 0

    def use() -> None:
        nonlocal missing
        source = read_run(folder.path)
        missing += name in source.missing
        if source.predictions is not None:
            confusions(source.predictions, source.classes)
            mistakes(source.predictions, source.classes)
        if source.embeddings is not None:
            map_sheet(embedding_maps(source.embeddings), source.embeddings, source.classes)
        if count > FEW and missing % 10 == 0:
            mistake_section(source, None)
            map_section(source)

    arrays = PREDICTIONS if name == "predictions" else EMBEDDINGS
    count = count if count > FEW else FEW // 2
    use()
    assert not missing
    for what, content in mutated(arrays, count):
        (folder.path / f"{name}.npz").write_bytes(content)
        assert attempt(use, what, tmp_path, Path("/srv/data")), what
    assert missing


@COUNTS
def test_a_mutated_gallery_is_read_or_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "gallery.npz"

    def use() -> None:
        gallery = Gallery.load(path)
        if gallery.embeddings.shape[1] == 4:
            (near,) = gallery.nearest(np.eye(1, 4, dtype=np.float32), 3)
            json.dumps([n.label for n in near])
            assert all(isinstance(gallery.pictures[int(n.picture.rpartition("/")[2])], bytes) for n in near)

    fuzz(GALLERY, path, use, count)


@COUNTS
def test_a_mutated_teacher_file_is_read_or_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "teacher.npz"
    fuzz(TEACHER, path, lambda: FileTeacher(path).describe(), count)


@COUNTS
def test_a_mutated_benchmark_job_is_read_or_refused(tmp_path: Path, count: int) -> None:
    from test_untrusted_runs import make_run

    run = make_run(tmp_path)
    evaluation = json.loads((run / "evaluation.json").read_text())
    for table in (evaluation, evaluation["beside"]["last"]):
        for row in table["domains"]:
            row |= {"zero_shot": 0.5, "zero_shot_ece": 0.1, "student_ece": 0.1}
    write_json(run / "evaluation.json", evaluation)
    job = {"method": "adip", "title": "VL2V-ADiP", "target": "rose", "seed": 0, "candidate": {"distill.lr": 0.1}}
    job |= {"crossed": None, "key": "0" * 16, "seconds": 12.5}
    path, worked = run / "job.json", 0
    path.write_text(json.dumps(job))
    assert len(records_of(path)) == 3

    def use() -> None:
        records = records_of(path)
        assert job_seconds(path) >= 0
        assert all(isinstance(record.title, str) and record.seed >= 0 for record in records)

    for what, text in mutations(job, count):
        path.write_text(text)
        worked += attempt(use, what, run)
    assert 0 < worked < count


def test_a_small_file_cannot_expand_to_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as handle:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**30, 2**20)})
        handle.write(header.getvalue())
    with pytest.raises(ArraysError, match="more than"):
        read_arrays(path, {"x": Form(FLOAT, ("N", "M"))})


def test_arrays_of_the_declared_form_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(6, dtype=">f4").reshape(2, 3), b=np.array(["x", "y"]), other=OBJECTS, s=np.array([2.0]))
    forms = {"a": Form(FLOAT, ("N", 3)), "b": Form(TEXT, ("N",)), "c": Form(TEXT, ("N",), optional=True)}
    arrays_read = read_arrays(path, forms | {"s": Form(FLOAT, ())})
    assert arrays_read.keys() == {"a", "b", "s"}
    assert arrays_read["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ArraysError, match=r"a of shape \[2, 3\] in place of \[N, 4\]"):
        read_arrays(path, {"a": Form(FLOAT, ("N", 4))})
    with pytest.raises(ArraysError, match="other of type object"):
        read_arrays(path, {"other": Form(FLOAT, (3,))})
    with pytest.raises(ArraysError, match="a pipe"):
        read_arrays(tmp_path, forms)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz", forms)
