"""Packages beside a model file that have the names of ours, such as a `runtime/` of the user's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_HOME = Path(__file__).resolve().parents[2]
_OURS = ("ir", "passes", "codegen", "runtime")
_THEIRS: dict[str, ModuleType] = {}  # those that a model file has imported


@contextmanager
def own_packages(folder: Path) -> Iterator[None]:
    """While this lasts, `import runtime` finds the `runtime` in `folder`, where there is one, in place of ours."""
    folder = folder.resolve()
    names = [name for name in _OURS if (folder / name).is_dir() or (folder / f"{name}.py").is_file()]
    if not names or folder == _HOME:
        yield
        return
    ours = _taken(names)
    sys.modules.update(_without_init(folder, names) | _THEIRS)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _THEIRS.update(_taken(names))
        sys.modules.update(ours)


def _without_init(folder: Path, names: list[str]) -> dict[str, ModuleType]:
    """Packages without `__init__.py`, which Python would look for last."""
    packages = {}
    for name in names:
        if (folder / name).is_dir() and not (folder / name / "__init__.py").exists():
            packages[name] = ModuleType(name)
            packages[name].__path__ = [str(folder / name)]
    return packages


def _taken(names: list[str]) -> dict[str, ModuleType]:
    """The imported modules of packages, which are then no longer there."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
