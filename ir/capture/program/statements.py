"""Statements of the user's source files: the variables that they assign, return and copy."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from ir.location import Copy


@dataclass(frozen=True)
class SourceStatement:
    """A statement of a function: its first line, the variables it assigns, and the function's parameters."""

    line: int
    assigns: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()
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
        statement = SourceStatement(s.lineno, _assigned(s), _returned(s), parameters, copies)
        found |= dict.fromkeys(range(s.lineno, (s.end_lineno or s.lineno) + 1), statement)
    return found


def _assigned(statement: ast.stmt) -> tuple[str, ...]:
    match statement:
        case ast.Assign(targets=[target]) | ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return tuple(_names(target))
    return ()


def _returned(statement: ast.stmt) -> tuple[str, ...]:
    """The variables in `return cos.to(x), sin`; none for a single result."""
    match statement:
        case ast.Return(value=ast.Tuple(elts=elements)):
            return tuple(map(_subject, elements))
    return ()


def _subject(value: ast.expr) -> str:
    """The variable at the start of a chain of calls and attributes; "" for none."""
    while isinstance(value, (ast.Attribute, ast.Call, ast.Subscript)):
        value = value.func if isinstance(value, ast.Call) else value.value
    return value.id if isinstance(value, ast.Name) else ""


def _names(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield next(_names(element), "")
        case _:
            yield ""


def _copies(statement: ast.stmt) -> Iterator[Copy]:
    """`residual = hidden_states`: a second name for one value."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=new)], value=ast.Name(id=old)):
            yield Copy(statement.lineno, new, old)
