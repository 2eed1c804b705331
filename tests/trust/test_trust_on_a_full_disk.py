"""`vl2v trust` on a full disk: the student does not change without its exported files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from test_fit import answers

from vl2v.commands import trust as command
from vl2v.runs.folder import RunFolder
from vl2v.trust import files
from vl2v.trust.fit import fit


def test_the_student_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    folder, trust = RunFolder(tmp_path), fit(*answers())
    folder.student.mkdir()
    assert trust is not None
    (folder.student / files.FILE).write_text("earlier")
    monkeypatch.setattr(command, "changeable_exports", lambda *_: [tmp_path / "model.onnx"])
    monkeypatch.setattr("vl2v.onnx_export.onnx.rewrite_trust", full)
    with pytest.raises(OSError, match="No space"):
        command._write(trust, folder)
    assert (folder.student / files.FILE).read_text() == "earlier"
