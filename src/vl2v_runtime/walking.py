"""Search a folder for images, as the scan before training, `vl2v predict` and `vl2v-predict` do."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vl2v_runtime.formats import FOREIGN, FORMATS, SUFFIXES, is_foreign_image, what_is
from vl2v_runtime.names import shown

LITTER = frozenset(
    {"__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information"}
    | {"lost+found", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini"}
)
"""Files and folders of operating systems and tools, in lower case, which are skipped like hidden files."""
NO_IMAGES = frozenset(
    {".txt", ".md", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".htm", ".log", ".py"}
    | {".npy", ".npz", ".mat", ".h5", ".pt", ".pth", ".onnx", ".safetensors", ".parquet", ".sqlite", ".db", ".lock"}
    | {".zip", ".tar", ".gz", ".7z", ".rar", ".mp4", ".mov", ".avi", ".mkv", ".wav", ".mp3", ".pdf", ".doc", ".docx"}
)
"""Suffixes of files whose first bytes are not read."""
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Ends of names of archives, which may contain images."""
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_START = 64  # bytes that identify a file

Key = tuple[int, int] | str


@dataclass(frozen=True)
class Skipped:
    """A skipped file or folder that may be or contain images.

    Attributes:
        path: path relative to the searched folder, with slashes.
        problem: why it is skipped.
        remedy: what the user can do.
    """

    path: str
    problem: str
    remedy: str


