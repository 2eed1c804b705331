"""Image classification exports of CVAT in XML ("CVAT for images"). An ImageNet export is a folder of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from xml.parsers import expat

from vl2v.data.tables.base import Broken, Row, empty
from vl2v.data.tables.cells import plain_path
from vl2v.sources.base import Source, exports_in, first_file, unreadable, version_of

CHUNK = 2**16
LOOKED_AT = 1000
IMAGE, LABEL, SUBSET = "image", "label", "subset"
EXPORT = 'XML, as CVAT exports it as "CVAT for images 1.1"'


class CvatImages:
    """An export with one row per image. The columns are the image, its tag, its subset and the attributes of the tag.

    Images are searched in ``images/<subset>/``, in ``images/`` and in the folder of the XML file. A folder may contain
    one file per subset; the name of the file is then the subset of its images.

    Args:
        data: path of an XML file, or of the unpacked export.

    Raises:
        DataError: if the file is not such an export, or lists no images.
    """

    unit = "row"

    def __init__(self, data: str) -> None:
        path = Path(data)
        self._files = exports_in(path, is_export) if path.is_dir() else [path]
        self.version = version_of(self._files)
        first = [fields for file in self._files for fields in islice(self._images(file), LOOKED_AT)]
        if not first:
            raise empty(path)
        self.columns = tuple(dict.fromkeys([IMAGE, LABEL, *(key for fields in first for key in fields)]))
        self.roles = {"image": IMAGE, "label": LABEL}

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `vl2v.data.tables.base.Table.rows`."""
        for number, fields in enumerate((fields for file in self._files for fields in self._images(file)), 1):
            bad = next((v for c in columns if isinstance(v := fields.get(c), Broken)), None)
            yield number, bad or tuple(fields.get(column) for column in columns)

    def _images(self, path: Path) -> Iterator[dict[str, object]]:
        reader = _Reader(path.parent, path.stem if len(self._files) > 1 else "")
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    reader.parser.Parse(chunk, False)
                    yield from reader.taken()
                reader.parser.Parse(b"", True)
            yield from reader.taken()
        except (expat.ExpatError, OSError, ValueError, LookupError) as error:
            raise unreadable(path, EXPORT, error) from error


class _Reader:
    """Collects the images that have been parsed so far."""

    def __init__(self, folder: Path, subset: str = "") -> None:
        self._folder, self._subset = folder, subset
        self._done: list[dict[str, object]] = []
        self._fields: dict[str, object] | None = None
        self._tags: list[str] = []
        self._attribute, self._text = "", ""
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._add

    def taken(self) -> list[dict[str, object]]:
        """Return the images that were collected since the last call."""
        done, self._done = self._done, []
        return done

    def _refuse(self, *_: object) -> None:
        """Reject a document type, which no export declares and whose entities could expand without limit."""
        raise ValueError("a document type declaration")

    def _start(self, name: str, values: Mapping[str, str]) -> None:
        if name == "image":
            subset = values.get(SUBSET) or self._subset
            self._fields = {IMAGE: self._found(plain_path(values.get("name", "")), subset), SUBSET: subset}
            self._tags = []
        elif name == "tag" and self._fields is not None:
            self._tags.append(values.get("label", ""))
        elif name == "attribute" and self._fields is not None:
            self._attribute, self._text = values.get("name", ""), ""

    def _add(self, text: str) -> None:
        if self._attribute and len(self._text) < CHUNK:
            self._text += text

    def _end(self, name: str) -> None:
        if self._fields is None:
            return
        if name == "attribute":
            if self._attribute not in (IMAGE, LABEL, SUBSET, ""):
                self._fields[self._attribute] = self._text.strip()
            self._attribute = ""
        elif name == "image":
            self._fields[LABEL] = self._label()
            self._done.append(self._fields)
            self._fields = None

    def _label(self) -> object:
        distinct = sorted(set(self._tags))
        if len(distinct) > 1:
            problem, remedy = f"several tags: {', '.join(distinct[:4])}", "keep one tag"
            return Broken(problem, f"{remedy}, or leave the image out: --skip-bad", file=True)
        return distinct[0] if distinct else Broken("no tag", "tag the image, or leave it out: --skip-bad", file=True)

    def _found(self, name: str, subset: str) -> str | None:
        if not name:
            return None
        images = self._folder / "images"
        return str(first_file([images / subset / name, images / name, self._folder / name]))


def is_export(file: Path) -> bool:
    """Return whether a file begins like an export."""
    with file.open("rb") as stream:
        return file.suffix.lower() == ".xml" and b"<annotations" in stream.read(4096)


def claims(data: str) -> bool:
    """Return whether a path is an XML file, or a folder with an export and its images."""
    path = Path(data)
    return bool(exports_in(path, is_export)) if path.is_dir() else path.suffix.lower() == ".xml" and path.is_file()


CVAT = Source('an export of CVAT ("CVAT for images", XML)', claims, CvatImages)
