from __future__ import annotations

from pathlib import Path

import pytest

from vl2v.writing import atomic_shared_write


def test_a_file_appears_completely_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    with atomic_shared_write(tmp_path, lambda: target) as file:
        file.write(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"

    def fail() -> None:
        with atomic_shared_write(tmp_path, lambda: target) as file:
            file.write(b"two")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    assert target.read_bytes() == b"one"
