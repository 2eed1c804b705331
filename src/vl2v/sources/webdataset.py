"""WebDataset shards: tar files in which the files of a sample are adjacent and share their name."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from glob import glob, has_magic
from itertools import islice
from pathlib import Path

from vl2v.data.splits import part_of
from vl2v.data.tables.base import Broken, Row, empty, with_repeated_keys
from vl2v.errors import DataError
from vl2v.sources.base import TEXT_BYTES, Embedded, Source, unreadable, version_of
from vl2v.tar_files import members_of
from vl2v_runtime.formats import SUFFIXES as IMAGES
from vl2v_runtime.imaging import MAX_BYTES
from vl2v_runtime.names import shown
from vl2v_runtime.regular import read_regular

SUFFIXES = (".tar", ".tar.gz", ".tgz")
CLASS_LISTS = ("classnames.txt", "classes.txt", "class_names.txt")  # one name per line, in the order of the indices
LOOKED_AT = 100  # samples from which the columns are taken
TEXTS = ("cls", "txt", "text", "label", "class")
MOST_SHARDS = 100_000
MOST_KEYS = 1000  # of the JSON object of a sample
SAMPLE_BYTES = 2**24  # of the texts of a sample, each file counted with at least `FILE_BYTES`
FILE_BYTES = 2**10
MOST_DIGITS = 9  # of the number of a class
IMAGE, SPLIT, JSON, FOLDER = "image", "split", "json", "folder"
BRACES = re.compile(r"\{([^{}]*)\}")


class Shards:
    """Shards that are read as streams, with samples numbered consecutively.

    The columns are ``image``, the extensions of text files (``cls``), the keys of a ``json`` file, ``folder`` if
    samples are in folders, and ``split`` if the names of the shards or of their folders contain it. A class index in
    ``cls`` is replaced by the class name if there is a file of class names next to the shards.

    Raises:
        DataError: if there are no shards or no samples, or a shard cannot be read.
    """

    unit = "row"

    def __init__(self, data: str) -> None:
        self._shards = shards_of(data)
        self._splits = {shard: _split_of(shard) for shard in self._shards}
        self.version = version_of(self._shards)
        self._names = _class_names(self._shards[0].parent)
        keys = dict.fromkeys(key for _, _, sample in islice(self._samples(), LOOKED_AT) for key in sample)
        if not keys:
            raise empty(Path(data))
        stated = len(set(self._splits.values())) > 1
        self.columns = (IMAGE, *(key for key in keys if key not in (IMAGE, SPLIT)))
        self.columns += (SPLIT,) if stated or SPLIT in keys else ()
        self.roles = {"image": IMAGE} | ({"label": "cls"} if "cls" in keys else {})
        self.roles |= {"split": SPLIT} if stated else {}

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `vl2v.data.tables.base.Table.rows`."""
        for number, (shard, key, sample) in enumerate(self._samples(), 1):
            fields: dict[str, object] = {SPLIT: self._splits[shard]} | sample
            name, image = f"{shard.name}: {key.removeprefix('/')}", fields.get(IMAGE)
            if isinstance(image, Embedded):
                fields[IMAGE] = replace(image, name=name)
            bad = next((v for c in (*columns, JSON) if isinstance(v := fields.get(c), Broken)), None)
            yield number, replace(bad, name=name) if bad else tuple(fields.get(column) for column in columns)

    def _samples(self) -> Iterator[tuple[Path, str, dict[str, object]]]:
        """Iterate over the samples: shard, key with its folder, and columns."""
        for shard in self._shards:
            name, sample, size = "", dict[str, object](), 0
            for path, ending, data in _files(shard):
                if path != name:
                    if sample:
                        yield shard, name, _folder_of(name) | sample
                    sample, size = {}, 0
                name = path
                size += FILE_BYTES + (len(data or b"") if f".{ending.rpartition('.')[2]}" not in IMAGES else 0)
                if size > SAMPLE_BYTES:
                    found = f"more than {SAMPLE_BYTES:,} bytes of texts in the sample {shown(name)[:200]}"
                    raise unreadable(shard, "samples of an image and short texts", found, "write it again")
                for column, value in self._contents(ending, data).items():
                    sample.setdefault(column, value)  # the first of several images
            if sample:
                yield shard, name, _folder_of(name) | sample

    def _contents(self, ending: str, data: bytes | None) -> dict[str, object]:
        """Return the columns that one file of a sample contains."""
        last = ending.rpartition(".")[2]
        if f".{last}" in IMAGES:
            large = Broken(f"an image file above {MAX_BYTES:,} bytes", "make it smaller")
            return {IMAGE: large if data is None else Embedded(data)}
        if last not in (JSON, *TEXTS):
            return {}
        if data is None:
            return {ending: Broken(f"a .{ending} file above {TEXT_BYTES:,} bytes", "shorten it to one image")}
        if last == JSON:
            return _keys(data)
        try:
            text = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            return {ending: Broken(f"a .{ending} file that is not UTF-8 text", "save it in UTF-8")}
        if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and int(text) < len(self._names):
            text = self._names[int(text)]
        return {ending: text}


