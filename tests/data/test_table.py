"""Tables of images in every format equal the same images in folders; all faults are in one list, with rows."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pictures import folder_of, put

from vl2v.config import DataConfig
from vl2v.data.contents import Contents
from vl2v.data.folder import DomainFolder
from vl2v.data.images import ImageDataset
from vl2v.data.listing import FaultyDataError
from vl2v.data.table import TableListing
from vl2v.data.tables.base import open_table
from vl2v.data.tables.frame import write_frame
from vl2v.data.tables.imported import name_of
from vl2v.errors import ConfigError, DataError
from vl2v.locations import locations_in
from vl2v.planning.prepare import list_folder, with_columns
from vl2v.progress import Recorder, Silent
from vl2v.sources.importing import PathTable, import_records

Rows = list[dict[str, Any]]


def rows_of(root: Path) -> Rows:
    files = sorted(root.rglob("*.png"), reverse=True)  # in another order than a folder's
    return [{"path": f.relative_to(root).as_posix(), "species": f.parts[-2], "camera": f.parts[-3]} for f in files]


def write_csv(path: Path, rows: Rows, **options: Any) -> Path:
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


FORMATS: dict[str, Callable[[Path, Rows], Path]] = {
    "comma.csv": write_csv,
    "semicolon.csv": lambda path, rows: write_csv(path, rows, delimiter=";"),
    "excel.csv": lambda path, rows: write_csv(path, rows, encoding="utf-8-sig", lineterminator="\r\n"),
    "quoted.csv": lambda path, rows: write_csv(path, rows, quoting=csv.QUOTE_ALL),
    "tabs.tsv": lambda path, rows: write_csv(path, rows, delimiter="\t"),
    "unicode.tsv": lambda path, rows: write_csv(path, rows, delimiter="\t", encoding="utf-16"),
    "lines.jsonl": write_jsonl,
    "table.parquet": write_parquet,
}


def same(actual: ImageDataset, expected: ImageDataset) -> bool:
    arrays = all((getattr(actual, a) == getattr(expected, a)).all() for a in ("digests", "labels", "domain_of"))
    names = all(getattr(actual, name) == getattr(expected, name) for name in ("paths", "domains", "folders", "phrases"))
    return arrays and names and actual.digest() == expected.digest()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_equals_the_folder(tmp_path: Path, name: str) -> None:
    root = folder_of(tmp_path, classes=("cat", "wild dog"))
    expected = DomainFolder(root).scan()
    table = FORMATS[name](root / name, rows_of(root))
    listed = list_folder(DataConfig(root=table))
    assert same(listed.scan(), expected)
    lines = Contents.of(listed.scan()).lines()
    assert lines[0] == f"{table}: 2 domains, 2 classes, 8 images"
    assert lines[1] == "  image: column path, label: column species, domain: column camera"


def test_absolute_paths_and_paths_above_the_table_are_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data")
    expected = DomainFolder(root).scan()
    rows = rows_of(root)
    inside = [row | {"path": f"{root}/./{row['path']}"} for row in rows]
    assert same(TableListing(write_csv(root / "inside.csv", inside)).scan(), expected)
    (tmp_path / "tables").mkdir()
    above = [row | {"path": f"../data/{row['path']}"} for row in rows]
    dataset = TableListing(write_csv(tmp_path / "tables" / "above.csv", above)).scan()
    assert (dataset.digests == expected.digests).all()
    assert dataset.read(0) == expected.read(0)
    assert dataset.digest() != expected.digest(), "other paths are other data"


def test_without_a_column_there_is_one_domain(tmp_path: Path) -> None:
    root = tmp_path / "animals"
    for i, name in enumerate(("cat", "dog")):
        put(root / name / "a.png", 2 * i)
        put(root / name / "b.png", 2 * i + 1)
    rows = [{"path": f"{c}/{f}.png", "class": c, "camera": f} for c in ("dog", "cat") for f in "ab"]
    table = write_csv(root / "t.csv", rows)
    for none in ("none", ""):
        assert same(TableListing(table, columns={"domain": none}).scan(), DomainFolder(root).scan())
    assert TableListing(table).domains == ("a", "b")
    noted = with_columns(DataConfig(root=table, domain="none"))
    assert (noted.image, noted.label, noted.domain, noted.folder) == ("path", "class", "", root)


def test_a_row_that_moves_to_another_domain_changes_the_digest(tmp_path: Path) -> None:
    rows = []
    for i, (name, kind, domain) in enumerate(
        zip("abcdef", ["cat"] * 2 + ["dog"] * 4, ["d0"] * 4 + ["d1"] * 2, strict=True)
    ):
        put(tmp_path / f"{name}.png", i)
        rows.append({"path": f"{name}.png", "label": kind, "domain": domain})
    first, second = (
        TableListing(write_csv(tmp_path / "t.csv", each), allow_missing_classes=True).scan()
        for each in (rows, [row | {"domain": "d1"} if row["path"] == "d.png" else row for row in rows])
    )
    assert first.paths == second.paths
    assert (first.labels == second.labels).all()
    assert first.digest() != second.digest()


def test_images_without_labels_are_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    rows = [{"file": row["path"], "site": row["camera"]} for row in rows_of(root)]
    table = write_csv(root / "t.csv", rows)
    dataset = list_folder(DataConfig(root=table, classes=("cat", "dog"))).scan()
    assert dataset.names == ("cat", "dog")
    assert (dataset.labels == -1).all()
    assert dataset.domains == ("art", "photo")
    with pytest.raises(ConfigError, match="no effect with --classes"):
        list_folder(DataConfig(root=table, classes=("cat", "dog"), label="site"))


def test_class_names_in_the_metadata_of_parquet_are_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    rows = [row | {"species": ("cat", "dog").index(row["species"])} for row in rows_of(root)]
    features = {"info": {"features": {"species": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, root / "t.parquet")
    assert TableListing(root / "t.parquet").scan().folders == ("cat", "dog")


class Columnar:
    """The common interface of pandas and polars that vl2v uses."""

    def __init__(self, rows: Rows, method: str) -> None:
        self._rows, self._method, self.columns = rows, method, list(rows[0])

    def __getitem__(self, name: str) -> Any:
        values = [row[name] for row in self._rows]
        return type("Series", (), {self._method: lambda _: values})()


@pytest.mark.parametrize("kind", ["pyarrow", "to_list", "tolist"])
def test_frames_are_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    as_path = str if kind == "pyarrow" else Path
    rows: Rows = [row | {"path": as_path(f"data/{row['path']}"), "vector": [1.0]} for row in rows_of(root)]
    frame = pa.Table.from_pylist(rows) if kind == "pyarrow" else Columnar(rows, kind)
    table = write_frame(frame, tmp_path / "tables", {"label": "species"})
    assert table == write_frame(frame, tmp_path / "tables", {"label": "species"})
    assert (name_of(table), TableListing(table).source) == ("the frame", Path("the frame"))
    assert [p.name for p in (tmp_path / "tables").iterdir()] == [table.name]
    assert "vector" not in table.read_text(), "columns that are not used stay where they are"
    expected = DomainFolder(root).scan()
    dataset = TableListing(table, columns={"label": "species"}).scan()
    assert (dataset.digests == expected.digests).all()
    assert dataset.domains == expected.domains


def test_errors_are_explained_for_a_frame_that_has_no_truth_value(tmp_path: Path) -> None:
    class Pandas(Columnar):
        def __bool__(self) -> bool:
            raise ValueError("the truth value of a frame is ambiguous")

    locations = locations_in({"data": Pandas([{"path": "a.png"}], "tolist"), "out": tmp_path})
    assert tmp_path in [location.path for location in locations]


def test_missing_values_of_frames_are_faults_and_other_objects_are_refused(tmp_path: Path) -> None:
    rows: Rows = [{"path": "a.png", "label": float("nan")}, {"path": None, "label": "cat"}]
    table = write_frame(Columnar(rows, "tolist"), tmp_path, {})
    with pytest.raises(FaultyDataError) as caught:
        TableListing(table)
    assert [(f.where, f.problem) for f in caught.value.faults] == [
        ("line 1", "no label in the column label"),
        ("line 2", "no image in the column path"),
    ]
    for frame in (5, type("LazyFrame", (), {"columns": ["path"], "__getitem__": None})()):
        with pytest.raises(ConfigError, match="neither a path nor a frame"):
            write_frame(frame, tmp_path, {})
    with pytest.raises(ConfigError, match="no such column"):
        write_frame(Columnar(rows, "tolist"), tmp_path, {"label": "klass"})


def faults(table: Path, **options: Any) -> dict[str, str]:
    with pytest.raises(FaultyDataError) as caught:
        TableListing(table, **options).scan()
    return {fault.where: fault.problem for fault in caught.value.faults}


def test_all_faults_of_rows_are_in_one_list(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    good = [f"{r['path']},{r['species']},{r['camera']}" for r in rows_of(root)]
    (root / "notes.txt").write_text("not an image")
    bad = [
        ",cat,art",
        "art/cat/0.png,,art",
        "art/cat/1.png,cat,",
        "art/cat/1.png,cat,",
        "gone.png,cat,art",
        "notes.txt,cat,art",
        "https://example.org/a.png,cat,art",
        "art/cat/0.png,cat,art,more",
        "art/cat/0.png",
        '"art/cat"/0.png,cat,art',
        "",
        "art,cat,art",
        "art/cat/1.png,dog,art",
        "art/dog/0.png,dog,photo",
    ]
    table = root / "t.csv"
    table.write_text("\n".join(["path,species,camera", *good, *bad]), encoding="utf-8")
    with table.open("ab") as file:
        file.write(b"\nart/cat/0.png,ch\xe8vre,art\nart/cat/0.png,c\x1b[1mat,art")
    messages = faults(table)
    expected = {
        "row 10": "no image in the column path",
        "row 11": "no label in the column species",
        "rows 12, 13": "no domain in the column camera",
        "row 14: gone.png": "cannot be read (No such file or directory)",
        "row 15: notes.txt": None,
        "row 16": "an address in place of a path in the column path",
        "row 17": "more than the 3 values that the first row names",
        "row 18": "fewer than the 3 values that the first row names",
        "row 19": None,
        "row 21: art": None,
        "row 22": "a file that another row lists with different classes",
        "row 23": "a file that another row lists with different domains",
        "row 24": "a text that is not UTF-8 in the column species",
        "row 25": "a label that cannot be shown in the column species",
    }
    assert set(messages) == set(expected)
    assert all(messages[where] == message for where, message in expected.items() if message)
    assert "not CSV" in messages["row 19"]


def test_many_faults_of_one_kind_are_counted(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    rows = [*rows_of(root), *[{"path": f"{i}.png", "species": "", "camera": "art"} for i in range(1000)]]
    messages = faults(write_csv(root / "t.csv", rows))
    assert messages == {
        f"rows {', '.join(map(str, range(10, 30)))} and 980 more": "no label in the column species",
    }


def test_files_that_are_all_missing_are_one_fault(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data")
    table = write_csv(tmp_path / "t.csv", rows_of(root))
    ((where, problem),) = faults(table).items()
    assert where == "column path"
    assert problem.startswith("none of the 8 files exists, such as art/cat/0.png")


def test_bad_files_can_be_skipped_and_repeated_rows_count_once(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    rows = rows_of(root)
    table = write_csv(root / "t.csv", [*rows, rows[0], {"path": "gone.png", "species": "cat", "camera": "photo"}])
    dataset = TableListing(table).scan(skip_bad=True)
    assert len(dataset) == 8
    assert [fault.where for fault in dataset.skipped] == ["row 11: gone.png"]
    assert "1 row repeats another; repeated rows count once" in dataset.warnings


class Console(Silent):
    """Progress whose warnings are not Python warnings."""

    def warn(self, text: str) -> None:
        pass


NAME_IT = "is not used: name it with --split to use its split"
NUMBERS = "is not used, since it has numbers: --split takes a column of train, validation and test"


@pytest.mark.parametrize(
    ("column", "values", "hint"),
    [
        ("Split", ("train", ""), NAME_IT),
        ("fold", ("train", "VAL"), NAME_IT),
        ("data set", ("train", "test"), NAME_IT),
        ("Partition", ("dev", "training"), NAME_IT),
        ("fold", ("0", "3"), NUMBERS),
        ("set", ("1", "2"), ""),
        ("subset", ("photos", "test"), ""),
        ("mode", ("train", "test"), ""),
        ("split", ("", ""), ""),
    ],
)
def test_a_split_column_that_is_not_used_gets_a_hint(
    tmp_path: Path, column: str, values: tuple[str, str], hint: str
) -> None:
    root = folder_of(tmp_path)
    rows = [row | {column: values[i % 2]} for i, row in enumerate(rows_of(root))]
    table = write_csv(root / "t.csv", rows)
    expected = [f"the column {column} {hint}"] if hint else []
    assert TableListing(table).warnings == expected
    if all(values):
        assert TableListing(table, columns={"group": column}).warnings == []
    framed, imported = Recorder(Console()), Recorder(Console())
    write_frame(Columnar(rows, "tolist"), tmp_path / "tables", {}, framed)
    import_records(PathTable(table), str(table), tmp_path / "imported", {}, imported)
    assert framed.warnings == imported.warnings == expected


@pytest.mark.parametrize(
    ("change", "where", "problem"),
    [
        (lambda row: row | {"species": "cat"}, "'cat' of art (row 6)", "the only class"),
        (
            lambda row: row | {"species": str(len(row["species"] + row["path"]) % 2)},
            "column species",
            "numbers instead",
        ),
        (lambda row: row | {"camera": "art"} if "dog" in row["path"] else row, "photo", "no image of class 'dog'"),
        (
            lambda row: row | {"camera": "Test" if row["camera"] == "art" else "train"},
            "column camera",
            "read as domains",
        ),
        (
            lambda row: row | {"species": "val" if row["species"] == "cat" else "train"},
            "column species",
            "read as class",
        ),
        (
            lambda row: row | {"species": row["species"].title() if "art" in row["path"] else row["species"]},
            "'Cat' of art (row 8), 'cat' of photo (row 4)",
            "two spellings of one class",
        ),
    ],
)
def test_inconsistent_classes_are_refused(tmp_path: Path, change: Callable[..., Any], where: str, problem: str) -> None:
    root = folder_of(tmp_path)
    rows = [change(row) for row in rows_of(root)]
    if problem.startswith("numbers"):
        rows = [row | {"species": str(i % 2)} for i, row in enumerate(rows)]
    messages = faults(write_csv(root / "t.csv", rows))
    assert where in messages, messages
    assert problem in messages[where]


def test_numbers_are_accepted_as_labels_if_named_or_confirmed(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    rows = [row | {"species": {"cat": 0, "dog": 1}[row["species"]]} for row in rows_of(root)]
    table = write_parquet(root / "t.parquet", rows)
    assert "numbers instead of class names" in faults(table)["column species"]
    assert TableListing(table, as_found=True).scan().folders == ("0", "1")
    (root / "classes.yaml").write_text("0: cat\n1: dog\n")
    assert TableListing(table).scan().phrases == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["2024-01-01", "2024-01-02"], "values instead of class names, such as 2024-01-01, 2024-01-02"),
        (["2024-01-01T10:00:00", "2024-01-02 10:00"], "values instead of class names"),
        (["True", "false"], "values instead of class names"),
        (["1", "2024-01-02", "TRUE"], "values instead of class names"),
        (["-3", "1e5", "5%", "0x1F"], "values instead of class names"),
        (["01/01/2024", "2/1/2024", "1.1.2024"], "values instead of class names"),
        (["12:00", "9:15:30"], "values instead of class names"),
        (["yes", "No"], "values instead of class names"),
        (["cat", "dog", "nan"], "probably missing values, read as a class: nan"),
        (["cat", "dog", "#N/A"], "probably missing values"),
        (["01", "1", "dog"], "two spellings of one number: 01, 1"),
        (["1", "1.0", "dog"], "two spellings of one number"),
        (["cat", "dog", "Cat; dog"], "several classes in one cell: Cat; dog"),
    ],
)
def test_labels_that_are_not_names_are_reported(tmp_path: Path, labels: list[str], message: str) -> None:
    table = relabelled(tmp_path, "species", labels)
    assert message in faults(table)["column species"]
    accepted = TableListing(table, as_found=True, allow_missing_classes=True)
    assert any(message in warning for warning in accepted.warnings)


@pytest.mark.parametrize("labels", [["7", "queen"], ["v1.0", "v1"], ["black,white", "red"], ["nan bread", "dog"]])
def test_labels_that_are_names_are_accepted(tmp_path: Path, labels: list[str]) -> None:
    assert not TableListing(relabelled(tmp_path, "species", labels)).scan().warnings


@pytest.mark.parametrize("names", [("In", "in"), ("caf\u00e9", "cafe\u0301"), ("cam-1", "cam_1"), ("1", "1.0")])
def test_two_spellings_of_a_domain_are_a_fault(tmp_path: Path, names: tuple[str, str]) -> None:
    """Otherwise one would be held out and the other one trained on."""
    table = relabelled(tmp_path, "camera", list(names))
    problem = faults(table)[", ".join(sorted(names))]
    assert problem.startswith("two spellings of one domain")
    assert ("Unicode form" in problem) == (not names[0].isascii())
    assert TableListing(table, as_found=True).domains == tuple(sorted(names))


def relabelled(folder: Path, column: str, values: list[str]) -> Path:
    """Return a table with other values in a column, so that every class is in every domain."""
    root = folder_of(folder, each=2 * len(values))
    rows = [row | {column: values[i % len(values)]} for i, row in enumerate(rows_of(root))]
    return write_csv(root / "t.csv", rows)


def test_blank_rows_and_blanks_around_names_are_ignored(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    plain = write_csv(root / "t.csv", rows_of(root)).read_text().replace("species", " species ")
    (root / "t.csv").write_text(f"\n,,\n{plain}gone.png,cat,phone\n")
    with pytest.raises(FaultyDataError) as caught:
        TableListing(root / "t.csv", columns={"label": "species "}).scan()
    assert any(f.where == f"row {len(rows_of(root)) + 4}: gone.png" for f in caught.value.faults)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_json_lines_are_read_in_the_encodings_of_csv(tmp_path: Path, encoding: str) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"path": "\u00e9.png", "label": "cat"}\n', encoding=encoding)
    (row,) = open_table(table).rows(["path"])
    assert row == (1, ("\u00e9.png",))
    table.write_text(table.read_text(encoding=encoding), encoding="utf-32")
    with pytest.raises(DataError, match="not text"):
        open_table(table)


def test_a_column_of_captions_or_urls_is_one_fault(tmp_path: Path) -> None:
    root = folder_of(tmp_path, each=8)
    rows = [row | {"species": f"a photo {i}"} for i, row in enumerate(rows_of(root))]
    assert faults(write_csv(root / "t.csv", rows))["column species"] == "32 different values for 32 images"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no image"),
        (b"path,label\n", "lists no image"),
        (b"art/cat/0.png,cat\nart/cat/1.png,cat\n", "does not name columns"),
        ("path,label\na.png,cat".encode("utf-16-le"), "is not text"),
        (b"PK\x03\x04\0\0\0\0", "is not text"),
        (b"\xff\xfep\0a", "cannot be read"),
        (b'path,label\n"a.png,cat\n', "not CSV"),
        (b"name,kind\na.png,cat\n", "no column is recognised as the image: name it with --image"),
        (b"path,kind\na.png,cat\n", "no column is recognised as the label: name it with --label"),
        (b"path,label,label\na.png,cat,dog\n", "two columns are called label"),
        (b"path,label,label\na.png,cat,dog\n", "next: rename one of the columns called label"),
        (b"path\tlabel\tpath\na.png\tcat\tdog\n", "next: rename one of the columns called path"),
    ],
)
def test_files_that_are_not_tables_of_images_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    with pytest.raises((DataError, ConfigError)) as caught:
        TableListing(table)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'[{"path": "a.png"}]', "not an object, but a list"),
        ("t.jsonl", b'{"path": "a.png", "label": ["cat"]}', "a list in the column label"),
        ("t.jsonl", b'{"path": "a.png", "label": "cat"', "not JSON"),
        ("t.jsonl", b'{"path": "a.png", "label": "cat", "label": "dog"}', "the key label twice"),
        ("t.jsonl", b'{"path": "\\ud800.png", "label": "cat"}', "not UTF-8"),
        ("t.jsonl", b'{"path": "a\\u0000.png", "label": "cat"}', "a NUL character"),
        ("t.parquet", b"PAR1", "cannot be read"),
        ("t.json", b"[]", "is not a folder"),
        ("t.xlsx", b"PK", "is not a folder"),
    ],
)
def test_damaged_files_of_other_formats_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    table = tmp_path / name
    table.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list_folder(DataConfig(root=table)).scan()
    assert message in str(caught.value)


def test_a_repeated_key_of_json_lines_matters_only_in_a_used_column(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    lines = [json.dumps(row)[:-1] + ', "note": 1, "note": {"a": 2, "a": 3}}' for row in rows_of(root)]
    (root / "t.jsonl").write_text("\n".join(lines))
    assert not TableListing(root / "t.jsonl").faults
    (root / "t.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:-1] + ', "camera": "art"}']))
    assert faults(root / "t.jsonl")[f"line {len(lines)}"] == "the key camera twice"


def test_images_in_the_table_itself_are_refused(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"1234", "path": None}, "label": "cat"}]
    with pytest.raises(FaultyDataError, match="an image's bytes in the column image"):
        TableListing(write_parquet(tmp_path / "t.parquet", rows))


def test_unknown_columns_are_reported_with_the_existing_ones(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", [{"path": "a.png", "species": "cat", "camera": "x"}])
    with pytest.raises(ConfigError) as caught:
        TableListing(table, columns={"image": "pth", "label": "klass", "domain": "camera"})
    assert "--image pth: no such column; path?; --label klass: no such column" in str(caught.value)
    assert "there are: path, species, camera" in str(caught.value)
    with pytest.raises(ConfigError, match="used for two things"):
        TableListing(table, columns={"label": "camera", "domain": "camera"})


def test_columns_are_refused_for_folders_and_domain_folders_for_tables(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    with pytest.raises(ConfigError, match="only a table has columns"):
        list_folder(DataConfig(root=root, label="species"))
    table = write_csv(root / "t.csv", rows_of(root))
    with pytest.raises(ConfigError, match="--domain-column COLUMN"):
        list_folder(DataConfig(root=table, classes=("cat", "dog"), domain_folders=True))
    shutil.move(table, root / "gone.csv")
    with pytest.raises(DataError, match="is not a file"):
        list_folder(DataConfig(root=table))


def test_quoted_newlines_and_a_stated_delimiter_are_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path, classes=("cat", "wild dog"))
    rows = [row | {"species": row["species"].replace(" ", "\n")} for row in rows_of(root)]
    table = write_csv(root / "t.csv", [*rows, {"path": "gone.png", "species": "cat", "camera": "art"}], delimiter=";")
    table.write_text("sep=;\n" + table.read_text())
    dataset = TableListing(table).scan(skip_bad=True)
    assert dataset.folders == ("cat", "wild dog")
    assert dataset.skipped[0].where == "row 11: gone.png", "with the two rows above it, line breaks not counted"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_long_table_is_listed_without_an_object_per_row(tmp_path: Path, name: str) -> None:
    count = 3000
    rows = [{"path": f"{i:05d}.png", "label": ("cat", "dog")[i % 2], "domain": f"d{i % 3}"} for i in range(count)]
    write = {"t.csv": write_csv, "t.jsonl": write_jsonl, "t.parquet": write_parquet}[name]
    listed = TableListing(write(tmp_path / name, rows))
    assert len(listed.paths) == count
    assert listed.paths[:2] == ["00000.png", "00006.png"], "domain d0, class cat"
    long_values = [value for value in vars(listed).values() if hasattr(value, "__len__") and len(value) >= count]
    assert [type(value) for value in long_values] == [np.ndarray]
