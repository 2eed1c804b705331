from __future__ import annotations

import pkgutil

import vl2v


def test_no_module_hides_a_public_name() -> None:
    """Importing a submodule must not replace the public function of the same name."""
    assert not {module.name for module in pkgutil.iter_modules(vl2v.__path__)} & set(vl2v.__all__)
