"""Errors that vl2v raises for a file have a specific message; those of the system are explained by their number."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vl2v.errors import AccessError
from vl2v.faults import explained
from vl2v_runtime.regular import read_regular


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_named_in_the_message(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AccessError) as caught, explained({}):
        read_regular(tmp_path / "pipe")
    assert caught.value.found == "not a regular file"


def test_a_large_file_is_named_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("12345")
    with pytest.raises(AccessError) as caught, explained({}):
        read_regular(tmp_path / "large", most=3)
    assert caught.value.found == "a file of 5 bytes"


def test_errors_of_the_system_are_explained() -> None:
    with pytest.raises(AccessError) as caught, explained({}):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "a")
    assert caught.value.found == "a name that this file system does not allow"
