"""The teacher of docs/how-to/add-a-teacher.md, installed from a separate package and run against a server."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import vl2v
from other_packages import install_package
from vl2v.errors import ConfigError, TeacherError
from vl2v.teacher.http.remote import Kind
from vl2v.teacher.http.vendors.base import Wire
from vl2v.teacher.registry import LOCAL, TEACHERS, VENDORS, is_remote

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-teacher.md"
LOCAL_MODEL = """
import numpy as np
from vl2v.teacher.base import TeacherCard


class Mean:
    def __init__(self, dimension):
        self.dimension = dimension

    def describe(self):
        return TeacherCard(f"mean:{self.dimension}", revision="1", dimension=self.dimension, logit_scale=10.0)

    def embed_images(self, images):
        return np.ones((len(images), self.dimension), np.float32)

    embed_texts = embed_images


def open_mean(rest, price, device):
    return Mean(int(rest))
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package on the path, as pip would."""
    site, loaded = tmp_path / "site", dict(TEACHERS._loaded)
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def put(code: str, entry: str, module: str = "acme") -> None:
        install_package(site, module, code, f"[vl2v.teachers]\n{entry}\n")

    yield put
    TEACHERS._loaded.clear()
    TEACHERS._loaded.update(loaded)
    for name in ("acme", "mean"):
        sys.modules.pop(name, None)


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    """A vendor that embeds everything as the number of its inputs: its URL and the requests it received."""
    requests: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append((self.headers["authorization"], body))
            rows = [{"index": i, "embedding": [float(i + 1)] * 512} for i in range(len(body["input"]))]
            answer = json.dumps({"data": rows, "model": body["model"]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", requests
    running.shutdown()
    running.server_close()


def example() -> tuple[str, str]:
    """The page's module, and the entry point that it registers."""
    text = PAGE.read_text(encoding="utf-8")
    (code,), (entries,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "toml"))
    name, value = re.findall(r'(\w+) = "(.*)"', entries)[0]
    return code, f"{name} = {value}"


def test_the_vendor_of_the_page_is_queried_and_priced(
    install: Install, server: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, requests = server
    install(*example())
    monkeypatch.setenv("ACME_API_KEY", "secret")
    assert is_remote("acme:clip-large")
    monkeypatch.setattr(sys.modules["acme"].Acme, "base", address)
    teacher = vl2v.open_teacher("acme:clip-large#concurrency=2")
    card = teacher.describe()
    assert (card.identity, card.dimension, str(card.price.per_1000_images)) == ("acme:clip-large", 512, "0.40")
    assert np.asarray(teacher.embed_texts(["a cat", "a dog"])).shape == (2, 512)
    ((key, body),) = requests
    assert key == "Bearer secret"
    assert body == {"model": "clip-large", "input": [{"text": "a cat"}, {"text": "a dog"}]}


def test_an_adapter_that_overrides_the_former_name_still_works() -> None:
    with pytest.warns(DeprecationWarning, match=r"Old\.vectors is now embeddings"):

        class Old(Wire):
            def vectors(self, kind: Kind, count: int, answer: Any) -> Any:
                return answer["rows"]

    class Older(Old):
        pass

    assert Older("model").embeddings("image", 1, {"rows": [[1.0]]}) == [[1.0]]


def test_a_local_model_is_a_function(install: Install) -> None:
    install(LOCAL_MODEL, "mean = mean:open_mean", "mean")
    assert not is_remote("mean:8")
    assert np.asarray(vl2v.open_teacher("mean:8").embed_images([b"", b""])).shape == (2, 8)


def test_a_uri_without_a_model_is_refused_with_an_example(install: Install) -> None:
    install(*example())
    with pytest.raises(TeacherError, match="specifies no model") as caught:
        vl2v.open_teacher("acme:")
    assert "acme:<model>" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "entry", "message"),
    [("1 / 0", "acme = acme:Acme", "division by zero"), ("Acme = 3", "acme = acme:Acme", "found: int")],
)
def test_a_broken_package_affects_only_its_teacher(install: Install, code: str, entry: str, message: str) -> None:
    install(code, entry)
    with pytest.raises(ConfigError, match=message):
        vl2v.open_teacher("acme:clip")
    with pytest.raises(TeacherError, match=r"(?s)Unknown teacher 'gpt-9'.*acme:\.\.\."):
        vl2v.open_teacher("gpt-9")


def test_a_name_of_vl2v_cannot_be_replaced(install: Install) -> None:
    install("1 / 0", "jina = acme:Acme")
    assert TEACHERS["jina"].__name__ == "Jina"


@pytest.mark.parametrize("name", [*LOCAL, *VENDORS])
def test_every_teacher_of_the_table_can_be_imported(name: str) -> None:
    assert callable(TEACHERS[name])
    assert isinstance(TEACHERS[name], type) == (name in VENDORS)
