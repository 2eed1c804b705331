"""The reference contains every public name."""

from __future__ import annotations

import re
from pathlib import Path

import vl2v
import vl2v_runtime
from vl2v.errors import Vl2vError

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def test_every_public_name_has_its_entry() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    entries = set(re.findall(r"^::: ([\w.]+)$", text, flags=re.MULTILINE))
    public = {f"{package.__name__}.{name}" for package in (vl2v, vl2v_runtime) for name in package.__all__}
    assert public - {"vl2v.Vl2vError"} <= entries, "Vl2vError stands with the errors"


def test_every_exit_code_is_documented() -> None:
    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    documented = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| [^|`]*`(\w+)`", text, flags=re.MULTILINE)}
    kinds: list[type[Vl2vError]] = [Vl2vError, *Vl2vError.__subclasses__()]
    assert documented == {kind.__name__: kind.exit_code for kind in kinds}
