"""Verdicts of earlier rules on a file are not reused, and a change of the rules must change their number."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from odd_images import broken_exif, colours, encoded, tiff
from PIL import Image

from vl2v.data.scan import FileIndex, read_all
from vl2v_runtime.imaging import DECODING, RULES, UnreadableImageError, decode

KNOWN = {(3, 1): "5a73af748bb7624a"}
"""The number of the rules and the digest of their verdicts on the files below."""


def files() -> dict[str, bytes]:
    """Return files that are usable under some rules."""
    samples = {"png": encoded(colours(), "PNG"), "text": b"no image", "empty": b""}
    for kind in range(1, 7):
        for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"):
            for photometric in (0, 1):
                values = np.arange(12).reshape(3, 4).astype(dtype)
                samples[f"tiff {kind} {dtype} {photometric}"] = tiff(values, kind=kind, photometric=photometric)
    for fault, block in broken_exif().items():
        samples[f"exif {fault}"] = encoded(colours(), "JPEG", exif=block)
    return samples


def usable(data: bytes) -> bool:
    try:
        decode(data)
    except UnreadableImageError:
        return False
    return True


def test_a_change_of_the_rules_needs_a_new_number() -> None:
    verdicts = "\n".join(f"{name}: {usable(data)}" for name, data in files().items())
    digest = hashlib.sha256(verdicts.encode()).hexdigest()[:16]
    assert KNOWN.get((DECODING, RULES)) == digest, f"raise RULES in vl2v_runtime/imaging.py, then note {digest}"


def test_verdicts_of_earlier_rules_are_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = tiff(np.arange(12, dtype=np.int8).reshape(3, 4), kind=2)
    (tmp_path / "a.tif").write_bytes(signed)
    assert not usable(signed)
    index = tmp_path / "files.sqlite"
    with monkeypatch.context() as earlier:
        earlier.setattr("vl2v.data.scan.RULES", RULES - 1)
        earlier.setattr("vl2v.data.scan.decode", lambda _, draft: Image.new("RGB", (4, 3)))
        with closing(FileIndex(index)) as known:
            assert not read_all(tmp_path, ["a.tif"], index=known)[1]
            assert not read_all(tmp_path, ["a.tif"], index=known)[1]
    with closing(FileIndex(index)) as known:
        faults = read_all(tmp_path, ["a.tif"], index=known)[1]
    assert len(faults) == 1
