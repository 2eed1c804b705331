"""Classes added to and removed from a finished student: head, file, export, costs and refusals."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import Bench, vl2v

from once import Once
from vl2v.api import add_classes, distill, list_classes, quote_classes, remove_classes
from vl2v.errors import BudgetError, ConfigError, RunError, StudentError, TeacherError
from vl2v.locations import StoragePaths
from vl2v.progress import Vl2vWarning
from vl2v.student.model import Student
from vl2v.teacher.purchase.ledger import Ledger, LedgerEntry
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime.trust import Trust

SMALL = {
    "student": {"size": 32},
    "align": {"steps": 60},
    "distill": {"steps": 16, "checkpoint_every": 4, "learning_rate": 1e-3},
    "batch_per_domain": 4,
    "device": "cpu",
    "workers": 0,
}
ONE = Decimal("0.0001")  # the price of a text


@dataclass
class Finished:
    """A copy of a finished run whose teacher charges for texts, with a separate store."""

    run: Path
    storage: StoragePaths
    bench: Bench

    def entries(self) -> list[LedgerEntry]:
        with closing(EmbeddingStore(self.storage.store)) as store:
            return Ledger(store).entries(str(self.run.resolve()))

    def zebras(self) -> list[Path]:
        return sorted((self.bench.data / "rose" / "zebra_stripe").iterdir())


def train(bench: Bench, root: Path) -> None:
    for method in ("adip", "erm"):
        teacher = {"price_per_1000_texts": "0.1"}
        more = {
            "recipe": "paper",
            "method": method,
            "align": {"steps": 60 if method == "adip" else 0},
            "teacher": teacher,
        }
        storage = StoragePaths(bench.root / "cache", root / "vectors.sqlite")
        out, held_out = root / method, ["rose"]
        distill(
            bench.data, bench.teacher, bench.student, out=out, held_out=held_out, budget=1, storage=storage,
            settings=SMALL | more, report=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def trained(bench: Bench, once: Once) -> Path:
    return once("classes", lambda root: train(bench, root))


@pytest.fixture
def finished(bench: Bench, trained: Path, tmp_path: Path) -> Finished:
    shutil.copytree(trained / "adip", tmp_path / "run")
    shutil.copy(trained / "vectors.sqlite", tmp_path / "vectors.sqlite")
    return Finished(tmp_path / "run", StoragePaths(bench.root / "cache", tmp_path / "vectors.sqlite"), bench)


def test_a_class_costs_one_text_query_once(finished: Finished) -> None:
    f = finished
    before = Student.load(f.run)
    assert quote_classes(f.run, ["zebra"], storage=f.storage).cost == ONE
    assert quote_classes(f.run, "zebra", storage=f.storage).cost == ONE, "a text is one name"
    student = add_classes(f.run, ["zebra"], budget=ONE, storage=f.storage)
    assert student.classes == ["bar", "blank", "zebra stripe", "zebra"]
    loaded = Student.load(f.run)
    assert loaded.classes == student.classes
    np.testing.assert_array_equal(loaded.predict_proba(f.zebras()), student.predict_proba(f.zebras()))
    np.testing.assert_array_equal(loaded.embed(f.zebras()), before.embed(f.zebras()))
    (entry,) = f.entries()
    assert (entry.kind, entry.queries, entry.cost, entry.purpose, entry.state) == ("text", 1, ONE, "classes", "kept")
    remove_classes(f.run, ["zebra"])
    np.testing.assert_allclose(Student.load(f.run).predict_proba(f.zebras()), before.predict_proba(f.zebras()))
    add_classes(f.run, ["zebra"], storage=f.storage)  # without a budget, because it is stored
    assert len(f.entries()) == 1


def test_a_resumed_run_does_not_undo_changes_of_classes(finished: Finished) -> None:
    add_classes(finished.run, ["zebra"], budget=ONE, storage=finished.storage)
    before = (finished.run / "student" / "student.json").read_bytes()
    with pytest.raises(RunError, match="classes of this student were changed"):
        distill(out=finished.run, resume=True, storage=finished.storage)
    assert (finished.run / "student" / "student.json").read_bytes() == before


def test_images_of_a_class_that_was_never_trained_are_found(finished: Finished) -> None:
    f = finished
    assert Student.load(f.run).predict(f.zebras()) == ["zebra stripe"] * 10
    remove_classes(f.run, "Zebra_Stripe")
    assert set(Student.load(f.run).predict(f.zebras())) <= {"bar", "blank"}
    add_classes(f.run, ["zebra", "dot"], budget=1, storage=f.storage)
    assert Student.load(f.run).predict(f.zebras()) == ["zebra"] * 10


def test_new_classes_get_an_offset_from_the_validation_images(finished: Finished) -> None:
    f = finished
    plain = add_classes(f.run, ["dot"], share=0, budget=1, storage=f.storage)
    assert plain.offsets == [0.0] * 4
    remove_classes(f.run, ["dot"])
    student = add_classes(f.run, ["dot"], storage=f.storage)
    assert student.offsets[:3] == [0.0] * 3
    assert student.offsets[3] > 0
    assert student.provenance["classes_changed"][-1]["offset"] == student.offsets[3]
    assert Student.load(f.run).offsets == student.offsets


def test_a_share_out_of_range_is_refused_before_a_query(finished: Finished) -> None:
    for share in (-0.1, 0.51, float("nan")):
        with pytest.raises(ConfigError, match=r"from 0 to 0\.5"):
            add_classes(finished.run, ["dot"], share=share, budget=1, storage=finished.storage)
    assert not finished.entries()


def test_without_validation_images_there_is_no_offset_and_a_warning(finished: Finished) -> None:
    (finished.run / "predictions.npz").unlink()
    with pytest.warns(Vl2vWarning, match="no offset"):
        student = add_classes(finished.run, ["dot"], budget=1, storage=finished.storage)
    assert not any(student.offsets)


def test_changes_of_classes_are_recorded(finished: Finished) -> None:
    add_classes(finished.run, ["zebra"], phrases=["grid"], budget=1, storage=finished.storage)
    remove_classes(finished.run, ["bar"])
    known = list_classes(finished.run)
    assert [one.name for one in known] == ["blank", "zebra stripe", "zebra"]
    assert [one.prompts for one in known] == [
        ("a photo of a blank",), ("a photo of a zebra stripe",), ("a photo of a grid",),
    ]  # fmt: skip
    assert [bool(one.added) for one in known] == [False, False, True]
    first, second = Student.load(finished.run).provenance["classes_changed"]
    assert (first["text_queries"], first["cost"]) == (1, "0.0001")
    assert second["removed"] == ["bar"]
    assert second["before"] == ["bar", "blank", "zebra stripe", "zebra"]


def test_too_small_a_budget_is_refused_before_anything_is_sent(finished: Finished) -> None:
    f = finished
    for budget, message in ((None, "--budget 0.0002"), (ONE, "fewer classes")):
        with pytest.raises(BudgetError, match=message):
            add_classes(f.run, ["dot", "grid"], budget=budget, storage=f.storage)
    assert not f.entries()
    assert len(Student.load(f.run).classes) == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["zebra stripe"], "exists already"),
        (["Zebra_Stripe"], "exists already"),
        (["dot", "DOT"], "given twice"),
        ([" "], "needs a name"),
        (["_"], "needs a name"),
        (["a\x00b"], "needs a name"),
        ([], "No class"),
    ],
)
def test_unusable_class_names_are_refused(finished: Finished, names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add_classes(finished.run, names, budget=1, storage=finished.storage)
    assert not finished.entries()


def test_two_classes_of_one_prompt_are_refused(finished: Finished) -> None:
    with pytest.raises(ConfigError, match="is not unique"):
        add_classes(finished.run, ["stripes"], phrases=["bar"], budget=1, storage=finished.storage)


def test_a_class_can_be_removed(finished: Finished) -> None:
    with pytest.raises(StudentError, match=r"no class 'zebr'(.|\n)*one of blank, zebra stripe"):
        remove_classes(finished.run, ["bar", "zebr"])
    with pytest.raises(StudentError, match="the only class"):
        remove_classes(finished.run, ["bar", "blank", "zebra stripe"])
    assert len(Student.load(finished.run).classes) == 3


def test_a_linear_classifier_is_refused_with_the_reason(trained: Path, bench: Bench) -> None:
    for work in (add_classes, remove_classes):
        with pytest.raises(StudentError, match=r"linear classifier \(erm\)(.|\n)*train with the default method"):
            work(trained / "erm", ["blank"])


def test_another_teacher_is_refused(finished: Finished, tmp_path: Path) -> None:
    arrays = dict(np.load(finished.bench.teacher.removeprefix("file:")))
    turned = np.roll(arrays["text_embeddings"], 1, axis=0)
    changes = {
        "other": {"identity": "another", "text_embeddings": arrays["text_embeddings"]},
        "turned": {"text_embeddings": turned},
    }
    for name, change in changes.items():
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "teacher.npz", **(arrays | change))
        with pytest.raises(TeacherError, match="not the student's teacher"):
            add_classes(
                finished.run, ["dot"], budget=1, storage=finished.storage, teacher=f"file:{folder / 'teacher.npz'}"
            )


def test_a_teacher_file_with_an_added_text_is_the_same_teacher(finished: Finished, tmp_path: Path) -> None:
    arrays = dict(np.load(finished.bench.teacher.removeprefix("file:")))
    arrays["texts"] = np.append(arrays["texts"], "a photo of a horse")
    arrays["text_embeddings"] = np.concatenate([arrays["text_embeddings"], np.ones((1, 16), np.float32)])
    (tmp_path / "new").mkdir()
    np.savez(tmp_path / "new" / "teacher.npz", **arrays)
    teacher = f"file:{tmp_path / 'new' / 'teacher.npz'}"
    student = add_classes(finished.run, ["horse"], budget=1, storage=finished.storage, teacher=teacher)
    assert student.classes[-1] == "horse"


def test_a_kill_between_the_two_files_leaves_a_valid_student(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    f = finished
    with monkeypatch.context() as patched:
        patched.setattr("vl2v.student.files.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            add_classes(f.run, ["zebra"], budget=1, storage=f.storage)
    assert "zebra" not in json.loads((f.run / "student" / "student.json").read_text())["classes"]
    student = Student.load(f.run)
    assert student.classes[-1] == "zebra"
    assert student.head is not None
    assert len(student.head) == len(student.offsets) == 4
    assert list_classes(f.run)[-1].added
    remove_classes(f.run, ["zebra"])
    assert len(Student.load(f.run).classes) == 3


def test_a_kill_before_the_student_is_written_costs_nothing_twice(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = finished
    with monkeypatch.context() as patched:
        patched.setattr(Student, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add_classes(f.run, ["zebra"], budget=1, storage=f.storage)
    assert len(Student.load(f.run).classes) == 3
    add_classes(f.run, ["zebra"], storage=f.storage)
    assert len(f.entries()) == 1


@pytest.mark.slow
def test_exported_files_and_trust_change_too(finished: Finished) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    import vl2v_runtime
    from vl2v.onnx_export.onnx import to_onnx

    f = finished
    before = Student.load(f.run)
    assert before.trust is not None
    folder = f.run / "export"
    folder.mkdir()
    onnx.save(to_onnx(before), folder / "model.onnx")
    (folder / "export.json").write_text('{"files": {"model.onnx": {"accuracy": 1.0}}}')
    student = add_classes(f.run, ["zebra"], budget=1, storage=f.storage)
    model = vl2v_runtime.load(folder)
    assert list(model.classes) == student.classes
    assert model.metadata.provenance["classes_changed"] == student.provenance["classes_changed"]
    logits = student.logits(student.project(f.zebras()))
    np.testing.assert_allclose(model.logits(f.zebras()), logits.numpy(), atol=1e-3)
    noted = json.loads((folder / "export.json").read_text())
    assert noted["files"] == {"model.onnx": {"accuracy": 1.0}}
    assert "classes before" in noted["classes_changed"]["note"]
    for trust in (Student.load(f.run).trust, Trust.from_dict(model.metadata.trust or {})):
        assert trust is not None
        assert trust.temperature == before.trust.temperature
        assert trust.calibration == {**before.trust.calibration, "classes_changed": 1}


def test_the_commands_add_and_remove_classes(finished: Finished) -> None:
    f = finished
    store = ["--store", str(f.storage.store)]
    quoted = json.loads(vl2v("classes", "add", str(f.run), "zebra", "--quote", "--json", *store).stdout)
    assert (quoted["text_queries"], quoted["cost"]) == (1, "0.0001")
    added = vl2v("classes", "add", str(f.run), "zebra", "--budget", "0.0001", *store)
    assert "added zebra: a photo of a zebra" in added.stdout, added.stderr
    removed = json.loads(vl2v("classes", "remove", str(f.run), "bar", "--json").stdout)
    assert removed["classes"] == ["blank", "zebra stripe", "zebra"]
