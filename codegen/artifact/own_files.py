"""The user's own Python files that stages import: with all that these import, under the same dotted names."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

_INSTALLED = {"site-packages", "dist-packages", f"python{sys.version_info[0]}.{sys.version_info[1]}"}
_OURS = {"stagecut", "ir", "passes", "codegen", "runtime"}


def own_files(modules: Iterable[str]) -> dict[Path, Path]:
    """The files of imported modules and of what they import, by their places in a folder that is on Python's path.

    Those of installed packages are left out, and what a file imports only later, inside a function.
    """
    found: dict[Path, Path] = {}
    left, seen = list(modules), set[str]()
    while left:
        name = left.pop()
        file = _own_file(sys.modules.get(name))
        if name in seen or file is None or name.partition(".")[0] in _OURS:
            continue
        seen.add(name)
        found[_place(name, file)] = file
        left += [name.rpartition(".")[0], *_imported(name, file)]
    return found


def _own_file(module: ModuleType | None) -> Path | None:
    file = Path(getattr(module, "__file__", None) or "")
    return file if file.is_file() and _INSTALLED.isdisjoint(file.parts) else None


def _place(name: str, file: Path) -> Path:
    """The path under which Python looks for a module: `ops/kernels.py`, `ops/__init__.py`."""
    if name == "__main__":
        return Path(file.name)
    parts = name.split(".")
    return Path(*parts, file.name) if file.stem == "__init__" else Path(*parts[:-1], file.name)


def _imported(name: str, file: Path) -> Iterator[str]:
    """The names of the modules that a file may import."""
    if file.suffix != ".py":
        return
    package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_bytes())):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                around = package[: len(package) - level + 1] if level else []
                source = ".".join([*around, *([module] if module else [])])
                yield from (source, *(f"{source}.{alias.name}".lstrip(".") for alias in aliases))
