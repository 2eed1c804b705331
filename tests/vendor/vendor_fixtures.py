"""Fixtures of the vendor's tests; imported by name where they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from vendor_serving import Server, Spawner, new_key

open_clip = pytest.importorskip("open_clip")
NAME = "tiny-vendor"


@pytest.fixture(scope="session")
def clip_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A small CLIP with random weights: its configuration, its file, and itself."""
    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = folder / f"{NAME}.json"
    config.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(config)
    torch.manual_seed(3)
    model = open_clip.create_model(NAME).eval()
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "clip.safetensors")
    return config, folder / "clip.safetensors", model


@pytest.fixture(scope="session")
def teacher(clip_files: tuple[Path, Path, Any]) -> Any:
    """The same teacher in this process, to compare with."""
    from vl2v.teacher.opening import open_teacher

    return open_teacher(f"open_clip:{NAME}/{clip_files[1]}", device="cpu")


@pytest.fixture(scope="session")
def spawner(clip_files: tuple[Path, Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawner]:
    config, weights, _ = clip_files
    model = f"open_clip:{NAME}/{weights.name}"
    one = Spawner(config, weights, tmp_path_factory.mktemp("servers"), model)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="session")
def server(spawner: Spawner) -> Server:
    """A server with the default settings, shared by the tests that leave it as it is."""
    return spawner.start()


@pytest.fixture
def key(server: Server) -> str:
    """A new account's key."""
    return new_key(server.db)
