"""Every kind of data set beyond folders and plain tables. Packages of others add one by an entry point.

A kind is one file and one line here. Nothing of a package is imported before data are opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from vl2v.errors import ConfigError
from vl2v.sources.base import Source

GROUP = "vl2v.sources"
BUILT_IN = {
    "hub": "vl2v.sources.hub:HUB",
    "datasets": "vl2v.sources.columnar:DATASETS",
    "webdataset": "vl2v.sources.webdataset:WEBDATASET",
    "label-studio": "vl2v.sources.label_studio:LABEL_STUDIO",
    "cvat": "vl2v.sources.cvat:CVAT",
}


def find_source(data: str) -> Source | None:
    """The kind of data set that a text stands for; None for a folder of images or a plain table.

    Raises:
        ConfigError: if no built-in kind claims it, and a kind of another package cannot be used.
    """
    return next((source for source in _sources() if source.claims(data)), None)


def _sources() -> Iterator[Source]:
    for value in BUILT_IN.values():
        module, _, attribute = value.partition(":")
        yield getattr(import_module(module), attribute)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        yield _installed(entry)


def _installed(entry: EntryPoint) -> Source:
    package = entry.dist.name if entry.dist else "another package"
    try:
        source = entry.load()
    except Exception as error:  # a package may fail in any way
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"The source {entry.name} of {package} cannot be used.",
            expected=f"{entry.value}, as its entry point in the group {GROUP} says",
            found=f"{type(error).__name__}: {said}",
            next_step=f"repair or uninstall {package}",
        ) from error
    if not isinstance(source, Source):
        raise ConfigError(
            f"The source {entry.name} of {package} cannot be used.",
            expected="a vl2v.sources.base.Source",
            found=type(source).__name__,
            next_step=f"correct {entry.value} in {package}",
        )
    return source
