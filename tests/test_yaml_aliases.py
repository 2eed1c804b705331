"""YAML aliases that expand to an enormous number of values are refused quickly; ordinary ones are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from vl2v import yaml_keys
from vl2v.cli.common import pair
from vl2v.data.folder import read_yaml
from vl2v.data.phrases import read_phrases
from vl2v.errors import ConfigError

LISTS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 12))
MAPS = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 12))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 12))
BOMBS = {"lists": LISTS, "maps": MAPS, "merged": MERGED, "a key": LISTS + "? *a11\n: 1\n", "itself": "a: &a [*a]\n"}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_keys, "MOST_VALUES", 1000)  # the default would take seconds without the check


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(BOMBS[name])
    with pytest.raises(ConfigError, match="aliases that stand for more than 1,000 values"):
        read_yaml(file)


def test_a_bomb_in_classes_yaml_and_in_options_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(LISTS)
    with pytest.raises(ConfigError, match="aliases that stand for"):
        read_phrases(tmp_path, ["a0"])
    with pytest.raises(ConfigError, match="--set data is not valid"):
        pair("data={a: &a [*a]}", "--set")


def test_an_ordinary_alias_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}\n")
    assert read_yaml(file) == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 3}}
