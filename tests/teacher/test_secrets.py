from __future__ import annotations

import itertools
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
from misbehaving_vendor import UnreliableVendor, picture
from PIL import Image
from test_unreliable_vendor import teacher_of

from vl2v.api import distill
from vl2v.errors import TeacherError, Vl2vError
from vl2v.job.console import for_people
from vl2v.job.prepare import Places
from vl2v.teacher.keys import Secret, ask_for, from_environment
from vl2v.teacher.opening import open_teacher
from vl2v.teacher.spelling import open_wire

KEY = "vl2v-0123456789abcdef-Secret_never-to_be.seen"


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(KEY)
    shown = f"{secret} {secret!r} {[secret]} {vars(type(secret))}"
    assert KEY not in shown
    assert secret.strike(f"bad key {KEY}!") == "bad key ***!"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert not Secret()


def test_keys_come_from_the_environment_or_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    with pytest.raises(TeacherError, match="export JINA_API_KEY"):
        ask_for(("JINA_API_KEY",), "jina")  # no terminal here
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
def test_a_key_in_a_spelling_is_refused_without_repeating_it(spec: str) -> None:
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


def test_a_server_that_wants_a_key_is_asked_again_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VL2V_API_KEY", raising=False)
    with UnreliableVendor(key=KEY) as vendor:
        with pytest.raises(TeacherError, match="VL2V_API_KEY"):
            teacher_of(vendor).describe()
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        monkeypatch.setattr("getpass.getpass", lambda prompt: KEY)
        assert teacher_of(vendor).describe().identity == "test:clip"


def test_no_file_and_no_output_of_a_job_holds_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole job: config, metrics, ledger, store, caches, and whatever a terminal would have seen."""
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
            places=Places(tmp_path / "cache", tmp_path / "store.sqlite"),
            progress=for_people(),
            settings=settings | {"batch_per_domain": 2, "device": "cpu"},
        )
        assert {headers["authorization"] for headers in vendor.meter.headers} == {f"Bearer {KEY}"}
    assert run is not None
    assert run.image_queries == 20
    shown = "".join(capfd.readouterr())
    assert "asking test:clip" in shown
    assert KEY not in shown
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "config.yaml" and vendor.url in path.read_text() for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_opening_says_what_there_is() -> None:
    with pytest.raises(Vl2vError, match=r"jina:jina-clip-v2(.|\n)*azure:"):
        open_teacher("nothing:like-that")
