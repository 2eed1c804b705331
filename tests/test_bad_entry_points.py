"""Wrong tables, datasets of other tools and options give messages with expected, found and next step."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from command_line import run_cli
from vl2v.config import RunConfig
from vl2v.validation import parse

Words = Sequence[str]
Rows = list[tuple[str, ...]]
HEAD = ("path", "species", "camera", "fold", "clip")
SETTINGS = ("Input should be", "(found ", "next: ")
PARTS = ("expected: ", "found: ", "next: ")
FAULTS = ("nothing was bought or trained", "\n      ")
USAGE = ("is empty", "Give a value")


@dataclass
class Workspace:
    """A folder of images, and files that are written into it."""

    root: Path

    @property
    def rows(self) -> Rows:
        return [
            (f"{domain}/{kind}/{i}.png", kind, domain, "train" if i < 3 else "test", f"{domain}{kind}{i}")
            for domain in ("ink", "rose")
            for kind in ("cat", "dog")
            for i in range(5)
        ]

    def file(self, name: str, content: bytes | str) -> str:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def json(self, name: str, content: object) -> str:
        return self.file(name, json.dumps(content))

    def table(self, name: str, rows: Rows | None = None, head: Sequence[str] = HEAD) -> str:
        rows = self.rows if rows is None else rows
        return self.file(name, "\n".join(",".join(row) for row in (head, *rows)))

    def tar(self, name: str, entries: dict[str, bytes]) -> str:
        with tarfile.open(self.root / name, "w") as archive:
            for entry, data in entries.items():
                info = tarfile.TarInfo(entry)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return str(self.root / name)

    def saved(self, name: str, **files: str) -> str:
        """Write a folder like the package datasets, with some of its files."""
        for file, content in {"state": "{}", "dataset_info": "{}", **files}.items():
            self.file(f"{name}/{file}.json", content)
        return str(self.root / name)

    @property
    def png(self) -> bytes:
        return (self.root / "data" / "ink" / "cat" / "0.png").read_bytes()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("world"))
    for path, kind, domain, _, clip in workspace.rows:
        for folder in (workspace.root, workspace.root / "data"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (int(clip[-1]), len(domain), ord(kind[0]))).save(folder / path)
    quote(workspace, str(workspace.root / "data"), "--prompts", "{")  # imports, for seconds
    return workspace


def quote(workspace: Workspace, *words: str) -> tuple[int, str]:
    base = [
        "--teacher", "offline:", "--student", "offline:", "--cache", str(workspace.root / "c"),
        "--store", str(workspace.root / "s"), "-q",
    ]  # fmt: skip
    done = run_cli("quote", *words, *base)
    return done.returncode, done.stdout + done.stderr


def check(code: int, text: str, parts: Sequence[str], named: Sequence[str]) -> None:
    assert code in (2, 3, 8), text
    words = " ".join(text.replace("│", " ").split())
    for part in (*parts, *named):
        assert part in (text if part.startswith("\n") else words), (part, text)
    assert "Traceback" not in text
    assert "Unexpected" not in text
    assert "Errno" not in text
    assert "\x1b" not in text
    assert len(text) < 2500, len(text)


def task(**more: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": "ink/cat/0.png"}, **more}


BOX = {"type": "rectanglelabels", "from_name": "x", "value": {"rectanglelabels": ["cat"]}}


TABLES: dict[str, Any] = {
    "image and label": lambda w: ([w.table("t.csv"), "--image", "species", "--label", "species"], PARTS,
                                  ["--image and --label", "species"]),
    "label is the image": lambda w: ([w.table("t.csv"), "--label", "path"], PARTS, ["--image and --label", "path"]),
    "split is the label": lambda w: ([w.table("t.csv"), "--split", "species"], PARTS, ["--label and --split"]),
    "group is the domain": lambda w: ([w.table("t.csv"), "--group", "camera"], PARTS, ["--domain-column and --group"]),
    "capital letters": lambda w: ([w.table("t.csv"), "--label", "Species"], PARTS, ["--label Species", "species?"]),
    "a number": lambda w: ([w.table("t.csv"), "--label", "2"], PARTS, ["--label 2: no such column", "clip"]),
    "a control character": lambda w: ([w.table("t.csv"), "--group", "cl\x1bip"], PARTS, ["--group cl\\x1bip"]),
    "a long name": lambda w: ([w.table("t.csv"), "--image", "x" * 5000], PARTS, ["--image xxx", "..."]),
    "long names of columns": lambda w: (
        [w.table("l.csv", head=("y" * 4000, *HEAD[1:])), "--image", "path"], PARTS, ["--image path: no such column"]
    ),
    "two columns of a name": lambda w: (
        [w.table("d.csv", head=("path", "species", "species", "fold", "clip"))], PARTS, ["--label: two columns"]
    ),
    "only paths": lambda w: ([w.table("o.csv", [(r[0],) for r in w.rows], ("path",))], PARTS, ["--label", "path"]),
    "a group that is empty": lambda w: (
        [w.table("g.csv", [(*r[:4], "") for r in w.rows]), "--group", "clip"], FAULTS, ["rows 2, 3", "column clip"]
    ),
    "a split that is none": lambda w: (
        [w.table("t.csv"), "--split", "clip"], FAULTS, ["rows 2, 3", "train, validation or test", "column clip"]
    ),
    "a path that is an object": lambda w: (
        [w.json("n.jsonl", {"path": {"a": 1}, "label": "x"})], FAULTS, ["line 1", "column path", "as a text"]
    ),
    "a class that is a number": lambda w: (
        [w.file("n2.jsonl", "\n".join(json.dumps({"path": r[0], "label": i % 2}) for i, r in enumerate(w.rows)))],
        FAULTS, ["column label", "--label"],
    ),
    "a list in JSON lines": lambda w: ([w.json("a.jsonl", [{"path": "a"}])], PARTS, ["a.jsonl", "every line"]),
    "a spreadsheet": lambda w: ([w.file("t.xlsx", b"PK\x03\x04")], PARTS, ["t.xlsx", "as .csv"]),
    "a text file": lambda w: ([w.file("t.txt", "path,label\n")], PARTS, ["t.txt", "as .csv"]),
    "columns of a folder": lambda w: ([str(w.root / "data"), "--group", "clip"], PARTS, ["data.group", "a folder"]),
    "ftp": lambda w: (
        [w.table("f.csv", [("ftp://h/a.png", *r[1:]) for r in w.rows])], PARTS, ["row 2: ", "the scheme ftp", "https"]
    ),
    "a closed port": lambda w: (
        [w.table("p.csv", [(f"http://127.0.0.1:1/{i}.png", *r[1:]) for i, r in enumerate(w.rows[:2])])],
        PARTS, ["row 2: ", "127.0.0.1:1/0.png", "--skip-bad"],
    ),
    "a file as an address": lambda w: (
        [w.table("i.csv", [("file://server/0.png", *r[1:]) for r in w.rows])], PARTS, ["row 2: ", "the scheme file"]
    ),
}  # fmt: skip

SOURCES: dict[str, Any] = {
    "https": lambda _: (["https://example.org/images"], PARTS, ["scheme https", "a table (.csv)"]),
    "a table at an address": lambda _: (["https://example.org/t.csv"], PARTS, ["scheme https"]),
    "s3": lambda _: (["s3://bucket/images"], PARTS, ["scheme s3", "a table (.csv)"]),
    "ftp": lambda _: (["ftp://example.org/t.csv"], PARTS, ["scheme ftp"]),
    "hf: alone": lambda _: (["hf:"], PARTS, ["hf:", "hf:user/name"]),
    "hf: with a space": lambda _: (["hf:a b/c"], PARTS, ["hf:a b/c", "hf:user/name"]),
    "hf: of a path": lambda _: (["hf:../../etc"], PARTS, ["hf:../../etc", "hf:user/name"]),
    "no list of files": lambda w: ([w.saved("s1")], PARTS, ["state.json", "a list of data files"]),
    "a broken state": lambda w: ([w.saved("s2", state="{broken")], PARTS, ["s2/state.json", "JSON"]),
    "a split that is missing": lambda w: (
        [str(Path(w.json("s3/dataset_dict.json", {"splits": ["train"]})).parent)], PARTS,
        ["s3/train/state.json", "No such file"],
    ),
    "a file that is missing": lambda w: (
        [w.saved("s4", state='{"_data_files": [{"filename": "a.arrow"}]}')], PARTS, ["a.arrow"]
    ),
    "an empty folder": lambda w: ([str(Path(w.file("empty/.x", "")).parent)], PARTS, ["empty", "class folders"]),
    "no tar": lambda w: ([w.file("n.tar", "no tar")], PARTS, ["n.tar", "a tar file"]),
    "an empty tar": lambda w: ([w.file("z.tar", b"")], PARTS, ["z.tar", "a tar file"]),
    "a broken archive": lambda w: ([w.file("g.tar.gz", b"\x1f\x8b" + bytes(50))], PARTS, ["g.tar.gz", "a tar file"]),
    "no shard": lambda w: ([str(w.root / "none-*.tar")], PARTS, ["none-*.tar", "the pattern"]),
    "half a range": lambda w: ([str(w.root / "p-{000..}.tar")], PARTS, ["p-{000..}.tar", "the pattern"]),
    "no classes in a tar": lambda w: ([w.tar("c.tar", {"1.png": w.png})], PARTS, ["c.tar", "--label"]),
    "classes that are no text": lambda w: (
        [w.tar("b.tar", {"1.png": w.png, "1.cls": b"\xff\xfe"})], PARTS, ["row 1: ", "UTF-8", ".cls"]
    ),
    "boxes of Label Studio": lambda w: (
        [w.json("b.json", [task(annotations=[{"result": [BOX]}])])], PARTS, ["b.json", "row 1: ", "rectanglelabels"]
    ),
    "no annotations": lambda w: ([w.json("u.json", [task(annotations=[])])], PARTS, ["row 1: ", "no annotation"]),
    "an export that is cut": lambda w: ([w.file("k.json", json.dumps([task()])[:-1])], PARTS, ["k.json", "again"]),
    "an object": lambda w: ([w.json("o.json", {"a": 1})], PARTS, ["o.json", "JSON-MIN"]),
    "JSON of other keys": lambda w: ([w.json("x.json", [{"a": 1}])], PARTS, ["--image", "there are: a"]),
    "other XML": lambda w: ([w.file("h.xml", "<html/>")], PARTS, ["h.xml", "no row"]),
    "XML that is cut": lambda w: ([w.file("c.xml", "<annotations><image name='a'>")], PARTS, ["c.xml", "CVAT"]),
    "boxes of CVAT": lambda w: (
        [w.file("b.xml", "<annotations><image name='ink/cat/0.png'><box label='cat'/></image></annotations>")],
        PARTS, ["row 1: ", "no tag", "b.xml"],
    ),
    "an image without a name": lambda w: (
        [w.file("n.xml", "<annotations><image id='0'><tag label='cat'/></image></annotations>")],
        FAULTS, ["row 1", "column image"],
    ),
}  # fmt: skip

OPTIONS: dict[str, tuple[Words, Sequence[str], Words]] = {
    "fit in capitals": (["--fit", "Crop"], SETTINGS, ["student.fit", "'Crop'", "--fit", "'squash', 'crop' or 'pad'"]),
    "no fit": (["--fit", ""], USAGE, ["--fit"]),
    "several fits": (["--set", "student.fit=[crop, pad]"], SETTINGS, ["student.fit", "--fit"]),
    "time in days": (["--time", "30 days"], PARTS, ["--time", "'30 days'", "e.g. --time 30m"]),
    "time with a colon": (["--time", "1:30"], PARTS, ["--time", "'1:30'"]),
    "no time": (["--time", ""], USAGE, ["--time"]),
    "one class": (["--classes", "cat"], PARTS, ["--classes cat,dog", "found: cat"]),
    "a class twice": (["--classes", "guinea pig,Guinea_pig"], PARTS, ["--classes", "keep one"]),
    "commas": (["--classes", ",,"], PARTS, ["--classes", "two or more"]),
    "a class with a control character": (["--classes", "cat,d\x1bog"], PARTS, ["--classes", "d\\x1bog"]),
    "a folder of classes": (["--classes", "DATA"], PARTS, ["Is a directory", "--classes"]),
    "columns without labels": (["--classes", "cat,dog", "--label", "x"], PARTS, ["data.label", "a folder"]),
    "half a worker": (["--workers", "1.5"], SETTINGS, ["workers", "'1.5'", "--workers"]),
    "words of workers": (["--workers", "many"], SETTINGS, ["workers", "'many'", "--workers"]),
    "negative workers": (["--workers", "-1"], SETTINGS, ["workers", "-1", "--workers"]),
    "too many workers": (["--workers", "5000"], SETTINGS, ["workers", "5000", "1024", "--workers"]),
}


@pytest.mark.parametrize("case", [*TABLES.values(), *SOURCES.values()], ids=[*TABLES, *SOURCES])
def test_wrong_tables_and_sources_are_refused(workspace: Workspace, case: Any) -> None:
    words, parts, named = case(workspace)
    check(*quote(workspace, *words), parts, named)


@pytest.mark.parametrize("case", OPTIONS.values(), ids=OPTIONS)
def test_wrong_options_are_refused(workspace: Workspace, case: tuple[Words, Sequence[str], Words]) -> None:
    data = str(workspace.root / "data")
    words = [data if word == "DATA" else word for word in case[0]]
    check(*quote(workspace, data, *words), *case[1:])


@pytest.mark.parametrize("name", ["nothing", "ink", "t.txt"])
def test_final_without_a_run_is_refused(workspace: Workspace, name: str) -> None:
    workspace.file("t.txt", "no run")
    done = run_cli("final", workspace.root / name, "--out", workspace.root / "final")
    check(done.returncode, done.stderr, PARTS, [name, "config.yaml", "vl2v distill"])


@pytest.mark.parametrize(("stated", "workers"), [("auto", None), ("4", 4), (0, 0), (None, None)])
def test_workers_that_are_accepted(stated: object, workers: int | None) -> None:
    values = {
        "data": {"root": "."},
        "teacher": {"spec": "offline:"},
        "student": {"spec": "offline:"},
        "workers": stated,
    }
    assert parse(RunConfig, values, "the settings").workers == workers
