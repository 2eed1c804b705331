"""Registries of objects by name, from this package and from entry points of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from vl2v.errors import ConfigError

T = TypeVar("T")


class Plugins(Mapping[str, T]):
    """A registry of objects by name, each imported at its first use.

    The objects of this package come first and cannot be replaced. Only the look-up of an unusable object of another
    package raises a `ConfigError`; the rest of the registry works.

    Args:
        noun: noun for an object, for messages.
        built_in: ``module:attribute`` of the objects of this package, by name.
        expected: description of a valid object of another package, for messages.
        usable: predicate on the name and the imported object of another package.
    """

    def __init__(
        self,
        group: str,
        noun: str,
        built_in: Mapping[str, str],
        expected: str,
        usable: Callable[[str, object], bool],
    ) -> None:
        self.group, self.noun, self.built_in, self.expected, self.usable = group, noun, built_in, expected, usable
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        """Return the object with a name.

        Raises:
            KeyError: if the name is unknown.
            ConfigError: if the object belongs to another package and cannot be used.
        """
        if name not in self._loaded:
            if name in self.built_in:
                module, _, attribute = self.built_in[name].partition(":")
                self._loaded[name] = getattr(import_module(module), attribute)
            else:
                self._loaded[name] = self._installed(name, self._entries()[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        """Return whether the name is known, even if its object cannot be used; imports nothing."""
        return name in self.built_in or name in self._loaded or name in self._entries()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, those of this package first; imports nothing."""
        yield from self.built_in
        yield from self._entries()

    def __len__(self) -> int:
        return len(self.built_in) + len(self._entries())

    def _entries(self) -> dict[str, list[EntryPoint]]:
        """Return the entry points of installed packages by name, in alphabetical order."""
        entries: dict[str, list[EntryPoint]] = {}
        for entry in sorted(entry_points(group=self.group), key=lambda entry: (entry.name, entry.value)):
            if entry.name not in self.built_in:
                entries.setdefault(entry.name, []).append(entry)
        return entries

    def _installed(self, name: str, entries: Sequence[EntryPoint]) -> T:
        """Import an object of another package."""
        packages = sorted({entry.dist.name if entry.dist else "another package" for entry in entries})
        entry, package = entries[0], " and ".join(packages)
        fault = f"The {self.noun} {name} of {package} cannot be used."
        if len(packages) > 1:
            step = f"uninstall all but one of them, or rename the {self.noun} in its package"
            raise ConfigError(fault, expected="one package that registers it", found=package, next_step=step)
        try:
            loaded: T = entry.load()
        except Exception as error:  # a package may fail in any way
            message = " ".join(str(error).split())[:300]
            raise ConfigError(
                fault,
                expected=f"{entry.value}, as its entry point in the group {self.group} says",
                found=f"{type(error).__name__}: {message}",
                next_step=f"repair or uninstall {package}, or use another {self.noun}",
            ) from error
        if not self.usable(name, loaded):
            loaded_name = getattr(loaded, "name", None)
            found = f"the {self.noun} {loaded_name}" if isinstance(loaded_name, str) else type(loaded).__name__
            expected = self.expected.format(name=name)
            step = f"correct {entry.value} in {package}"
            raise ConfigError(fault, expected=expected, found=found, next_step=step)
        return loaded
