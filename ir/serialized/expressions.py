"""Sizes and conditions on them, sympy's expressions, as the names of their classes and arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
from sympy.core.numbers import Float, Rational
from torch.utils._sympy import functions

from ir.serialized.leaves import Unspeakable

_CONSTANTS = {
    "true": sympy.true,
    "false": sympy.false,
    "oo": sympy.oo,
    "-oo": -sympy.oo,
    "nan": sympy.nan,
    "zoo": sympy.zoo,
}


def is_atom(expr: sympy.Basic) -> bool:
    """Whether an expression has no arguments."""
    return not expr.args


def atom_json(expr: sympy.Basic) -> list[Any]:
    """A number, a constant or a symbol.  Raises Unspeakable for any other expression without arguments."""
    if isinstance(expr, sympy.Symbol):
        _, assumptions = expr.__getnewargs_ex__()
        return ["symbol", expr.name, {key: value for key, value in assumptions.items() if value is not None}]
    for name, constant in _CONSTANTS.items():
        if expr is constant:
            return ["constant", name]
    match expr:
        case Rational():
            return ["number", int(expr.p), int(expr.q)]
        case Float():
            return ["float", str(expr), int(expr._prec)]
    raise Unspeakable(f"the expression {expr} of a {type(expr).__name__}")


def atom_of(kind: str, *parts: Any) -> sympy.Basic:
    """The expression of `atom_json`.  Raises LookupError for an unknown one."""
    match kind, parts:
        case "symbol", (str(name), dict(assumptions)):
            return sympy.Symbol(name, **assumptions)
        case "constant", (str(name),) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case "number", (int(p), int(q)):
            return sympy.Rational(p, q)
        case "float", (str(text), int(bits)):
            return Float(text, precision=bits)
    raise LookupError(f"an expression of a kind {kind!r}")


_TORCH = "torch."  # before the names of torch's own functions, some of which sympy has, too


def function_name(expr: sympy.Basic) -> str:
    """The name of the function of an expression, sympy's or torch's.  Raises Unspeakable for one of others."""
    cls = type(expr)
    if getattr(sympy, cls.__name__, None) is cls:
        return cls.__name__
    if getattr(functions, cls.__name__, None) is cls:
        return f"{_TORCH}{cls.__name__}"
    raise Unspeakable(f"the expression {expr} of a {cls.__name__}")


def applied(name: str, args: Sequence[sympy.Basic]) -> sympy.Basic:
    """A function of sympy or torch, by its name, of these arguments.

    Raises LookupError for an unknown one, and TypeError for other arguments than expressions: sympy runs text as code.
    """
    if not all(isinstance(arg, sympy.Basic) for arg in args):
        raise TypeError(f"{name} of what is no expression")
    known = getattr(functions if name.startswith(_TORCH) else sympy, name.removeprefix(_TORCH), None)
    if not isinstance(known, type) or not issubclass(known, sympy.Basic):
        raise LookupError(f"the function {name!r}")
    return known(*args)
