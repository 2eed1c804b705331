"""A real infinity server with its default paths as a teacher; it serves a tiny CLIP with random weights."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import httpx
import numpy as np
import pytest
from vendor_serving import picture

from other_environments import python_of
from ports import free_port
from vl2v.commands.check import check_teacher
from vl2v.errors import TeacherError
from vl2v.locations import StoragePaths
from vl2v.teacher.base import Price, unit_rows
from vl2v.teacher.registry import open_teacher

pytestmark = pytest.mark.slow
QUIET = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def infinity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running infinity, without a path."""
    python = python_of("infinity")
    folder = tmp_path_factory.mktemp("infinity")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | QUIET
    script = Path(__file__).with_name("tiny_clip.py")
    made = subprocess.run([python, script, folder / "clip"], env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    port, log = free_port(), folder / "log"
    words = [
        "v2",
        "--model-id",
        str(folder / "clip"),
        "--served-model-name",
        "tiny",
        "--engine",
        "torch",
        "--device",
        "cpu",
    ]
    words += ["--no-bettertransformer", "--no-model-warmup", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen([str(python.with_name("infinity_emb")), *words], env=env, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 180
        while time.monotonic() < end and process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).status_code == 200:
                    break
            time.sleep(0.2)
        else:
            raise AssertionError(f"infinity does not answer: {log.read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_images_and_texts_are_embedded_whatever_path_is_named(infinity: str) -> None:
    images = [picture(seed) for seed in range(40)]  # more than infinity accepts in one request
    texts = [f"text {i}" for i in range(70)]
    embeddings = []
    for url in (infinity, f"{infinity}/v1", f"{infinity}/v1#style=infinity&model=tiny"):
        teacher = open_teacher(url)
        card = teacher.describe()
        assert (card.identity, card.dimension, card.price.free) == (f"{infinity}#tiny", 16, True)
        embeddings.append((unit_rows(teacher.embed_images(images)), unit_rows(teacher.embed_texts(texts))))
    for one, other in ((embeddings[0], embeddings[1]), (embeddings[0], embeddings[2])):
        np.testing.assert_allclose(one[0], other[0], atol=1e-4)
        np.testing.assert_allclose(one[1], other[1], atol=1e-4)
    assert len(np.unique(embeddings[0][0].round(3), axis=0)) == 40
    assert len(np.unique(embeddings[0][1].round(3), axis=0)) == 70


@pytest.mark.parametrize("style", ["content", "messages"])
def test_another_style_is_refused_with_the_servers_message(infinity: str, style: str) -> None:
    with pytest.raises(TeacherError, match="does not embed images") as caught:
        open_teacher(f"{infinity}/v1#style={style}").describe()
    assert "body.text.input" in caught.value.found


def test_a_check_and_a_stated_price(infinity: str, tmp_path: Path) -> None:
    storage = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite")
    free = check_teacher(infinity, storage=storage)
    assert free.deterministic
    assert free.spent == 0
    assert "assumed to be free" in free.note
    price = {"teacher": {"price_per_1000_images": "1", "price_per_1000_texts": "1"}}
    priced = StoragePaths(tmp_path / "cache", tmp_path / "priced.sqlite")
    paid = check_teacher(f"{infinity}#dimension=16", storage=priced, budget=Decimal(1), settings=price)
    assert paid.spent == Decimal("0.009")  # four images, one of them twice, and four texts
    assert open_teacher(f"{infinity}#dimension=16", price=Price()).describe().price.free
