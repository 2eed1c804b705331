"""A folder of images without labels: no class folders, and domains only on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.data.folder import DomainFolder
from vl2v.data.images import spelling
from vl2v.data.layout import splits
from vl2v.data.listing import Cells
from vl2v.data.scan import Fault
from vl2v_runtime.names import shown
from vl2v_runtime.walking import Folder


class ImageHeap(DomainFolder):
    """A folder of images at any depth, of classes that the user names; every label is -1.

    All images are of one domain, called as the folder is, unless the folders of the first level are the domains. A file
    `classes.yaml` in the root may map a class to another phrase for prompts.

    Args:
        root: the folder.
        classes: names of the classes, two or more.
        domain_folders: whether every folder of the first level is a domain.
        as_found: accept folders that look like classes or splits, and domains without images.

    Raises:
        DataError: if `root` is no folder, or holds no image.
    """

    LAYOUT = "a folder of images, with or without subfolders"
    NO_IMAGE = "none"
    NEXT = "put images ({formats}) there"

    def __init__(
        self, root: str | Path, classes: Sequence[str], *, domain_folders: bool = False, as_found: bool = False
    ) -> None:
        self._named, self._by_folder = tuple(classes), domain_folders
        super().__init__(root, as_found=as_found, splits=False)

    def _list(self, tree: Folder) -> Cells:
        tops = list(tree.subs.values())
        if alike := class_folders(tree, self._named):
            names = ", ".join(map(shown, alike[:5])) + (", ..." if len(alike) > 5 else "")
            remedy = (
                "if these folders are labels, drop --classes, which is for images without labels; to train without "
                "the labels, --layout-as-found"
            )
            self._doubt(Fault(names, "folders with the names of classes, taken as images without labels", remedy))
        if not self._by_folder:
            images = list(tree.images())
            return {(self.root.resolve().name, ""): images} if images else {}
        for file in tree.files:
            self._fault(file, "an image outside every domain folder", "move it into one, or drop --domain-folders")
        for top in tops:
            if not top.has_images():
                self._empty(top, "domain")
        domains = [top for top in tops if top.has_images()]
        for fault in splits(domains):
            self._doubt(fault)
        return {(top.name, ""): list(top.images()) for top in domains}

    def _classes(self, cells: Cells) -> tuple[str, ...]:
        return self._named

    def _labels(self, keys: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
        return np.full(len(keys), -1, np.int64)

    def _check_names(self, allow_missing: bool) -> None:
        """No class has a folder that could be lacking; the names were checked when they were read."""

    def _emptied(self, left: NDArray[np.int64]) -> list[Fault]:
        return []


def class_folders(tree: Folder, classes: Sequence[str]) -> list[str]:
    """Folders of the first two levels that are called like classes; none unless they name two different ones."""
    wanted = {spelling(name) for name in classes}
    found = [folder for folder in _upper(tree) if spelling(folder.name) in wanted and folder.has_images()]
    return [folder.path for folder in found] if len({spelling(folder.name) for folder in found}) > 1 else []


def _upper(tree: Folder) -> Iterator[Folder]:
    for top in tree.subs.values():
        yield top
        yield from top.subs.values()