@dataclass
class Folder:
    """The content of a folder.

    Attributes:
        path: path relative to the searched folder, with slashes; empty for that folder itself.
        files: names of its images, without subfolders, sorted.
        subs: its subfolders by name, sorted, including those without images.
        skipped: its skipped files and folders, sorted.
        others: number of visible files that are not images.
    """

    path: str
    files: list[str] = field(default_factory=list)
    subs: dict[str, Folder] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    others: int = 0

    @property
    def name(self) -> str:
        """Last part of its path."""
        return PurePosixPath(self.path).name

    def folders(self) -> Iterator[Folder]:
        """Iterate over this folder and all folders below it, parents first, in sorted order."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += reversed(folder.subs.values())

    def images(self) -> Iterator[str]:
        """Iterate over the paths of images at any depth, relative to the searched folder, parents first."""
        for folder in self.folders():
            for name in folder.files:
                yield f"{folder.path}/{name}" if folder.path else name

    def all_skipped(self) -> list[Skipped]:
        """Return the skipped files at any depth."""
        return [skipped for folder in self.folders() for skipped in folder.skipped]

    def has_images(self) -> bool:
        """Return whether there is an image at any depth."""
        return any(folder.files for folder in self.folders())


def walk(root: str | Path) -> Folder:
    """Search a folder for images, at any depth.

    Hidden files and files of operating systems (`LITTER`) are skipped. An image is recognised by its suffix or, without
    a suffix, by its first bytes. Links are followed, but no folder is entered twice: a link to a parent folder, or to a
    folder that is also reached without the link, is skipped. Only regular files are opened.

    Raises:
        OSError: if `root` itself cannot be listed.
    """
    return _Walk(Path(root)).tree


def summary(skipped: list[Skipped]) -> str:
    """Return one sentence about skipped files; empty if there are none."""
    if not skipped:
        return ""
    first = f"{shown(skipped[0].path)}: {skipped[0].problem}"
    return f"skipped {first}" if len(skipped) == 1 else f"skipped {len(skipped):,} files or folders, such as {first}"


class _Walk:
    """A search. Real folders are entered before links, so a link never takes the images of a real folder."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._seen: dict[Key, str] = {}
        self._links: deque[tuple[Folder, str, str]] = deque()  # in, name, path
        real = Path(os.path.realpath(self._root))
        for above in (real, *real.parents):
            self._seen[_key(os.fspath(above), os.stat(above))] = "a folder above it"  # noqa: PTH116
        self.tree = Folder("")
        self._enter(self.tree, self._root)
        while self._links:
            folder, name, path = self._links.popleft()
            if sub := self._new(folder, name, path, "a broken link"):
                self._enter(sub, path)
        for folder in self.tree.folders():
            folder.subs = dict(sorted(folder.subs.items()))
            folder.skipped.sort(key=lambda skipped: skipped.path)

    def _enter(self, folder: Folder, path: str) -> None:
        """Add the content of a folder and of all real folders below it."""
        waiting = self._take(folder, path)
        while waiting:
            above, name, path = waiting.pop()
            if sub := self._new(above, name, path, "a folder that cannot be read"):
                try:
                    waiting += self._take(sub, path)
                except OSError as error:
                    del above.subs[name]
                    self._skip(above, name, f"a folder that cannot be listed ({error.strerror})", "make it readable")

    def _new(self, folder: Folder, name: str, path: str, problem: str) -> Folder | None:
        """Add an empty subfolder, and return it; None if it cannot be read, or has been entered already."""
        try:
            key = _key(path, os.stat(path))  # noqa: PTH116
        except OSError as error:
            self._skip(folder, name, f"{problem} ({error.strerror})", "remove it")
            return None
        if key in self._seen:
            problem = f"a link or mount that leads to {self._seen[key]}"
            self._skip(folder, name, problem, "remove it, or replace it with copies")
            return None
        self._seen[key] = f"{shown(_join(folder, name))}, whose images are read already"
        folder.subs[name] = Folder(_join(folder, name))
        return folder.subs[name]

    def _take(self, folder: Folder, path: str) -> list[tuple[Folder, str, str]]:
        """Sort the entries of a folder into images, skipped files and links, and return its real folders."""
        real = []
        with os.scandir(path) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
        for entry in children:
            name = entry.name
            if name.startswith(".") or name.casefold() in LITTER:
                continue
            try:
                mode = _mode(entry)
            except OSError as error:
                self._skip(folder, name, f"cannot be read ({error.strerror})", "remove the link or the file")
                continue
            place = (folder, name, os.path.join(path, name))  # noqa: PTH118 - half a million of them
            if not stat.S_ISDIR(mode):
                self._take_file(*place, mode)
            elif entry.is_symlink():
                self._links.append(place)
            else:
                real.append(place)
        if packed := [entry.name for entry in children if entry.name.casefold().endswith(ARCHIVES) and entry.is_file()]:
            self._take_archives(folder, path, packed, {entry.name for entry in children})
        return real[::-1]

    def _take_archives(self, folder: Folder, path: str, packed: list[str], sibling_names: set[str]) -> None:
        """Report archives, except those next to or in a folder of their name, which are unpacked already."""
        sibling_names.add(Path(os.path.realpath(path)).name)
        for name in packed:
            end = next(end for end in ARCHIVES if name.casefold().endswith(end))
            if not name.startswith(".") and name[: -len(end)] not in sibling_names:
                self._skip(folder, name, "an archive, whose images are not read", "unpack it or move it away")

    def _take_file(self, folder: Folder, name: str, path: str, mode: int) -> None:
        suffix = _suffix(name)
        if not stat.S_ISREG(mode):
            if suffix in SUFFIXES | FOREIGN:
                self._skip(
                    folder, name, f"{_KINDS.get(stat.S_IFMT(mode), 'not a regular file')}, not an image", "remove it"
                )
            else:
                folder.others += 1
            return
        if suffix in SUFFIXES:
            folder.files.append(name)
            return
        if suffix in FOREIGN:
            self._skip(folder, name, f"an unsupported format ({suffix})", "convert it to PNG or JPEG")
            return
        kind = None if suffix in NO_IMAGES else _kind(path)
        if kind in FORMATS and not suffix:
            folder.files.append(name)
        elif kind in FORMATS:
            self._skip(folder, name, f"a {kind} image with the wrong suffix ({suffix})", "rename it")
        elif kind is not None and is_foreign_image(kind):
            self._skip(folder, name, f"an unsupported format ({kind})", "convert it to PNG or JPEG")
        else:
            folder.others += 1

    @staticmethod
    def _skip(folder: Folder, name: str, problem: str, remedy: str) -> None:
        folder.skipped.append(Skipped(_join(folder, name), problem, remedy))


def _join(folder: Folder, name: str) -> str:
    return f"{folder.path}/{name}" if folder.path else name


def _mode(entry: os.DirEntry[str]) -> int:
    """Return the mode of an entry or of the target of a link, without a system call where the listing has it."""
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else entry.stat().st_mode


def _key(path: str, status: os.stat_result) -> Key:
    """Return a key that is equal for two paths of the same folder."""
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _suffix(name: str) -> str:
    """Return the suffix in lower case; empty if it is the number of a copy or the end of a sentence."""
    suffix = PurePosixPath(name).suffix.lower()
    letters = suffix[1:]
    return suffix if letters.isascii() and letters.isalnum() and not letters.isdigit() and len(letters) <= 12 else ""


def _kind(path: str) -> str | None:
    """Identify a regular file by its first bytes; None if it is unknown or unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    try:
        return what_is(os.read(descriptor, _START))
    except OSError:
        return None
    finally:
        os.close(descriptor)
