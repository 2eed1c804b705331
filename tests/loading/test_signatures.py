"""The teacher, prompts and store of an untrusted folder are not opened; those of a run of the user are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_folder import CLASSES, change, student_of
from typer.testing import CliRunner
from watching import watched

from vl2v.cli import app
from vl2v.commands.classes import add_classes
from vl2v.config import RunConfig
from vl2v.errors import RunError, TeacherError
from vl2v.locations import StoragePaths
from vl2v.runs.signatures import MARK, check_teacher, is_signed, sign, sign_teacher
from vl2v.runs.storage import remember, storage_of
from vl2v.student.model import Student
from vl2v.validation import parse


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def config_of(spec: str, prompts: Any = "photo") -> RunConfig:
    values = {"data": {"root": "DATA"}, "teacher": {"spec": spec, "prompts": prompts}, "student": {"spec": "x"}}
    return parse(RunConfig, values, "made")


def made_by(spec: str, folder: Path, signature: str | None = None, prompts: Any = "photo") -> Path:
    """Write a student with this teacher in its provenance."""
    config = config_of(spec, prompts).model_dump(mode="json")
    teacher = {"identity": "file:teacher.npz", "revision": "r1", "dimension": 4}
    known = [f"a photo of a {name}" for name in CLASSES]
    signed: dict[str, Any] = {MARK: signature}
    return student_of(config=config, teacher=teacher, prompts=known, **signed).save(folder)


@pytest.mark.parametrize(
    "spec",
    [
        "https://attacker.invalid/v1",
        "http://127.0.0.1:9/v1",
        "azure:attacker.invalid",
        "vertex:model#region=attacker.invalid",
        "bedrock:model#region=attacker",
        "jina:model#dimension=4",
        "file:/etc/passwd.npz",
        "open_clip:hf-hub:attacker/x",
        "open_clip:ViT-B-32//etc/passwd.pt",
        "open_clip:ViT-B-32/evil.bin",
    ],
)
def test_the_teacher_of_an_untrusted_student_is_not_queried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.setenv("VL2V_API_KEY", "precious")
    folder = made_by(spec, tmp_path / "student", signature="0" * 64)
    with watched(tmp_path) as events, pytest.raises(TeacherError, match="--teacher") as caught:
        add_classes(folder, ["zebra"], budget=1, storage=StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite"))
    assert events == []
    assert spec in caught.value.next_step


def test_the_prompts_of_an_untrusted_student_are_not_read(tmp_path: Path) -> None:
    for prompts, refused in (("/etc/passwd", True), ("photo", False), ("a {}", False), (("a {}", "b {}"), False)):
        config = config_of("jina:jina-clip-v2", prompts)
        if refused:
            with pytest.raises(TeacherError, match="/etc/passwd"):
                check_teacher(config, None)
        else:
            check_teacher(config, None)


@pytest.mark.parametrize(
    "spec",
    [
        "offline:", "conse:", "jina:jina-clip-v2", "open_clip:ViT-B-16/openai", "gemini:gemini-embedding-2",
        "vertex:multimodalembedding@001", "bedrock:amazon.nova-2-multimodal-embeddings-v1:0",
    ],
)  # fmt: skip
def test_a_teacher_without_file_and_address_is_opened_as_before(spec: str) -> None:
    check_teacher(config_of(spec), None)


def test_the_teacher_of_a_run_of_this_user_is_opened_unless_it_was_changed(tmp_path: Path) -> None:
    texts = [f"a photo of a {name}" for name in (*CLASSES, "zebra")]
    embeddings = np.eye(4, dtype=np.float32)
    np.savez(tmp_path / "teacher.npz", paths=["a.png"], embeddings=embeddings[:1], texts=texts,
             text_embeddings=embeddings, identity="file:teacher.npz", revision="r1")  # fmt: skip
    spec = f"file:{tmp_path / 'teacher.npz'}"
    storage = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite")
    folder = made_by(spec, tmp_path / "student", signature=sign_teacher(config_of(spec)))
    assert add_classes(folder, ["zebra"], storage=storage).classes == [*CLASSES, "zebra"]

    def elsewhere(card: dict[str, Any]) -> None:
        card["provenance"]["config"]["teacher"]["spec"] = "https://attacker.invalid/v1"

    change(folder / "student.json", elsewhere)
    with pytest.raises(TeacherError, match="--teacher"):
        add_classes(folder, ["mule"], storage=storage)


def test_a_teacher_that_the_user_names_is_opened(tmp_path: Path) -> None:
    folder = made_by("https://attacker.invalid/v1", tmp_path / "student")
    with pytest.raises(TeacherError, match="nowhere"):
        add_classes(
            folder, ["zebra"], teacher="file:nowhere.npz", storage=StoragePaths(tmp_path, tmp_path / "s.sqlite")
        )


def test_a_signature_depends_on_the_user_and_the_texts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_storage = sign("a", ["b", "c"])
    assert is_signed(own_storage, "a", ["b", "c"])
    assert (home / "vl2v" / "secret").stat().st_mode & 0o077 == 0
    for other in (None, 3, "", "é", "0" * 64, sign("a", ["b"]), sign("ab", "c")):
        assert not is_signed(other, "a", ["b", "c"])
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "another"))
    assert not is_signed(own_storage, "a", ["b", "c"])


def test_without_a_data_folder_nothing_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert sign("a") is None
    assert not is_signed(None, "a")


def test_the_store_of_an_untrusted_run_is_not_opened(tmp_path: Path) -> None:
    own_storage, usual = StoragePaths(tmp_path / "cache", tmp_path / "store.sqlite"), storage_of(None)
    own_storage.cache.mkdir()
    own_storage.store.write_bytes(b"")
    remember(tmp_path, own_storage)
    assert storage_of(tmp_path) == own_storage
    foreign = tmp_path / "foreign.sqlite"
    foreign.write_bytes(b"")
    change(tmp_path / "places.json", lambda content: content | {"store": str(foreign)})
    assert storage_of(tmp_path) == usual
    for damaged in ("[" * 100_000, "[]", "{}", '{"store": 3}', "NaN"):
        (tmp_path / "places.json").write_text(damaged)
        assert storage_of(tmp_path, uses_store=False) == usual
        for present in (True, False):
            with pytest.raises(RunError, match=r"places.json is damaged(.|\n)*--store FILE"):
                storage_of(tmp_path, present=present)
        assert storage_of(tmp_path, store=own_storage.store).store == own_storage.store
    (tmp_path / "places.json").unlink()
    assert storage_of(tmp_path) == usual


def test_the_command_line_names_the_missing_option(tmp_path: Path) -> None:
    folder = made_by("https://attacker.invalid/v1", tmp_path / "student")
    store = str(tmp_path / "s.sqlite")
    done = CliRunner().invoke(app, ["classes", "add", str(folder), "zebra", "--quote", "--json", "--store", store])
    assert done.exit_code == TeacherError.exit_code
    assert "--teacher 'https://attacker.invalid/v1'" in json.loads(done.stderr.strip().splitlines()[-1])["next"]
    assert Student.load(folder).classes == CLASSES
