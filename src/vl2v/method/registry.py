"""Every method by its name in a run's settings: those of this package, and those of installed packages.

A method is one file and one line here. A package of yours adds one without a change here, by an entry point in the
group ``vl2v.methods``. Nothing is imported before a method is used, so that the command line can list their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from vl2v.errors import ConfigError

if TYPE_CHECKING:
    from vl2v.method.base import Method

GROUP = "vl2v.methods"
BUILT_IN = {
    "adip": "vl2v.method.adip:ADIP",
    "vl2v": "vl2v.method.recipe:VL2V",
    "no-align": "vl2v.method.baselines.dual:NO_ALIGN",
    "feature": "vl2v.method.baselines.dual:FEATURE",
    "text": "vl2v.method.baselines.dual:TEXT",
    "erm": "vl2v.method.baselines.erm:ERM",
    "linear-probe": "vl2v.method.baselines.linear_probe:LINEAR_PROBE",
    "lp-ft": "vl2v.method.baselines.lp_ft:LP_FT",
    "kd": "vl2v.method.baselines.kd:KD",
    "rise": "vl2v.method.baselines.rise:RISE",
    "miro": "vl2v.method.baselines.miro:MIRO",
}


class Methods(Mapping[str, "Method[Any]"]):
    """Methods by name, each imported at its first use. Those of this package come first and cannot be replaced.

    Looking up a method of another package that cannot be used raises a `ConfigError`; the others still work.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Method[Any]] = {}

    def __getitem__(self, name: str) -> Method[Any]:
        """The method of a name.

        Raises:
            KeyError: if there is none.
            ConfigError: if it is of another package and cannot be used.
        """
        if name not in self._loaded:
            if name in BUILT_IN:
                module, _, attribute = BUILT_IN[name].partition(":")
                self._loaded[name] = getattr(import_module(module), attribute)
            else:
                self._loaded[name] = _installed(name, _entries()[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a method of this name, usable or not; imports nothing."""
        return name in BUILT_IN or name in self._loaded or name in _entries()

    def __iter__(self) -> Iterator[str]:
        """The names; imports nothing."""
        return iter((*BUILT_IN, *_entries()))

    def __len__(self) -> int:
        return len(BUILT_IN) + len(_entries())


METHODS = Methods()


def _entries() -> dict[str, list[EntryPoint]]:
    """What installed packages register, by name in alphabetical order."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        if entry.name not in BUILT_IN:
            found.setdefault(entry.name, []).append(entry)
    return found


def _installed(name: str, entries: Sequence[EntryPoint]) -> Method[Any]:
    """Import a method of another package.

    Raises:
        ConfigError: if that fails, what is imported is not a method of that name, or several packages register it.
    """
    from vl2v.method.base import Method

    packages = sorted({entry.dist.name if entry.dist else "another package" for entry in entries})
    entry, package = entries[0], " and ".join(packages)
    fault = f"The method {name} of {package} cannot be used."
    if len(packages) > 1:
        step = "uninstall all but one of them, or rename the method in its package"
        raise ConfigError(fault, expected="one package that registers it", found=package, next_step=step)
    try:
        method = entry.load()
    except Exception as error:  # a package may fail in any way
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            fault,
            expected=f"{entry.value}, as its entry point in the group {GROUP} says",
            found=f"{type(error).__name__}: {said}",
            next_step=f"repair or uninstall {package}, or use another method",
        ) from error
    if not isinstance(method, Method) or method.name != name:
        found = f"the method {method.name}" if isinstance(method, Method) else type(method).__name__
        expected = f"a vl2v.method.base.Method with the name {name}"
        step = f"correct {entry.value} in {package}"
        raise ConfigError(fault, expected=expected, found=found, next_step=step)
    return method
