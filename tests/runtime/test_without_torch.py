"""The runtime without torch: in a child process, and from its wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from exported import Exported, cosine, picture  # noqa: F401 - a fixture

import vl2v
import vl2v_runtime

ROOT = Path(__file__).resolve().parents[2]

FORBID = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "vl2v", "onnx", "timm", "torchvision", "rich", "pydantic"}:
            raise ImportError(f"{name} is forbidden here")
sys.meta_path.insert(0, Forbid())
"""
USE = """
import json, sys, vl2v_runtime
model = vl2v_runtime.load(sys.argv[1], threads=1)
answers = model.predict(sys.argv[2])
print(json.dumps({"file": vl2v_runtime.__file__, "labels": [a.label for a in answers], "loaded": sorted(sys.modules)}))
"""


def python(code: str, *arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_importing_it_loads_neither_torch_nor_vl2v() -> None:
    code = "import sys, vl2v_runtime; vl2v_runtime.Model; print(*sorted(sys.modules))"
    done = python(code, path=ROOT / "src")
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "vl2v_runtime.model" in loaded
    assert not {"torch", "vl2v", "onnx", "onnxruntime"} & set(loaded), "onnxruntime is loaded with the model"


@pytest.mark.slow
def test_its_wheel_classifies_without_torch(cosine: Exported, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", str(ROOT / "runtime"), "-w", str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("vl2v_runtime-*.whl")
    environment = tmp_path / "environment"
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(environment), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (environment / "bin" / "vl2v-predict").is_file()
    assert not (environment / "vl2v").exists()
    picture(0).save(tmp_path / "a.png")
    done = python(FORBID + USE, str(cosine.file), str(tmp_path / "a.png"), path=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Path(report["file"]).is_relative_to(environment)
    assert report["labels"] == cosine.student.predict(tmp_path / "a.png")
    assert not {"torch", "vl2v"} & set(report["loaded"])


def test_both_wheels_carry_the_same_version() -> None:
    import tomllib

    one, two = (tomllib.loads((ROOT / p).read_text()) for p in ("pyproject.toml", "runtime/pyproject.toml"))
    assert one["project"]["version"] == two["project"]["version"] == vl2v_runtime.__version__ == vl2v.__version__
    assert "src/vl2v_runtime" in one["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
