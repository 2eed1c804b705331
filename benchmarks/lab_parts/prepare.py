"""Write the bench's data sets and the student's weights into one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

from common import need_shared
from lab_parts.cameras import CAMERAS, photograph
from lab_parts.dataset import Array, encoded
from lab_parts.texts import bank
from pacs_dataset import LOGIT_SCALE, SimulatedVendor
from vl2v.demo.drawings import draw
from vl2v.teacher.offline.teacher import OfflineVendor
from vl2v_runtime.imaging import decode, square

WEIGHTS = "lite0.safetensors"


def prepare(out: Path, size: int, quality: int, names: Sequence[str]) -> None:
    """Write `out/<name>.npz` for each of `KINDS`, and the student's weights.

    Args:
        out: a folder.
        size: side of the images in pixels; a training crop is taken of these.
        quality: of the JPEG files.
        names: which data sets.
    """
    folder = need_shared()
    out.mkdir(parents=True, exist_ok=True)
    state = load_file(folder / "student" / "tf_efficientnet_lite0.in1k.safetensors")
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file({name: value for name, value in half.items() if not name.startswith("classifier")}, out / WEIGHTS)
    for name in names:
        KINDS[name](folder, out / f"{name}.npz", size, quality)
        print(name, (out / f"{name}.npz").stat().st_size / 1e6, "MB", flush=True)


def _pacs(folder: Path, file: Path, size: int, quality: int) -> None:
    client = sorted(json.loads((folder / "teacher" / "split.json").read_text())["client"])
    images = [folder / "data" / path for path in client]
    arrays = _pictures(images, size, quality)
    classes = arrays["classes"]
    known = np.load(folder / "teacher" / "pacs_image_embeddings.npz")
    row = {str(path): i for i, path in enumerate(known["paths"])}
    vendor = SimulatedVendor(folder)
    arrays |= _teacher("simulated", known["embeddings"][[row[path] for path in client]], "{}", LOGIT_SCALE)
    arrays |= _texts("simulated", classes, vendor.embed_texts)
    arrays |= _offline(images, classes)
    np.savez(file, allow_pickle=False, teachers=np.array(["simulated", "offline"]), **arrays)


def _drawings(_: Path, file: Path, size: int, quality: int) -> None:
    root = draw(file.parent / "drawn")
    images = sorted(path for path in root.glob("*/*/*.png"))
    arrays = _pictures(images, size, quality)
    arrays |= _offline(images, arrays["classes"])
    np.savez(file, allow_pickle=False, teachers=np.array(["offline"]), **arrays)


def _cameras(folder: Path, file: Path, size: int, quality: int) -> None:
    """Divide the photos and paintings of PACS among four cameras. The teacher sees the images of the cameras."""
    client = sorted(json.loads((folder / "teacher" / "split.json").read_text())["client"])
    images = [folder / "data" / path for path in client if Path(path).parts[1] in ("art_painting", "photo")]
    files, order = [], np.random.default_rng(0).permutation(len(images))
    for position, i in enumerate(order):
        camera = list(CAMERAS)[position % len(CAMERAS)]
        files.append(file.parent / "cameras" / camera / images[i].parent.name / f"{images[i].stem}-{i}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(square(decode(images[i]), size), camera, int(i))).save(files[-1])
    files.sort()
    arrays, vendor = _pictures(files, size, quality), SimulatedVendor(folder)
    parts = (files[i : i + 32] for i in range(0, len(files), 32))
    embeddings = np.concatenate([vendor.embed_images([path.read_bytes() for path in part]) for part in parts])
    arrays |= _teacher("simulated", embeddings, "{}", LOGIT_SCALE)
    arrays |= _texts("simulated", arrays["classes"], vendor.embed_texts)
    np.savez(file, allow_pickle=False, teachers=np.array(["simulated"]), **arrays)


def _pictures(files: Sequence[Path], size: int, quality: int) -> dict[str, Any]:
    parts = [encoded(Image.fromarray(square(decode(path), size)), quality) for path in files]
    domains = sorted({path.parts[-3] for path in files})
    folders = sorted({path.parts[-2] for path in files})
    return {
        "stream": np.frombuffer(b"".join(parts), np.uint8),
        "bounds": np.cumsum([0, *map(len, parts)]),
        "labels": np.array([folders.index(path.parts[-2]) for path in files], np.int16),
        "domains": np.array([domains.index(path.parts[-3]) for path in files], np.int16),
        "classes": np.array([name.replace("_", " ") for name in folders]),
        "domain_names": np.array(domains),
    }


def _teacher(name: str, images: np.ndarray, prompt: str, scale: float) -> dict[str, Any]:
    steps = (
        np.abs(images).max(1, keepdims=True) / 127
    )  # rows are normalised when they are read, so the steps need not be saved
    return {
        f"{name}.images": np.rint(images / steps).astype(np.int8),
        f"{name}.prompt": np.array(prompt),
        f"{name}.scale": np.array(scale),
    }


def _texts(name: str, classes: np.ndarray, ask: Callable[[list[str]], Array]) -> dict[str, Any]:
    texts = bank(tuple(map(str, classes)))
    embeddings = np.concatenate([ask(list(texts[i : i + 64])) for i in range(0, len(texts), 64)])
    return {f"{name}.texts": np.array(texts), f"{name}.vectors": embeddings.astype(np.float16)}


def _offline(files: Sequence[Path], classes: np.ndarray) -> dict[str, Any]:
    vendor = OfflineVendor()
    data = (files[i : i + 64] for i in range(0, len(files), 64))
    embeddings = np.concatenate([vendor.embed_images([path.read_bytes() for path in part]) for part in data])
    arrays = _teacher("offline", embeddings, "a photo of a {}", vendor.describe().logit_scale)
    return arrays | _texts("offline", classes, vendor.embed_texts)


KINDS = {"pacs": _pacs, "drawings": _drawings, "cameras": _cameras}
