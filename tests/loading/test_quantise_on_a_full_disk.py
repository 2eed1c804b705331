"""Quantisation reports a full disk and removes its temporary files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from exported_file import make_exported

from vl2v.errors import StudentError
from vl2v.onnx_export import quantise as module


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), OSError), (RuntimeError("no such operator"), StudentError)],
)
def test_a_full_disk_is_not_confused_with_a_graph_that_cannot_be_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    def failing(*_: object) -> None:
        raise error

    source = make_exported(tmp_path / "model.onnx")
    left = tmp_path / module.WORK / "float.onnx"  # left by a killed process
    left.parent.mkdir()
    left.write_bytes(b"half a file")
    monkeypatch.setattr(module, "_quantise", failing)
    with pytest.raises(raised):
        module.quantise(source, tmp_path / "model.int8.onnx", [])
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
