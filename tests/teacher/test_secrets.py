from __future__ import annotations

import base64
import html
import itertools
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import timm
from misbehaving_vendor import UnreliableVendor, picture
from peers import ENTRY, MODELS, full_response, peer
from PIL import Image
from test_unreliable_vendor import teacher_of

from vl2v.api import distill
from vl2v.cli.console import for_people
from vl2v.errors import TeacherError, Vl2vError
from vl2v.locations import StoragePaths
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.exchange import LONGEST
from vl2v.teacher.http.keys import Secret, ask_for, from_environment
from vl2v.teacher.http.retry import RetryPolicy
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.registry import open_teacher

KEY = "vl2v-0123456789abcdef-Secret_never-to_be.seen"


def test_a_secret_is_not_shown_by_repr_or_str() -> None:
    secret = Secret(KEY)
    shown = f"{secret} {secret!r} {[secret]} {vars(type(secret))}"
    assert KEY not in shown
    assert secret.redact(f"bad key {KEY}!") == "bad key ***!"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert not Secret()


def standard(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "base64": standard,
    "base64 after one byte": lambda key: standard(f":{key}"),
    "base64 in the middle": lambda key: standard(f"me:{key}:and more"),
    "base64 for addresses": lambda key: base64.urlsafe_b64encode(f"user:{key}".encode()).decode().rstrip("="),
    "percent": lambda key: quote(key, safe=""),
    "percent, every character": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "percent, twice": lambda key: quote(quote(key, safe=""), safe=""),
    "JSON": lambda key: json.dumps(key)[1:-1].replace("/", r"\/"),
    "JSON, every character": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "HTML": html.escape,
    "HTML, every character": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "hexadecimal": lambda key: key.encode().hex().upper(),
}
ODD_KEY = "sk+/k=~?&<\"'\\>%\xc3-é".encode("ascii", "ignore").decode() + KEY


@pytest.mark.parametrize("key", [KEY, KEY[:-1], KEY[:-2], ODD_KEY])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_secret_is_redacted_in_every_encoding(encoding: str, key: str) -> None:
    encoded = ENCODINGS[encoding](key)
    text = Secret(key).redact(f"bad key ({encoded}) in Authorization")
    assert text.startswith("bad key (")
    assert text.endswith(") in Authorization")
    assert "***" in text
    assert len(text) <= len("bad key () in Authorization") + 24
    assert encoded[8:20] not in text


def test_other_text_is_not_redacted() -> None:
    text = f"model {KEY[:10]} of {standard('someone else, and 100%')}"
    assert Secret(KEY).redact(text) == text
    assert Secret("").redact(text) == text
    assert Secret("a").redact("no base64 of a short one: YQ==") == "no b***se64 of *** short one: YQ=="


@pytest.mark.parametrize("where", ["error", "body", "cut", "header", "location", "description"])
@pytest.mark.parametrize("encoding", ["as it is", "base64 after one byte", "percent, every character"])
def test_a_key_that_the_vendor_repeats_is_redacted(monkeypatch: pytest.MonkeyPatch, where: str, encoding: str) -> None:
    """The key is removed from every part of an answer that a message quotes."""
    monkeypatch.setenv("VL2V_API_KEY", KEY)
    encoded = ENCODINGS[encoding](KEY)

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> list[bytes]:
        if where == "description":
            entry = {**ENTRY, "identity": f"model of {encoded}", "revision": encoded}
            return full_response({"data": [entry]}, 200, "connection: close")
        if method == "GET":
            return full_response(MODELS, 200, "connection: close")
        if where == "header":
            return [f"HTTP/1.1 200 OK\r\n{encoded} no header\r\n\r\n".encode()]
        if where == "location":
            return full_response(b"", 302, f"location: http://{encoded}.example/{encoded}?key={encoded}")
        text = {"error": f"bad key {encoded}", "body": f"bad key {encoded}", "cut": " " * (LONGEST - 20) + encoded}[
            where
        ]
        return full_response({"error": {"message": text}} if where == "error" else text.encode(), 401)

    with peer(answer) as server:
        teacher = HttpTeacher(open_wire(server.url), policy=RetryPolicy(attempts=1))
        try:
            card = teacher.describe()
            shown = repr(card)
            if where != "description":
                with pytest.raises(TeacherError) as caught:
                    teacher.embed_texts(["a"])
                shown = str(caught.value) + repr(caught.value.__dict__)
        finally:
            teacher.close()
    assert encoded[:12] not in shown
    assert KEY[:12] not in shown
    assert where in ("location",) or "***" in shown


