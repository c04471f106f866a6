"""Lines of a stage file: the names, operators and constants in each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from zlib import crc32

_BODIES = ("body", "cases", "handlers", "orelse", "finalbody")  # of statements, in the order of their fields


def words_by_line(module: ast.Module) -> dict[int, list[str]]:
    """The words of each statement, by its first line; of a loop, a function or a class those of its head."""
    return {statement.lineno: [*_words(statement)] for statement in statements(module)}


def statements(module: ast.Module) -> Iterator[ast.stmt]:
    """All statements in the order of `ast.walk`, which looks at expressions as well: ten times as many nodes."""
    waiting: list[ast.AST] = [module]
    for node in waiting:  # which grows
        if isinstance(node, ast.stmt):
            yield node
        for name in _BODIES:
            waiting += getattr(node, name, ())


def sum_of(words: list[str]) -> str:
    """The crc32 of some words."""
    return f"{crc32(' '.join(words).encode()):08x}"


def _words(statement: ast.stmt) -> Iterator[str]:
    """`relu`, `x`, `Add`, `Subscript` and `0.5`, in an order that the syntax gives."""
    waiting = [*ast.iter_child_nodes(statement)]
    for node in waiting:  # which grows
        if not isinstance(node, ast.stmt):
            waiting += ast.iter_child_nodes(node)
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.arg(arg=name):
                yield name
            case ast.Constant(value=value):
                yield repr(value)
            case ast.operator() | ast.unaryop() | ast.cmpop() | ast.Subscript():
                yield type(node).__name__
