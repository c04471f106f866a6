"""One file that can be copied alone, made of a module and of those of its folder that it imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class _Part:
    """The text of a file, taken apart."""

    top: str  # what stands above its imports
    title: str  # the first line of its docstring
    imports: tuple[str, ...]  # of others
    needs: tuple[Path, ...]  # the files of its own folder that it imports
    body: str  # what stands below its imports, but for comments to pyright, which are those of the top


def joined_source(module: ModuleType) -> str:
    """The source of a module below that of those of its folder that it needs, as one file.

    In all of these, imports stand first, by `from folder.file import name`, and no two names are alike.  The docstring
    of the module is the file's own; that of another one is the comment above its part.
    """
    return _joined(Path(str(module.__file__)), str(module.__package__))


@cache
def _joined(file: Path, package: str) -> str:
    parts = dict(_needed(file, package))
    if len(parts) == 1:
        return file.read_text(encoding="utf-8")
    imports = _import_block({line for part in parts.values() for line in part.imports})
    titles = {of: of.stem if of == file else f"{of.stem}: {part.title}" for of, part in parts.items()}
    bodies = (text for of, part in parts.items() for text in (f"# ---- {titles[of]}", part.body))
    return "\n\n\n".join([f"{parts[file].top}\n\n{imports}", *bodies]) + "\n"


def _needed(file: Path, package: str) -> Iterator[tuple[Path, _Part]]:
    """The files that a file needs, some several times, each behind those that it needs itself."""
    part = _part(file, package)
    for needed in part.needs:
        yield from _needed(needed, package)
    yield file, part


def _part(file: Path, package: str) -> _Part:
    text = file.read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    statements = tree.body
    imports = [s for s in statements if isinstance(s, (ast.Import, ast.ImportFrom))]
    own = [s.module for s in imports if isinstance(s, ast.ImportFrom) and f"{s.module}".startswith(f"{package}.")]
    head = [statements[0], *imports]  # the docstring is the first one
    top = lines[: imports[0].lineno - 1 if imports else statements[0].end_lineno]
    body = [line for line in lines[head[-1].end_lineno or 0 :] if not line.startswith("# pyright: ")]
    return _Part(
        "\n".join(top).strip(),
        str(ast.get_docstring(tree)).partition("\n")[0],
        tuple(ast.unparse(s) for s in imports if not (isinstance(s, ast.ImportFrom) and s.module in own)),
        tuple(file.with_name(f"{name}".removeprefix(f"{package}.") + ".py") for name in own),
        "\n".join(body).strip(),
    )


def _import_block(imports: Iterable[str]) -> str:
    """Imports as ruff sorts them: of the standard library, then of others."""

    def key(line: str) -> tuple[bool, bool, str]:
        return line.split()[1].split(".")[0] not in sys.stdlib_module_names, line.startswith("from"), line

    groups = groupby(sorted(imports, key=key), key=lambda line: key(line)[0])
    return "\n\n".join("\n".join(group) for _, group in groups)
