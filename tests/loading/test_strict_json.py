"""The reader of untrusted JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl2v_runtime import strict_json
from vl2v_runtime.strict_json import JsonError, parse

WHOLE = st.integers(-(10**17), 10**17)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT
PLAIN: st.SearchStrategy[Any] = st.recursive(SCALARS, lambda s: st.lists(s) | st.dictionaries(TEXT, s), max_leaves=20)


@given(PLAIN, st.booleans())
def test_json_written_by_vl2v_is_read_unchanged(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse(text) == parse(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid JSON"),
        ("{", "invalid JSON"),
        ("NaN", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("1e400", "1e400"),
        ("-1e999", "1e999"),
        ("1" * 20, "20 characters"),
        ("1" * 5000, "5,000 characters"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' twice"),
        ("[" * 33 + "]" * 33, "deeper than 32"),
        ("[" * 1_000_000, "deeper"),
        ('{"a":' * 100_000, "deeper"),
        ("[" * 1_000_001, "1,000,000 objects"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        (b"\xff", "UTF-8"),
        (b"\xff\xfe[\x00]\x00", "UTF-8"),
    ],
)
def test_all_other_texts_raise_one_kind_of_error(text: str | bytes, message: str) -> None:
    with pytest.raises(JsonError, match=message):
        parse(text)


def test_values_at_the_limits_are_read() -> None:
    assert parse("[" * 32 + "]" * 32)
    assert parse('"\\ud83d\\ude00"') == "\U0001f600"
    assert parse("1" * 19) == int("1" * 19)
    with pytest.raises(JsonError, match="more than 4 bytes"):
        parse("12345", max_bytes=4)


def test_a_file_is_read_only_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    assert strict_json.read(tmp_path / "a.json") == [1, 2]
    with pytest.raises(JsonError, match="more than 3"):
        strict_json.read(tmp_path / "a.json", max_bytes=3)
    with pytest.raises(JsonError, match="a folder"):
        strict_json.read(tmp_path)
    with pytest.raises(JsonError, match="a device"):
        strict_json.read(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        strict_json.read(tmp_path / "none.json")
