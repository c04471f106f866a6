"""Sizes and literals as Python source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import sympy
import torch

from ir.graph import THIS_DEVICE, Value
from ir.sizes import Dim
from ir.text.expressions import printed


def expr_source(expr: sympy.Basic | int, named: Mapping[sympy.Basic, str] = MappingProxyType({})) -> str:
    """A size or a condition on sizes as a Python expression; parts of it may be `named`."""
    if isinstance(expr, int):
        return str(expr)
    if named:
        expr = expr.xreplace({part: sympy.Symbol(name, integer=True) for part, name in named.items()})  # type: ignore[arg-type]
    return printed(expr)


def dim_source(dim: Dim) -> int | str:
    """A size as the manifest writes it: a number, or a Python expression over the symbols."""
    return dim if isinstance(dim, int) else expr_source(dim)


def shape_source(shape: tuple[Dim, ...]) -> tuple[int | str, ...]:
    """A shape as the manifest writes it."""
    return tuple(map(dim_source, shape))


_LIMITS = {
    getattr(torch.finfo(dtype), name): f"torch.finfo({dtype}).{name}"
    for dtype in (torch.bfloat16, torch.float64, torch.float32)
    for name in ("min", "max", "tiny")
}
_MOST = 1 << 20  # whole numbers in formulas
_MANY = 14  # characters of a number that does not explain itself


def float_source(number: float) -> str:
    """A number with a fraction; one of many digits by what it follows from, where that has the same bits anywhere."""
    if number in (float("inf"), float("-inf")) or number != number:
        return f'float("{number}")'
    if number in _LIMITS or len(repr(number)) < _MANY:
        return _LIMITS.get(number, repr(number))
    sign = "-" * (number < 0)
    return next((sign + text for text in _formulas(abs(number))), repr(number))


def _formulas(number: float) -> Iterator[str]:
    """Formulas of a number.

    Libraries for powers and logarithms round by at most 0.55 units in the last place: the number is nearer than 0.45
    to what is exact, so that all of them return it.
    """
    yield from (text for text, value in _FIXED.items() if value == number)
    for text, exact in _roots(number):
        if abs(exact - Decimal(number)) < Decimal(0.45 * math.ulp(number)):
            yield text


_FIXED = {"math.pi": math.pi, "math.sqrt(2 / math.pi)": math.sqrt(2 / math.pi)}


def _roots(number: float) -> Iterator[tuple[str, Decimal]]:
    """Formulas of whole numbers that a number is near to, and their exact values."""
    if _MOST**-0.5 < number < 1:
        n = round(number**-2)
        yield f"{n}**-0.5", 1 / Decimal(n).sqrt()
    if 1 < number < _MOST**0.5:
        n = round(number**2)
        yield f"{n}**0.5", Decimal(n).sqrt()
    if 0.5 < number < math.log(_MOST):
        n = round(math.exp(number))
        yield f"math.log({n})", Decimal(n).ln()


def argument_source(arg: Any, name_of: Any, sizes: Mapping[sympy.Basic, str] = MappingProxyType({})) -> str:
    """An argument of an operator; `name_of` writes a Value, `sizes` have names of their own."""
    match arg:
        case Value():
            return name_of(arg)
        case list() | tuple():
            return f"[{', '.join(argument_source(a, name_of, sizes) for a in arg)}]"
        case sympy.Basic():
            return expr_source(arg, sizes)
        case torch.dtype() | torch.layout() | torch.memory_format():
            return str(arg)
        case float():
            return float_source(arg)
        case _:
            return "device" if arg is THIS_DEVICE else repr(arg)
