"""Messages with overlong paths and lists are cut, line by line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from vl2v.data.classes import class_names
from vl2v.data.folder import DomainFolder
from vl2v.data.listing import FaultyDataError
from vl2v.data.scan import Fault
from vl2v.data.table import TableListing
from vl2v.errors import ConfigError, DataError, Vl2vError
from vl2v.student.card import ClassName
from vl2v_runtime.__main__ import main
from vl2v_runtime.errors import LONGEST, ModelError, short_lines
from vl2v_runtime.metadata import MAX_NAME

LONG = "a/" * 2500 + "end"


def longest(text: str) -> int:
    return max(map(len, text.split("\n")))


@pytest.mark.parametrize("kind", [Vl2vError, ConfigError, ModelError])
def test_every_part_of_a_message_is_truncated(kind: type[Vl2vError] | type[ModelError]) -> None:
    error = kind(f"{LONG} is missing.", expected=LONG, found=LONG, next_step=f"check {LONG}")
    assert longest(str(error)) <= LONGEST
    lines = str(error).split("\n")
    assert len(lines) == 4
    assert lines[0].startswith("a/a/")
    assert lines[0].endswith("end is missing.")
    assert error.found == LONG, "values are not truncated"
    assert str(pickle.loads(pickle.dumps(DataError(LONG)))) == str(DataError(LONG))  # noqa: S301


def test_faults_of_files_are_truncated_one_by_one() -> None:
    faults = [Fault(f"{i}{LONG}", "empty file", "delete it") for i in range(5)]
    text = str(FaultyDataError(Path("photos"), faults))
    assert longest(text) <= LONGEST
    assert all(f"  {i}a/" in text for i in range(5))


def test_usual_messages_are_not_truncated() -> None:
    text = "error: " + "x" * (LONGEST - 7)
    assert short_lines(f"{text}\n{text}\n") == f"{text}\n{text}\n"


def test_commands_truncate_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(b"")
    path = str(tmp_path) + "/x" * (os.pathconf("/", "PC_PATH_MAX") // 4)
    with pytest.raises(DataError) as caught:
        DomainFolder(path)
    assert longest(str(caught.value)) <= LONGEST
    assert main(["model.onnx", path]) == 3
    assert longest(capsys.readouterr().err) <= LONGEST


def test_the_longest_accepted_name_can_be_saved(tmp_path: Path) -> None:
    longest, longer = "a" * MAX_NAME, "a" * (MAX_NAME + 1)
    assert class_names([longest, "b"])
    with pytest.raises(ConfigError, match="1,001 characters: aaaa"):
        class_names([longer, "b"])
    adapter = TypeAdapter(ClassName)
    assert adapter.validate_python(longest)
    with pytest.raises(ValidationError):
        adapter.validate_python(longer)
    for name in (longest, longer):
        lines = ["image,label", *(f"{i}{j}.png,{label}" for i, label in enumerate((name, "b")) for j in range(3))]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        problems = [fault.problem for fault in TableListing(tmp_path / "t.csv").faults]
        assert bool(problems) == (name == longer), problems
