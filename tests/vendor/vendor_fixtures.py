"""Fixtures of the vendor's tests, imported by name where they are used.

pytest creates a session fixture again for every module that imports it, so slow resources are created once here.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from vendor_serving import Server, Spawner, new_key

from vl2v.teacher.registry import open_teacher

open_clip = pytest.importorskip("open_clip")
NAME = "tiny-vendor"


@functools.cache
def clip_files() -> tuple[Path, Path]:
    """A small CLIP with random weights: its configuration and its file."""
    folder = Path(tempfile.mkdtemp(prefix="vl2v-vendor-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config, weights = folder / f"{NAME}.json", folder / "clip.safetensors"
    config.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(config)
    torch.manual_seed(3)
    model = open_clip.create_model(NAME).eval()
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, weights)
    return config, weights


@functools.cache
def the_teacher() -> Any:
    return open_teacher(f"open_clip:{NAME}/{clip_files()[1]}", device="cpu")


@functools.cache
def the_spawner() -> Spawner:
    config, weights = clip_files()
    one = Spawner(config, weights, config.parent, f"open_clip:{NAME}/{weights.name}")
    atexit.register(one.close)
    return one


@functools.cache
def the_server() -> Server:
    return the_spawner().start()


@pytest.fixture
def teacher() -> Any:
    """The served teacher, loaded in this process as the reference."""
    return the_teacher()


@pytest.fixture(scope="session")
def spawner() -> Spawner:
    """Starts servers, quickly."""
    return the_spawner()


@pytest.fixture(scope="session")
def server() -> Server:
    """A server with the default settings, shared by the tests that do not change it."""
    return the_server()


@pytest.fixture
def key(server: Server) -> str:
    """A new account's key."""
    return new_key(server.db)