def _folder_of(name: str) -> dict[str, object]:
    """Return the folder of a sample as a column, if it is in one."""
    folder = name.rpartition("/")[0].rpartition("/")[2]
    return {FOLDER: folder} if folder not in ("", ".", "..") else {}


def _files(shard: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """Iterate over the files of a shard: sample, extension in lower case, and content, which is None if too large."""
    try:
        for archive, member in members_of(shard):
            folder, _, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            if not member.isreg() or not stem or not ending:
                continue
            ending = ending.lower()
            most = MAX_BYTES if f".{ending.rpartition('.')[2]}" in IMAGES else TEXT_BYTES
            content = archive.extractfile(member) if member.size <= most else None
            yield f"{folder}/{stem}", ending, content.read() if content else None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise unreadable(shard, "a tar file", error, "write or download it again") from error


def _keys(data: bytes) -> dict[str, object]:
    try:
        fields = json.loads(data, object_pairs_hook=with_repeated_keys)
    except (ValueError, RecursionError) as error:
        return {JSON: Broken(f"a .json file that is not JSON ({' '.join(str(error).split())[:80]})", "write it again")}
    if not isinstance(fields, dict):
        return {}
    if len(fields) > MOST_KEYS:
        return {JSON: Broken(f"a .json file of {len(fields):,} keys", f"keep at most {MOST_KEYS:,}")}
    return {k: v for k, v in fields.items() if not isinstance(v, dict | list)}


def expand(pattern: str) -> Iterator[str]:
    """Iterate over the names that a pattern with braces (``{000..009}``, ``{a,b}``) expands to."""
    match = BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    before, after = pattern[: match.start()], pattern[match.end() :]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    inside = match[1].split(",")
    if ends:
        low, high = int(ends[1]), int(ends[2])
        inside = [f"{i:0{len(ends[1])}d}" for i in range(low, min(high, low + MOST_SHARDS) + 1)]
    for one in inside:
        for ending in expand(after):
            yield before + one + ending


def shards_of(data: str) -> list[Path]:
    """Return the shards of a dataset.

    Args:
        data: path of a tar file, a pattern, or a folder of tar files.

    Raises:
        DataError: if a shard is missing, or there are none.
    """
    path = Path(data)
    if path.is_dir():
        shards = sorted(p for p in (*path.iterdir(), *path.glob("*/*")) if p.name.endswith(SUFFIXES) and p.is_file())
    else:
        names = [data] if path.is_file() else islice(expand(data), MOST_SHARDS)
        shards = [Path(p) for name in names for p in (sorted(glob(name)) if has_magic(name) else [name])]  # noqa: PTH207
    missing = [shard for shard in shards if not shard.is_file()]
    if missing or not shards:
        what = f"{shown(missing[0])}: no such file" if missing else "no such file"
        raise DataError(
            f"The shards {shown(data)} are missing.", expected="tar files", found=what, next_step="correct the pattern"
        )
    return shards


def _split_of(shard: Path) -> str:
    names = (re.split(r"[-_.0-9{]", shard.name)[0], shard.parent.name)
    return next((name for name in names if part_of(name) is not None), "")


def _class_names(folder: Path) -> list[str]:
    for name in CLASS_LISTS:
        if (folder / name).is_file():
            text = read_regular(folder / name).decode("utf-8", errors="replace")
            return [line.strip() for line in text.splitlines() if line.strip()]
    return []


def claims(data: str) -> bool:
    """Return whether a path is a tar file, a pattern of tar files, or a folder of tar files without other folders."""
    path = Path(data)
    if path.is_dir():
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        tars = [entry for entry in entries if entry.name.endswith(SUFFIXES)]
        inner = [entry for entry in entries if entry.is_dir()]
        within = inner and all(any(p.name.endswith(SUFFIXES) for p in entry.iterdir()) for entry in inner)
        return bool((tars and not inner) or within)
    return data.endswith(SUFFIXES)


WEBDATASET = Source("WebDataset shards (.tar)", claims, Shards)
