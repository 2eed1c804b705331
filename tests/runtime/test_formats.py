"""The table of formats: detection by the first bytes, missing decoders, and limits before decoding."""

from __future__ import annotations

import resource
import struct
import sys
from pathlib import Path

import pillow_heif
import pillow_jxl  # noqa: F401 - registers the format
import pytest
from odd_images import colours, encoded

from vl2v.data import scan
from vl2v.data.folder import DomainFolder
from vl2v.data.listing import FaultyDataError
from vl2v.data.scan import FileIndex, read_all
from vl2v.teacher.http.packing import Limits, fit_image
from vl2v.web.faults import ApiError
from vl2v.web.images import MORE, inspect
from vl2v.web.limits import Limits as WebLimits
from vl2v_runtime import formats
from vl2v_runtime.formats import READ, Format, alternatives, format_of, readable
from vl2v_runtime.imaging import MissingDecoderError, UnreadableImageError, decode, header
from vl2v_runtime.jxl import jxl_size

pillow_heif.register_heif_opener()
PLUGINS = [form for form in READ if form.module]


@pytest.fixture
def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine on which no package adds a format."""
    for form in PLUGINS:
        monkeypatch.setitem(sys.modules, form.module, None)
    formats._registered.cache_clear()
    monkeypatch.setattr(formats, "_registered", formats._registered.__wrapped__)


@pytest.mark.parametrize("form", READ, ids=lambda form: form.name)
def test_every_format_is_detected_by_its_first_bytes_and_read(form: Format) -> None:
    data = encoded(colours(), form.name)
    assert format_of(data) == form
    assert sum(other.matches(data[:64]) for other in READ) == 1
    assert decode(data).size == colours().size
    assert header(data) == (form.name, *colours().size)
    assert form in readable()


def test_a_sentence_names_all_formats() -> None:
    first, last = alternatives().split(" or ")
    assert [*first.split(", "), last] == [form.title for form in READ]
    assert alternatives(("JPEG", "PNG", "WebP")) == "JPEG, PNG or WebP"


@pytest.mark.usefixtures("without_plugins")
@pytest.mark.parametrize("form", PLUGINS, ids=lambda form: form.name)
def test_a_missing_decoder_is_named_with_its_command(form: Format) -> None:
    data = encoded(colours(), form.name)
    with pytest.raises(MissingDecoderError, match=rf"{form.title} image.*: pip install {form.install}$"):
        decode(data)
    with pytest.raises(ApiError, match=f"pip install {form.install}"):
        inspect(data, None, WebLimits(), MORE)
    assert form not in readable()


def test_a_file_is_read_again_once_its_decoder_is_installed(tmp_path: Path) -> None:
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for j, form in enumerate(READ):
            data = encoded(colours().resize((20 + i, 20 + j)), form.name)
            (tmp_path / name / f"{j}{form.suffixes[0]}").write_bytes(data)
    index = FileIndex(tmp_path / "files.sqlite")
    patch = pytest.MonkeyPatch()
    with patch.context() as hidden:
        for form in PLUGINS:
            hidden.setitem(sys.modules, form.module, None)
        hidden.setattr(formats, "_registered", formats._registered.__wrapped__)
        with pytest.raises(FaultyDataError) as caught:
            DomainFolder(tmp_path).scan(index=index)
    assert len(caught.value.faults) == 2 * len(PLUGINS)
    assert {fault.remedy for fault in caught.value.faults} == {
        f"pip install {form.install}, or skip the file: --skip-bad" for form in PLUGINS
    }
    assert len(DomainFolder(tmp_path).scan(index=index)) == 2 * len(READ)
    index.close()


def test_the_size_of_a_jpeg_xl_is_read_before_it_is_decoded() -> None:
    for size in ((24, 16), (512, 512), (640, 480), (250, 256), (7, 3), (3000, 2)):
        assert jxl_size(encoded(colours().resize(size), "JXL", lossless=True)) == size
    for data in (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60)):
        with pytest.raises(ValueError, match="JPEG XL"):
            jxl_size(data)


def test_an_image_that_states_a_gigantic_size_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind in ("HEIF", "AVIF"):
        data = encoded(colours().resize((240, 180)), kind)
        at = data.find(b"ispe") + 8
        with pytest.raises(UnreadableImageError):
            decode(data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :])
    gif = encoded(colours(), "GIF")
    with pytest.raises(UnreadableImageError, match="bomb"):
        decode(gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:])
    fields = ((1, 0), (2, 3), (30, 39_999), (3, 0), (2, 3), (30, 29_999), (1, 1))  # widths in bits, and values
    value, at = 0, 0
    for width, content in fields:
        value, at = value | content << at, at + width
    jxl = b"\xff\x0a" + value.to_bytes(16, "little")
    with pytest.raises(UnreadableImageError, match="bomb: 30000 x 40000 pixels"):
        decode(jxl)
    assert header(jxl) == ("JXL", 30_000, 40_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"


def test_the_index_preserves_broken_files(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(encoded(colours(), "HEIF")[:60])
    index = FileIndex(tmp_path / "files.sqlite")
    for _ in range(2):
        (fault,) = read_all(tmp_path, ["a.heic"], index=index)[1]
        assert "HEIC file that is broken" in fault.problem
    index.close()


def test_a_file_of_an_unknown_format_is_read_again_by_a_version_that_supports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"a new format")
    index = FileIndex(tmp_path / "files.sqlite")
    (fault,) = read_all(tmp_path, ["a.png"], index=index)[1]
    assert fault.problem.startswith("not a JPEG")
    monkeypatch.setattr(scan, "decode", lambda data, draft: colours())
    assert read_all(tmp_path, ["a.png"], index=index)[1] == []
    index.close()


@pytest.mark.parametrize(("kind", "sent"), [("GIF", "PNG"), ("AVIF", "JPEG"), ("HEIF", "JPEG"), ("JXL", "PNG")])
def test_a_vendor_gets_a_format_that_it_accepts(kind: str, sent: str) -> None:
    assert header(fit_image(encoded(colours(), kind), Limits(1, 1)))[0] == sent
