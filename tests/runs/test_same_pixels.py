"""Odd images have the same pixels wherever they are read: in training, predict, the runtime, the service, a teacher."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import Exported, cosine
from odd_images import P3, ROTATED_6, broken_exif, chunk, colours, encoded, greys, png, profile, stored_in, tiff
from PIL import Image

from vl2v.commands.evaluate import classify
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex, read_all
from vl2v.onnx_export.onnx import describe, set_metadata, write
from vl2v.serve.inputs import Upload
from vl2v.serve.service import Service
from vl2v.serve.source import Source
from vl2v.teacher.base import open_image
from vl2v.web.limits import Limits
from vl2v_runtime import load
from vl2v_runtime.fits import RESIZES, Fit
from vl2v_runtime.imaging import ImageLike, decode, square

__all__ = ["cosine"]


def odd_files() -> dict[str, bytes]:
    grey = np.asarray(greys())
    wide = profile(b"RGB ", 2.2, P3)
    plain = encoded(colours(), "PNG")
    deep = [row.tobytes() for row in (grey.astype(">u2") * 257).astype(">u2")]
    return {
        "garbage.jpg": encoded(colours(), "JPEG", exif=b"Exif\0\0" + broken_exif()["text"]),
        "crc.png": plain[:33] + chunk(b"eXIf", ROTATED_6, crc=1) + plain[33:],
        "turned.webp": encoded(colours(), "WEBP", exif=b"Exif\0\0" + ROTATED_6),
        "wide.png": encoded(stored_in(colours(), wide), "PNG", icc_profile=wide),
        "wide.jpg": encoded(stored_in(colours(), wide), "JPEG", icc_profile=wide),
        "float.tif": tiff((grey / 255).astype(np.float32), kind=3),
        "white0.tif": tiff(65535 - grey.astype(np.uint16) * 257, photometric=0),
        "key.png": png(greys().size, 16, 0, deep, chunk(b"tRNS", b"\0\0")),
        "cmyk.jpg": encoded(colours().convert("CMYK"), "JPEG"),
        "pointer.tif": tiff(grey, extra=b"\x69\x87\x04\0\x01\0\0\0\xff\xff\xff\x7f"),
    }


def with_fit(exported: Exported, fit: Fit, folder: Path) -> Exported:
    """The same network with this fit."""
    student = copy.deepcopy(exported.student)
    student.preprocess = replace(student.preprocess, fit=fit)
    graph = onnx.load(exported.file)
    set_metadata(graph, describe(student, student.provenance))
    write(graph, folder / "model.onnx")
    return Exported(student, folder / "model.onnx")


@pytest.mark.slow  # exports a network
@pytest.mark.parametrize("fit", RESIZES)
def test_every_way_of_reading_gives_the_same_pixels(cosine: Exported, fit: Fit, tmp_path: Path) -> None:
    cosine = with_fit(cosine, fit, tmp_path)
    files = odd_files() | {"wide4.png": encoded(colours().resize((90, 20)), "PNG")}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    size = cosine.student.preprocess.size
    cache, index = PixelCache(tmp_path / "cache", size, fit), FileIndex(tmp_path / "cache" / "files.sqlite")
    digests, faults = read_all(tmp_path, list(files), index=index, cache=cache)
    assert not faults
    trained = cache.map()[cache.slots(digests)]
    model = load(cosine.file)
    source = Source(model.path, lambda: model)
    service = Service(model, lambda _: pytest.fail("not queried"), None, None, Limits(), source)
    for (name, data), pixels in zip(files.items(), trained, strict=True):
        ways = {
            "predict": cosine.student.preprocess.pixels(tmp_path / name).numpy().transpose(1, 2, 0),
            "runtime": model.prepare(tmp_path / name),
            "runtime, bytes": model.prepare(data),
            "service": service._pixels(Upload(name, data)),
            "teacher": square(open_image(data), size, fit),
        }
        if name not in ("crc.png", "pointer.tif"):  # Pillow does not open those itself
            ways["runtime, opened"] = model.prepare(Image.open(io.BytesIO(data)))
        for way, actual in ways.items():
            assert np.array_equal(actual, pixels), (name, way)  # type: ignore[arg-type]
    service.stop()
    paths = [tmp_path / name for name in files]
    student_answers, _ = classify(cosine.student, paths)
    model_answers = list(model.attempts(paths))
    for a, b in zip(student_answers, model_answers, strict=True):
        assert b.answer is not None, b.fault
        assert a.label == b.answer.label
        assert a.confidence == pytest.approx(b.answer.confidence, abs=1e-4)


def test_each_file_is_decoded_once_by_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear_student: object
) -> None:
    seen: list[object] = []

    def counted(image: ImageLike) -> Image.Image:
        seen.append(image)
        return decode(image)

    monkeypatch.setattr("vl2v.student.preprocess.decode", counted)
    path = tmp_path / "a.jpg"
    path.write_bytes(odd_files()["garbage.jpg"])
    (answer,), _ = classify(linear_student, [path])  # type: ignore[arg-type]
    assert answer.label
    assert seen == [path]


@pytest.fixture
def linear_student() -> object:
    from exported import student_of

    return student_of(head=False)
