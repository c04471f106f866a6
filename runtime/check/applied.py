"""The operators that an expression of a stage file applies."""

from __future__ import annotations

import ast


def applied(expression: ast.AST) -> str:
    """The name of the operator that an expression applies last: `Add`, `linear`, `[]`; "" for a name or a number."""
    match expression:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name
        case ast.BinOp(op=operator) | ast.UnaryOp(op=operator) | ast.Compare(ops=[operator]):
            return type(operator).__name__
        case ast.Call() | ast.Subscript():
            return "[]"
    return ""
