from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vl2v.errors import TeacherError
from vl2v.teacher.base import Teacher, checked
from vl2v.teacher.offline import teacher as vendor
from vl2v.teacher.offline.teacher import OfflineVendor
from vl2v.teacher.registry import open_teacher

ROOT = Path(__file__).resolve().parent.parent.parent
PINNED = Path(__file__).parent / "offline_vendor.json"
TEXTS = ["dog", "a photo of a house", "weather"]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def drawings() -> list[bytes]:
    """A house in lines, a sun in colour, and a grey ramp, drawn without antialiasing."""
    house = Image.new("RGB", (128, 128), "white")
    pen = ImageDraw.Draw(house)
    pen.polygon([(20, 60), (64, 20), (108, 60)], outline="black")
    pen.rectangle((30, 60, 98, 110), outline="black")
    pen.rectangle((55, 80, 73, 110), outline="black")
    sun = Image.new("RGB", (128, 128), (120, 180, 255))
    ImageDraw.Draw(sun).rectangle((40, 40, 88, 88), fill=(255, 220, 0))
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1)), "L").convert("RGB")
    return [png(house), png(sun), png(ramp)]


@pytest.fixture(scope="module")
def teacher() -> OfflineVendor:
    return OfflineVendor()


def test_the_teacher_opens_by_name_and_describes_itself() -> None:
    teacher = open_teacher("offline:")
    assert isinstance(teacher, Teacher)
    card = teacher.describe()
    assert card.identity == "offline:efficientnet_lite2+all-MiniLM-L6-v2"
    assert card.revision.startswith(json.loads(PINNED.read_text())["revision"])
    assert card.dimension == 384
    assert card.price.free
    assert 5 < card.logit_scale < 60


@pytest.mark.parametrize("spec", ["offline", "offline:more"])
def test_another_spelling_is_refused(spec: str) -> None:
    with pytest.raises(TeacherError, match="Unknown teacher"):
        open_teacher(spec)


def test_the_embeddings_equal_the_pinned_ones(teacher: OfflineVendor) -> None:
    """Different rounding on another machine passes; other weights or preprocessing do not."""
    pinned = json.loads(PINNED.read_text())
    images, texts = teacher.embed_images(drawings()), teacher.embed_texts(TEXTS)
    np.testing.assert_allclose(images[:, :8], pinned["images"], atol=2e-3)
    np.testing.assert_allclose(texts[:, :8], pinned["texts"], atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)


def test_embeddings_do_not_depend_on_the_batch_size(teacher: OfflineVendor) -> None:
    rng = np.random.default_rng(0)
    files = [png(Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))) for _ in range(35)] + drawings()
    together = teacher.embed_images(files)
    alone = np.concatenate([teacher.embed_images([file]) for file in files])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.system
def test_embeddings_of_another_process_are_equal_bit_for_bit(teacher: OfflineVendor, tmp_path: Path) -> None:
    for number, file in enumerate(drawings()):
        (tmp_path / f"{number}.png").write_bytes(file)
    script = (
        "import sys, pathlib, numpy; from vl2v.teacher.offline.teacher import OfflineVendor;"
        "folder = pathlib.Path(sys.argv[1]);"
        "files = [path.read_bytes() for path in sorted(folder.glob('*.png'))];"
        "numpy.save(folder / 'again.npy', OfflineVendor().embed_images(files))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    bits = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
        again: NDArray[np.float32] = np.load(tmp_path / "again.npy")
        np.testing.assert_allclose(again, teacher.embed_images(drawings()), atol=1e-5)
        bits.append(again.tobytes())
    assert bits[0] == bits[1]


def test_a_drawn_house_is_nearer_to_its_name_than_to_others(teacher: OfflineVendor) -> None:
    (house, *_) = teacher.embed_images(drawings())
    scores = teacher.embed_texts(["house", "elephant", "guitar", "giraffe", "banana"]) @ house
    assert int(scores.argmax()) == 0


def test_no_input_gives_no_embedding(teacher: OfflineVendor) -> None:
    checked(teacher.embed_images([]), 0, teacher.describe(), "image")
    checked(teacher.embed_texts([]), 0, teacher.describe(), "text")


def test_bytes_that_are_not_an_image_are_refused(teacher: OfflineVendor) -> None:
    with pytest.raises(TeacherError, match="not a JPEG"):
        teacher.embed_images([drawings()[0], b"no image"])


def test_missing_weights_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "WEIGHTS", "elsewhere.safetensors")
    with pytest.raises(TeacherError, match="reinstall"):
        OfflineVendor().describe()


def test_weights_and_card_are_in_the_package_and_small() -> None:
    weights = resources.files("vl2v.teacher.offline").joinpath(vendor.WEIGHTS)
    assert weights.is_file()
    assert len(weights.read_bytes()) <= 12_000_000
    assert resources.files("vl2v.teacher.offline").joinpath("model_card.md").is_file()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/vl2v", "src/vl2v_runtime"]}  # the wheel contains complete folders
