"""`vl2v.quote` accepts the arguments of `vl2v.distill`, so that a call only differs in the name."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vl2v
from vl2v import api
from vl2v.errors import ConfigError
from vl2v.locations import StoragePaths

# arguments that only a run has
OF_RUNS = {"out", "resume", "accept_teacher", "recipe", "report", "cpus_per_worker", "gpus_per_worker"}


def test_the_signatures_agree() -> None:
    quote, distill = (inspect.signature(f).parameters for f in (api.quote, api.distill))
    assert set(distill) - set(quote) == OF_RUNS
    assert set(quote) <= set(distill)
    positional = [
        [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD] for parameters in (quote, distill)
    ]
    assert positional[0] == positional[1]


def test_held_out_domains_are_not_trained_on(tmp_path: Path) -> None:
    rows = ["path,label,domain"]
    for i in range(60):
        Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'cat' if i % 2 else 'dog'},{'abc'[i // 20]}")
    table = tmp_path / "images.csv"
    table.write_text("\n".join(rows))
    np.savez(
        tmp_path / "teacher.npz",
        paths=np.array([f"{i}.png" for i in range(60)]),
        embeddings=np.eye(60, dtype=np.float32),
        texts=np.array(["a photo of a cat"]),
        text_embeddings=np.eye(1, 60, dtype=np.float32),
    )
    storage = StoragePaths(cache=tmp_path / "cache", store=tmp_path / "store.sqlite")
    teacher = f"file:{tmp_path / 'teacher.npz'}"
    assert vl2v.quote(table, teacher, held_out=["c"], storage=storage).images["training"] == 32
    assert vl2v.quote(table, teacher, storage=storage).images["training"] == 48
    settings = {"data": {"held_out": ["b", "c"]}}
    assert vl2v.quote(table, teacher, settings=settings, storage=storage).images["training"] == 16
    with pytest.raises(ConfigError, match="Unknown domain"):
        vl2v.quote(table, teacher, held_out=["d"], storage=storage)
    with pytest.raises(ConfigError, match="Unknown domain"):  # a string is one domain, not b and c
        vl2v.quote(table, teacher, held_out="bc", storage=storage)
