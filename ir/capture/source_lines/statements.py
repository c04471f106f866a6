"""The statements of the user's source files, with the parameters and the copies of the functions they stand in."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from ir.location import Copy


@dataclass(frozen=True)
class SourceStatement:
    """A statement of a function: its first line, and the parameters and the copies of the function."""

    line: int
    parameters: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = ()


def statement_at(file: str, line: int) -> SourceStatement:
    """The innermost statement on a line; one with the line alone where the source cannot be read."""
    return _statements(file).get(line, SourceStatement(line))


@cache
def _statements(file: str) -> Mapping[int, SourceStatement]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    found: dict[int, SourceStatement] = {}
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= _statements_of(function)
    return found


def _statements_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[int, SourceStatement]:
    given = function.args
    parameters = tuple(a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs))[1:]
    simple = [s for s in ast.walk(function) if isinstance(s, ast.stmt) and not hasattr(s, "body")]
    copies = tuple(sorted(copy for s in simple for copy in _copies(s)))
    found: dict[int, SourceStatement] = {}
    for s in simple:
        statement = SourceStatement(s.lineno, parameters, copies)
        found |= dict.fromkeys(range(s.lineno, (s.end_lineno or s.lineno) + 1), statement)
    return found


def _copies(statement: ast.stmt) -> Iterator[Copy]:
    """`residual = hidden_states`: a second name for one value."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=new)], value=ast.Name(id=old)):
            yield Copy(statement.lineno, new, old)