def test_keys_come_from_the_environment_or_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    with pytest.raises(TeacherError, match="export JINA_API_KEY"):
        ask_for(("JINA_API_KEY",), "jina")  # there is no terminal
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: f" {KEY} ")
    assert ask_for(("JINA_API_KEY",), "jina").reveal() == KEY
    monkeypatch.setenv("JINA_API_KEY", "from-environment")
    assert ask_for(("JINA_API_KEY",), "jina").reveal() == "from-environment"
    monkeypatch.setenv("JINA_API_KEY", "two\nlines")
    with pytest.raises(TeacherError, match="cannot be sent"):
        from_environment(("JINA_API_KEY",))


@pytest.mark.parametrize(
    "spec",
    [f"http://user:{KEY}@host/v1", f"https://host/v1?api_key={KEY}", f"http://host/v1#{KEY}", f"azure:h?k={KEY}"],
)
def test_a_key_in_a_uri_is_refused_without_repeating_it(spec: str) -> None:
    with pytest.raises(TeacherError) as caught:
        open_wire(spec)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: bool
) -> None:
    monkeypatch.setenv("VL2V_API_KEY", KEY)
    with caplog.at_level(logging.DEBUG), UnreliableVendor(key="another" if wrong else KEY) as vendor:
        teacher = teacher_of(vendor)
        if wrong:
            with pytest.raises(TeacherError, match="HTTP 401") as caught:
                teacher.embed_images([picture(0)])
            assert "Incorrect key provided" in str(caught.value)
            assert KEY not in str(caught.value) + repr(caught.value.__dict__)
        else:
            teacher.embed_images([picture(0)])
            assert vendor.meter.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text + repr(teacher) + repr(vars(teacher)) + repr(vars(teacher.wire))


def test_a_server_that_requires_a_key_is_queried_again_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VL2V_API_KEY", raising=False)
    with UnreliableVendor(key=KEY) as vendor:
        with pytest.raises(TeacherError, match="VL2V_API_KEY"):
            teacher_of(vendor).describe()
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        monkeypatch.setattr("getpass.getpass", lambda prompt: KEY)
        assert teacher_of(vendor).describe().identity == "test:clip"


def test_no_file_and_no_output_of_a_run_contains_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A complete run: config, metrics, ledger, store, caches and the terminal output."""
    generator = np.random.default_rng(0)
    for domain, kind, i in itertools.product(("ink", "rose"), ("bar", "dot"), range(5)):
        path = tmp_path / "data" / domain / kind / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("VL2V_API_KEY", KEY)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    small = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    settings = {"student": small, "distill": {"steps": 2, "checkpoint_every": 1}, "align": {"steps": 2}, "workers": 0}
    with UnreliableVendor(key=KEY, faults={"429": 0.2, "500": 0.2}) as vendor:
        run = distill(
            tmp_path / "data",
            f"{vendor.url}#concurrency=2",
            timm.create_model("test_resnet"),
            out=tmp_path / "run",
            held_out=["rose"],
            budget="1",
            storage=StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite"),
            progress=for_people(),
            settings=settings | {"batch_per_domain": 2, "device": "cpu"},
        )
        assert {headers["authorization"] for headers in vendor.meter.headers} == {f"Bearer {KEY}"}
    assert run is not None
    assert run.image_queries == 20
    shown = "".join(capfd.readouterr())
    assert "querying test:clip" in shown
    assert KEY not in shown
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "config.yaml" and vendor.url in path.read_text() for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_an_unknown_uri_lists_the_teachers() -> None:
    with pytest.raises(Vl2vError, match=r"jina:jina-clip-v2(.|\n)*azure:"):
        open_teacher("nothing:like-that")
