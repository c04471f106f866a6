"""The Python files of the repository, read as syntax: what they import and define, for the tests of the house."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("stagecut", "ir", "passes", "codegen", "runtime")
FOLDERS = ("ir", "passes", "codegen", "runtime", "examples", "tests")
FILES = [ROOT / "stagecut.py", *(file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))]
BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")  # fields of a statement that hold others


@dataclass(frozen=True)
class Import:
    """One module that a file imports."""

    file: str
    line: int
    module: str
    late: bool  # inside a function

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    def within(self, modules: list[str]) -> bool:
        return any(f"{self.module}.".startswith(f"{m}.") for m in modules)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@cache
def syntax(file: Path) -> ast.Module:
    """The syntax of a file, which several tests read."""
    with without_collection():
        return ast.parse(file.read_text())


@contextmanager
def without_collection() -> Iterator[None]:
    """A block that makes many objects for the rest of the run: to look for garbage among them takes longer."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def inside(node: ast.AST) -> Iterator[ast.AST]:
    """The statements right inside of another one, `except` and `case` as such."""
    return (child for block in BLOCKS for child in getattr(node, block, ()))


@cache
def statements(file: Path) -> tuple[ast.AST, ...]:
    """A file's module and all statements in it, however deep, without what is in their expressions."""
    found: list[ast.AST] = [syntax(file)]
    for node in found:
        found += inside(node)
    return tuple(found)


@cache
def all_imports() -> tuple[Import, ...]:
    """The imports of all files, read when a test asks for them: other tests need not wait for it."""
    return tuple(found for file in FILES for found in imports(file))


def imports(file: Path) -> Iterator[Import]:
    name = file.relative_to(ROOT).as_posix()

    def walk(node: ast.AST, late: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                yield from (Import(name, node.lineno, alias.name, late) for alias in names)
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield from (Import(name, node.lineno, m, late) for m in imported_from(module, names))
            case ast.ImportFrom():
                pytest.fail(f"{name}:{node.lineno}: write the whole name, `from package.module import …`")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                late = True
        for child in inside(node):  # imports stand in no expression
            yield from walk(child, late)

    return walk(syntax(file), late=False)


def imported_from(module: str, names: list[ast.alias]) -> set[str]:
    """`from package import x` is package.x where that is a module of ours, and package where it is not."""
    return {full if is_module(full := f"{module}.{alias.name}") else module for alias in names}


@cache
def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def defined(file: Path) -> Iterator[str]:
    """The public names that a file defines at its top level."""
    for statement in syntax(file).body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case ast.Assign(targets=targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case _:
                names = []
        yield from (name for name in names if not name.startswith("_"))
