"""Files that are only checked: JPEG files decode at an eighth, and what is refused and said stays the same."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex, read_all
from vl2v_runtime.imaging import UnreadableImageError, decode

TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def picture(width: int = 61, height: int = 45, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def refusal(data: bytes, draft: bool) -> str:
    try:
        decode(data, draft=draft)
    except UnreadableImageError as error:
        return str(error)
    return ""


FILES = {
    "baseline": encoded(picture(), "JPEG", quality=80),
    "progressive": encoded(picture(), "JPEG", progressive=True),
    "restarts": encoded(picture(), "JPEG", restart_marker_blocks=1),
    "full chroma": encoded(picture(), "JPEG", subsampling=0),
    "grey": encoded(picture(mode="L"), "JPEG"),
    "CMYK": encoded(picture(mode="CMYK"), "JPEG"),
    "tiny": encoded(picture(3, 2), "JPEG"),
    "turned": encoded(
        picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "broken profile": encoded(picture(), "JPEG", icc_profile=b"no profile"),
    "PNG": encoded(picture(), "PNG"),
    "16 bits": encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
    "palette": encoded(picture(mode="P"), "PNG"),
    "transparent": encoded(picture(mode="RGBA"), "PNG"),
    "float": encoded(Image.fromarray(np.full((4, 4), -3, np.float32)), "TIFF"),
    "signed": encoded(picture(mode="L"), "TIFF", tiffinfo={339: 2}),
    "GIF": encoded(picture(mode="P"), "GIF"),
    "WebP": encoded(picture(), "WEBP"),
    "no image": b"%PDF-1.7" + bytes(200),
    "empty": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_files_are_refused(name: str) -> None:
    data = FILES[name]
    cuts = sorted({*range(0, len(data), max(1, len(data) // 40)), *range(max(0, len(data) - 24), len(data) + 1)})
    for cut in cuts:
        assert refusal(data[:cut], draft=True) == refusal(data[:cut], draft=False), cut


@pytest.mark.parametrize("name", ["baseline", "progressive", "PNG"])
def test_damage_within_a_file_is_refused_alike(name: str) -> None:
    generator = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(FILES[name])
        for place in generator.integers(2, len(data), 3):
            data[place] = generator.integers(0, 256)
        assert refusal(bytes(data), draft=True) == refusal(bytes(data), draft=False), bytes(data)


@pytest.mark.filterwarnings("ignore:1 image such as b.png")
def test_a_scan_without_pixels_decodes_a_draft_and_one_with_a_cache_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES["baseline"])
    (tmp_path / "b.png").write_bytes(encoded(Image.fromarray(np.full((9, 9), 300, np.uint16)), "PNG"))
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "PIL.ImageFile.ImageFile.load_end", lambda self: sizes.append(self.size) if self.format == "JPEG" else None
    )
    with closing(FileIndex(tmp_path / "files.sqlite")) as index, closing(PixelCache(tmp_path / "cache", 8)) as cache:
        digests, faults = read_all(tmp_path, ["a.jpg", "b.png"], index=index)
        assert sizes == [(8, 6)]
        with_pixels, more = read_all(tmp_path, ["a.jpg", "b.png"], index=index, cache=cache)
        assert sizes == [(8, 6), (61, 45)]
        expected = np.asarray(decode(FILES["baseline"]).resize((8, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(cache.map()[cache.slots(digests)[0]], expected)
    assert (faults, more) == ([], [])
    assert np.array_equal(digests, with_pixels)
