"""A quote with a teacher that needs no network imports neither torch nor packages that need it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from vl2v.method.registry import BUILT_IN

HEAVY = ("torch", "torchvision", "timm", "accelerate", "transformers", "matplotlib", "httpx", "huggingface_hub")
LOADED = f"""
import json, sys
from vl2v.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
METHODS = f"""
import json, sys
from vl2v.method.registry import METHODS
loaded = [METHODS[name].name for name in METHODS.built_in]
print(json.dumps([loaded, [name for name in {HEAVY!r} if name in sys.modules]]))
"""


def in_child(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def table_and_teacher(folder: Path) -> tuple[Path, Path]:
    names = [f"{i}.png" for i in range(12)]
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(folder / name)
    rows = [f"{name},{'cat' if i % 2 else 'dog'},{'a' if i < 6 else 'b'}" for i, name in enumerate(names)]
    table, teacher = folder / "images.csv", folder / "teacher.npz"
    table.write_text("\n".join(["path,label,domain", *rows]))
    embeddings = np.eye(12, dtype=np.float32)
    texts = np.array(["a photo of a cat", "a photo of a dog"])
    np.savez(teacher, paths=np.array(names), embeddings=embeddings, texts=texts, text_embeddings=embeddings[:2])
    return table, teacher


def test_a_quote_without_a_student_does_not_import_torch(tmp_path: Path) -> None:
    table, teacher = table_and_teacher(tmp_path)
    storage_options = ("--cache", str(tmp_path / "cache"), "--store", str(tmp_path / "store.sqlite"))
    output = in_child(
        LOADED, "quote", str(table), "--teacher", f"file:{teacher}", "--size", "16", "--json", *storage_options
    )
    quote, _, heavy = output.rstrip().rpartition("\n")
    assert json.loads(quote)["disk_bytes"]["pixel cache"] == 12 * 16 * 16 * 3
    assert json.loads(heavy) == []


def test_methods_are_defined_without_torch() -> None:
    loaded, heavy = json.loads(in_child(METHODS))
    assert (loaded, heavy) == (list(BUILT_IN), [])
