"""Text files stated by the user or in a folder: a pipe, a device or a huge file is refused without reading it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vl2v.data.classes import class_names
from vl2v.data.folder import DomainFolder, read_yaml
from vl2v.data.phrases import read_phrases
from vl2v.errors import ConfigError, DataError, Vl2vError
from vl2v.runs.run_files import read_metrics
from vl2v.teacher.prompts import load_templates
from vl2v_runtime.regular import read_regular, read_text

READERS: dict[str, Callable[[Path], object]] = {
    "prompts": lambda path: load_templates(str(path)),
    "settings": read_yaml,
    "class names": lambda path: class_names(path),
    "metrics": read_metrics,
    "bytes": read_regular,
}


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def huge(path: Path) -> Path:
    with path.open("wb") as handle:
        handle.truncate(2**40)  # a sparse file without blocks on the disk
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
@pytest.mark.parametrize("make", [pipe, device, huge, folder], ids=lambda make: make.__name__)
@pytest.mark.parametrize("reader", READERS)
def test_special_files_are_refused_without_blocking(tmp_path: Path, reader: str, make: Callable[[Path], Path]) -> None:
    with pytest.raises((Vl2vError, OSError)) as caught:
        READERS[reader](make(tmp_path / "x.txt"))
    if isinstance(caught.value, Vl2vError):
        assert caught.value.expected
        assert caught.value.found


def test_ordinary_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(file) == "one\ntwo\nthree\n"
    assert read_regular(file, 18) == file.read_bytes()
    with pytest.raises(OSError, match="18 bytes"):
        read_regular(file, 17)


@pytest.mark.parametrize("phrase", ['"a\\0b"', '"\\e[31m"', "x" * 1001, '"\\a"'])
def test_a_phrase_that_is_too_long_for_a_student_is_refused(tmp_path: Path, phrase: str) -> None:
    (tmp_path / "classes.yaml").write_text(f"cat: {phrase}\n")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        read_phrases(tmp_path, ["cat", "dog"])
    assert len(str(caught.value)) < 1500


def test_a_bomb_of_references_gives_a_short_message(tmp_path: Path) -> None:
    lines = ["l0: &l0 [x,x,x,x,x,x,x,x,x]"] + [f"l{i}: &l{i} [{','.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
    (tmp_path / "classes.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        read_phrases(tmp_path, ["cat", "dog"])
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("name", ["\x1b[31mcat", "bell\a", "del\x7f"])
def test_a_class_name_that_is_too_long_for_a_student_is_refused_before_anything_is_bought(
    tmp_path: Path, name: str
) -> None:
    for kind in (name, "dog"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "0.png").write_bytes(b"x")
    with pytest.raises(DataError, match="a class name with a control character"):
        DomainFolder(tmp_path).scan()


@pytest.mark.parametrize(
    "text", ["budget: 1\nbudget: 1000\n", "data: {root: a}\nseed: 1\ndata: {root: b}\n", "a: {b: 1, b: 2}"]
)
def test_a_setting_that_is_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="given twice") as caught:
        read_yaml(tmp_path / "c.yaml")
    assert caught.value.next_step == "keep one of the lines"
    (tmp_path / "c.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\n")
    assert read_yaml(tmp_path / "c.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
