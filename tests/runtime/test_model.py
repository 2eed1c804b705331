from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import CLASSES, DIMENSION, Exported, cosine, linear, picture  # noqa: F401 - fixtures
from PIL import Image

import vl2v_runtime
from vl2v.onnx_export.onnx import get_metadata, rewrite_trust, set_metadata
from vl2v_runtime import Metadata, ModelError, UnreadableImageError
from vl2v_runtime.trust import Trust

TRUST = Trust(2.5, {score: {0.95: 0.4, 0.5: 2.0} for score in ("confidence", "energy")}, {"images": 3})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images, one of them in a subfolder, and a file that is not an image."""
    for i, name in enumerate(("b.png", "a.jpg", "deep/c.webp")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_file_gives_the_predictions_of_the_student(kind: str, cosine: Exported, linear: Exported) -> None:
    exported = cosine if kind == "cosine" else linear
    model, images = vl2v_runtime.load(exported.file), [picture(i) for i in range(5)]
    assert model.classes == CLASSES
    assert model.size == 32
    wanted = exported.student.predict_proba(images)
    np.testing.assert_allclose(model.probabilities(images), wanted, atol=1e-5)
    assert len(set(exported.student.predict(images))) > 1
    answers = model.predict(images)
    assert [answer.label for answer in answers] == exported.student.predict(images)
    for answer, row in zip(answers, wanted, strict=True):
        assert answer.confidence == max(answer.probabilities.values()) == pytest.approx(row.max(), abs=1e-5)
        assert list(answer.probabilities) == CLASSES
        assert answer.accepted is None, "the file has no trust"
    if kind == "cosine":
        np.testing.assert_allclose(model.embed(images), exported.student.embed(images), atol=1e-5)
        assert model.dimension == DIMENSION


def test_pixels_are_normalised_as_in_training_to_the_last_bit(cosine: Exported) -> None:
    model, image = vl2v_runtime.load(cosine.file), picture(3)
    wanted = cosine.student.preprocess(image).numpy()
    assert np.array_equal(model.normalise(model.prepare(image)[None])[0], wanted)


def test_batches_of_any_size_agree(cosine: Exported) -> None:
    model, images = vl2v_runtime.load(cosine.file), [picture(i) for i in range(33)]
    one = model.logits(images, batch_size=1)
    for size in (2, 33, 64):
        np.testing.assert_allclose(model.logits(iter(images), batch_size=size), one, atol=1e-4)
    assert model.logits([]).shape == (0, 3)
    assert model.embed([]).shape == (0, DIMENSION)
    assert model.predict([]) == []


@pytest.mark.parametrize("size", [0, -1])
def test_no_image_is_dropped_by_an_empty_batch(cosine: Exported, size: int) -> None:
    model, images = vl2v_runtime.load(cosine.file), [picture(0), picture(1)]
    for method in (model.predict, model.logits, model.embed, model.attempts):
        with pytest.raises(ValueError, match="at least 1 image"):
            list(method(images, batch_size=size))


def test_logits_of_another_number_of_classes_are_refused(cosine: Exported) -> None:
    with pytest.raises(ValueError, match="expected logits"):
        vl2v_runtime.load(cosine.file).answers(np.zeros((2, len(CLASSES) + 1), np.float32))


def test_images_can_be_files_folders_bytes_streams_or_objects(cosine: Exported, folder: Path) -> None:
    model, files = vl2v_runtime.load(cosine.file), [folder / name for name in ("a.jpg", "b.png", "deep/c.webp")]
    wanted = model.logits(files)
    assert len(np.unique(wanted[:, 0])) == 3
    ways = {
        "folder": folder,
        "text": [str(file) for file in files],
        "bytes": [file.read_bytes() for file in files],
        "streams": [io.BytesIO(file.read_bytes()) for file in files],
        "open": [Image.open(file) for file in files],
        "mixed": [folder / "a.jpg", (folder / "b.png").read_bytes(), folder / "deep"],
    }
    for way, images in ways.items():
        assert np.array_equal(model.logits(images), wanted), way  # type: ignore[arg-type]
    with (folder / "b.png").open("rb") as stream:
        assert np.array_equal(model.logits(stream), wanted[1:2])
    assert np.array_equal(model.logits(files[0]), wanted[:1])
    again = Image.open(files[1])
    assert np.array_equal(model.logits([again] * 40), np.repeat(wanted[1:2], 40, axis=0)), "threads share one image"
    with pytest.raises(TypeError, match="found int"):
        model.logits([3])  # type: ignore[list-item]


def test_unreadable_images_are_raised_or_reported_at_their_position(cosine: Exported, folder: Path) -> None:
    model = vl2v_runtime.load(cosine.file)
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:60])
    mixed = [folder / "a.jpg", folder / "broken.png", folder / "gone.png", folder / "b.png"]
    with pytest.raises(UnreadableImageError):
        model.predict(mixed)
    with pytest.raises(FileNotFoundError):
        model.predict(folder / "gone.png")
    for size in (1, 2, 32):
        attempts = list(model.attempts(mixed, batch_size=size))
        assert [bool(attempt.answer) for attempt in attempts] == [True, False, False, True]
        assert "broken" in attempts[1].fault
        assert "No such file" in attempts[2].fault
        answers = [attempts[0].answer, attempts[3].answer]
        assert [a.label for a in answers if a] == [a.label for a in model.predict([mixed[0], mixed[3]])]


def test_trust_data_in_the_file_calibrate_and_reject(cosine: Exported, tmp_path: Path) -> None:
    file, images = tmp_path / "model.onnx", [picture(i) for i in range(8)]
    shutil.copy(cosine.file, file)
    rewrite_trust(file, TRUST.to_dict())
    model, logits = vl2v_runtime.load(file), vl2v_runtime.load(cosine.file).logits(images)
    assert model.trust == TRUST
    np.testing.assert_array_equal(model.probabilities(images), TRUST.probabilities(logits))
    accepted = [answer.accepted for answer in model.predict(images)]
    assert accepted == TRUST.accepts(logits).tolist()
    assert {answer.accepted for answer in model.predict(images, coverage=0.5)} == {False}
    with pytest.raises(ValueError, match="coverage"):
        model.predict(images, coverage=0.77)
    rewrite_trust(file, {"format": 99})
    with pytest.raises(ModelError, match="broken metadata"):
        vl2v_runtime.load(file).predict(images)


def test_a_linear_classifier_has_no_embedding(linear: Exported) -> None:
    model = vl2v_runtime.load(linear.file)
    assert model.dimension is None
    assert model.run(np.zeros((2, 3, 32, 32), np.float32))[1] is None
    with pytest.raises(ModelError, match="teacher's embedding space"):
        model.embed(picture(0))
    assert [attempt.embedding for attempt in model.attempts(picture(0))] == [None]


def test_metadata_are_read_unchanged(cosine: Exported) -> None:
    metadata = vl2v_runtime.load(cosine.file).metadata
    assert metadata.classes == tuple(CLASSES)
    assert (metadata.size, metadata.mean, metadata.std) == (32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (metadata.logit_scale, metadata.classifier) == (20.0, "cosine")
    assert metadata.provenance == cosine.student.provenance
    full = replace(metadata, classes=("Katze", "猫"), quantised={"images": 3}, trust=TRUST.to_dict())
    assert Metadata.from_json(full.to_json(), "it") == full


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: None, "not exported by vl2v"),
        (lambda text: text[:50], "broken metadata"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "another format"),
        (lambda text: text.replace('"mean"', '"average"'), "broken metadata"),
        (lambda text: text.replace("square, bi", "crop, bi"), "broken metadata"),
    ],
)
def test_other_metadata_are_refused(cosine: Exported, change: object, message: str) -> None:
    assert callable(change)
    text = vl2v_runtime.load(cosine.file).metadata.to_json()
    with pytest.raises(ModelError, match=message) as caught:
        Metadata.from_json(change(text), "it.onnx")
    assert "next: " in str(caught.value)


def test_wrong_files_are_refused(cosine: Exported, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is missing(.|\n)*check the path"):
        vl2v_runtime.load(tmp_path / "none")
    with pytest.raises(ModelError, match=r"contains no model\.onnx(.|\n)*vl2v export RUN$"):
        vl2v_runtime.load(tmp_path)
    (tmp_path / "student").mkdir()
    with pytest.raises(ModelError, match=rf"contains no model\.int8\.onnx(.|\n)*vl2v export {tmp_path} --int8$"):
        vl2v_runtime.load(tmp_path, int8=True)
    (tmp_path / "model.onnx").write_bytes(cosine.file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be used"):
        vl2v_runtime.load(tmp_path)
    model = onnx.load(cosine.file)
    set_metadata(model, replace(get_metadata(model, "it"), classes=("one", "two")))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is inconsistent"):
        vl2v_runtime.load(tmp_path)


def test_a_folder_can_contain_both_files(cosine: Exported, linear: Exported, tmp_path: Path) -> None:
    out = tmp_path / "run" / "export"
    out.mkdir(parents=True)
    shutil.copy(cosine.file, out / "model.onnx")
    shutil.copy(linear.file, out / "model.int8.onnx")  # an arbitrary distinct value
    for folder in (out, out.parent):
        assert vl2v_runtime.load(folder).metadata.classifier == "cosine"
        assert vl2v_runtime.load(str(folder), int8=True, threads=1).metadata.classifier == "linear"


def test_one_thread_gives_the_same_predictions(cosine: Exported) -> None:
    image = picture(1)
    one, every = (vl2v_runtime.load(cosine.file, threads=threads).logits(image) for threads in (1, None))
    np.testing.assert_allclose(one, every, atol=1e-5)
    assert torch.from_numpy(one).isfinite().all()
