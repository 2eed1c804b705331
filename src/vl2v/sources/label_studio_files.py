"""Find the images of a Label Studio export on this machine."""

from __future__ import annotations

import os
import re
from itertools import chain
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

from vl2v.data.tables.cells import plain_path
from vl2v.sources.base import first_file

UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio adds such a prefix to the names of uploaded files
REMOVED = re.compile(r"[^-\w.]")  # characters that it removes from these names, after blanks became underscores


class Uploads:
    """The images of an export."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._originals: dict[Path, dict[str, Path]] = {}

    def local(self, value: object) -> object:
        """Return the local path of an image.

        An uploaded file (``/data/upload/1/5f2c1a9b-cat.jpg``) is searched in the folder of the export, in its folders
        ``images`` and ``upload``, and in the data folder of Label Studio on this machine, with the name that Label
        Studio gave it and with its original name. The path of a file in local storage
        (``/data/local-files/?d=cats/1.jpg``) is resolved from the folder of the export, then from the root.

        Args:
            value: path or address in the export.
        """
        folder = self._folder
        if not isinstance(value, str) or not (value := plain_path(value)):
            return value
        if value.startswith("/data/local-files/"):
            inner = (parse_qs(urlsplit(value).query).get("d") or [""])[0].lstrip("/")
            return str(first_file([folder / inner, Path("/") / inner]))
        if not value.startswith(("/data/upload/", "upload/")):
            return value if "://" in value else str(folder / value)
        inner = value.removeprefix("/data/")
        name = PurePosixPath(inner).name
        mark = UPLOADED.fullmatch(name)
        names = [name, mark[1]] if mark else [name]
        folders = [folder, folder / "images", (folder / inner).parent, (folder / "media" / inner).parent]
        originals = (original for parent in folders[:2] if (original := self._original(parent, names[-1])))
        here = (parent / name for name in names for parent in folders)
        return str(first_file(chain(here, originals, [data_folder() / "media" / inner])))

    def _original(self, folder: Path, name: str) -> Path | None:
        """Return the file in a folder that Label Studio would rename to `name`, unless there are several."""
        if folder not in self._originals:
            by_name: dict[str, list[Path]] = {}
            for path in folder.iterdir() if folder.is_dir() else ():
                by_name.setdefault(REMOVED.sub("", path.name.strip().replace(" ", "_")), []).append(path)
            self._originals[folder] = {key: paths[0] for key, paths in by_name.items() if len(paths) == 1}
        return self._originals[folder].get(name)


def data_folder() -> Path:
    """Return the folder in which Label Studio on this machine saves uploaded files."""
    default = Path.home() / ".local" / "share" / "label-studio"
    return Path(os.environ.get("LABEL_STUDIO_BASE_DATA_DIR") or default)
