"""`classes.yaml`: descriptions of class folders for prompts."""

from __future__ import annotations

import os
import reprlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vl2v.data.images import spaced
from vl2v.errors import ConfigError
from vl2v.yaml_keys import Limited, fault_of, without_repeats
from vl2v_runtime.metadata import MAX_NAME
from vl2v_runtime.names import has_control, shown
from vl2v_runtime.regular import read_text

NAMES = ("classes.yaml", "classes.yml")
MOST_BRACKETS = 1000  # no phrase needs any; deep nesting takes the parser minutes


class _Texts(Limited, yaml.BaseLoader):
    """Reads all scalars as text, so that ``0``, ``no`` and ``2024-01-01`` can be class folders."""


without_repeats(_Texts)


def read_phrases(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """Return the phrase of each class folder: that of `classes.yaml` in the root, or the name with spaces.

    Raises:
        ConfigError: if the file cannot be read, is not a mapping of text to text, or contains an unknown or repeated
            folder.
    """
    phrases = {folder: spaced(folder) for folder in folders}
    found = [root / name for name in NAMES if os.path.lexists(root / name)]
    if len(found) > 1:
        step = f"keep one of them: {NAMES[0]}"
        raise ConfigError(f"{shown(root)} has two files of descriptions.", found=", ".join(NAMES), next_step=step)
    if not found:
        return phrases
    (path,) = found
    first = folders[0]
    step = f"write lines such as '{first}: {phrases[first]}'"
    content = _parse(path)
    if not isinstance(content, dict) or not all(map(_usable, content, content.values())):
        expected = f"a mapping of class folders to descriptions, both text (printable, at most {MAX_NAME:,} characters)"
        what = "an empty file" if content is None else reprlib.repr(content)[:300]
        raise ConfigError(f"{shown(path)} cannot be used.", expected=expected, found=what, next_step=step)
    by_name = {unicodedata.normalize("NFC", folder): folder for folder in folders}
    overrides: dict[str, str] = {}
    unknown = []
    for key, phrase in content.items():
        folder = by_name.get(unicodedata.normalize("NFC", key))
        if folder is None:
            unknown.append(key)
        else:
            overrides[folder] = phrase.strip()
    if unknown:
        raise ConfigError(
            f"{shown(path)} has an unknown class.",
            expected=f"class folders among {', '.join(map(repr, folders[:50]))}",
            found=", ".join(map(repr, unknown[:50])),
            next_step=f"correct the name before the colon to that of the folder; {step}",
        )
    return phrases | overrides


def _usable(key: object, value: object) -> bool:
    if not isinstance(key, str) or not isinstance(value, str) or value.strip() in ("", "~"):
        return False
    return len(value) <= MAX_NAME and not has_control(value.strip())


def _parse(path: Path) -> Any:
    try:
        text = read_text(path)
        if "\0" in text:  # UTF-16 without a byte order mark
            raise UnicodeDecodeError("utf-8", b"\0", 0, 1, "NUL characters, as in UTF-16")
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise RecursionError(f"more than {MOST_BRACKETS:,} brackets")
        return yaml.load(text, _Texts)
    except UnicodeDecodeError as error:
        found = f"other bytes ({error.reason})"
        step = "save the file as UTF-8"
        raise ConfigError(f"{shown(path)} is not in UTF-8.", expected="UTF-8", found=found, next_step=step) from error
    except (yaml.YAMLError, RecursionError) as error:
        found, step = fault_of(error)
        expected = "YAML, a line per class folder"
        raise ConfigError(
            f"{shown(path)} is not valid YAML.", expected=expected, found=found, next_step=step
        ) from error
    except OSError as error:
        found = error.strerror or str(error)
        problem, step = f"{shown(path)} cannot be read.", "correct it, or delete it to use the names of the folders"
        raise ConfigError(problem, expected="a YAML file", found=found, next_step=step) from error
