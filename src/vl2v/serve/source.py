"""The served file, reloaded when another process changes it, such as `vl2v classes add`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vl2v_runtime import Model

Signature = tuple[int, int, int]


class Source:
    """Where the served model comes from.

    Args:
        path: the .onnx file; it is replaced as a whole when it changes.
        load: opens it.
    """

    def __init__(self, path: Path, load: Callable[[], Model]) -> None:
        self._path, self._load = path, load
        self._known = self._signature()

    def changed(self) -> bool:
        """Whether the file is another one than at the last `load`; quick enough for every request."""
        now = self._signature()
        return now is not None and now != self._known

    def load(self) -> Model:
        """Open the model as it is now. A file that cannot be opened is not tried again until it changes.

        Raises:
            ModelError: if it cannot be used.
        """
        self._known = self._signature()
        return self._load()

    def _signature(self) -> Signature | None:
        try:
            found = self._path.stat()
        except OSError:  # between two versions, or gone: the model in memory is still good
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
