"""Folders of images without labels: without class folders, and optionally with domains."""

from __future__ import annotations

from collections.abc import Sequence
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


class UnlabelledFolder(DomainFolder):
    """A folder of images at any depth, whose classes are given by the user. Their labels are -1.

    All images belong to one domain, named after the folder, unless the first-level folders are domains. A file
    `classes.yaml` in the root may map classes to other phrases for prompts.

    Args:
        classes: names of at least two classes.
        domain_folders: whether the first-level folders are domains.
        as_found: accept folders that look like classes or splits, and domains without images.

    Raises:
        DataError: if `root` is not a folder, or has no images.
    """

    LAYOUT = "a folder of images, with or without subfolders"
    NO_IMAGE = "none"
    NEXT = "put images ({formats}) there"

    def __init__(
        self, root: str | Path, classes: Sequence[str], *, domain_folders: bool = False, as_found: bool = False
    ) -> None:
        self._class_names, self._by_folder = tuple(classes), domain_folders
        super().__init__(root, as_found=as_found, splits=False)

    def _list(self, tree: Folder) -> Cells:
        tops = list(tree.subs.values())
        if alike := class_folders(tree, self._class_names):
            names = ", ".join(map(shown, alike[:5])) + (", ..." if len(alike) > 5 else "")
            remedy = (
                "if these folders are labels, vl2v distill reads them without --classes; to ignore them: "
                "--layout-as-found"
            )
            self._doubt(Fault(names, "folders named like classes, although the images are read without labels", remedy))
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
        return self._class_names

    def _labels(self) -> list[int]:
        return [-1] * len(self._files)

    def _check_names(self, allow_missing: bool) -> None:
        """Do nothing: classes have no folders that could be missing, and their names have been checked."""

    def _emptied(self, left: NDArray[np.int64]) -> list[Fault]:
        return []


def class_folders(tree: Folder, classes: Sequence[str]) -> list[str]:
    """Return folders of the first two levels with names of classes; none unless they name at least two classes."""
    spellings = {spelling(name) for name in classes}
    upper = [folder for top in tree.subs.values() for folder in (top, *top.subs.values())]
    folders = [folder for folder in upper if spelling(folder.name) in spellings and folder.has_images()]
    return [folder.path for folder in folders] if len({spelling(folder.name) for folder in folders}) > 1 else []
