"""Names of sizes that follow from one other size: `height_4` for `(height - 1) // 4 + 1`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import sympy

from codegen.spelling.literals import expr_source
from ir.graph import Call
from ir.objects.nested import nested_leaves

_MORE = 8  # characters that a long expression has besides the size that it follows from
_LARGE = 5040 << 12  # a size that many numbers divide


def long_sizes(call: Call) -> Iterator[sympy.Basic]:
    """The long expressions of one size among the arguments of a call, each as often as it is there."""
    exprs = (a for a in nested_leaves((call.args, dict(call.kwargs))) if isinstance(a, sympy.Basic))
    for part in (part for expr in exprs for part in _of_one_size(expr)):
        [symbol] = part.free_symbols
        if len(expr_source(part)) > len(str(symbol)) + _MORE:
            yield part


def short_names(call: Call) -> Mapping[sympy.Basic, str]:
    """Names for the long sizes among the arguments of a call, which need not be unique."""
    return {part: size_name(part) for part in long_sizes(call)}


def _of_one_size(expr: sympy.Basic) -> Iterator[sympy.Basic]:
    """The largest parts of an expression that follow from one size."""
    if expr.is_Symbol or not expr.free_symbols:
        return
    if len(expr.free_symbols) == 1 and not expr.is_Boolean:
        yield expr
        return
    for part in expr.args:
        yield from _of_one_size(part)


def size_name(expr: sympy.Basic) -> str:
    """A name for an expression of one size: `height_4` for about a quarter of `height`."""
    [symbol] = expr.free_symbols
    numbers = (expr.xreplace({symbol: sympy.Integer(size)}) for size in (_LARGE, 2 * _LARGE))  # type: ignore[arg-type]
    once, twice = (float(number) for number in numbers)  # type: ignore[arg-type]
    if not once or not math.isfinite(twice) or abs(twice - 2 * once) > abs(once) / 2:
        return f"{symbol}_rest"  # it does not grow with the size, or grows in another way
    ratio = once / _LARGE
    if 0.95 < ratio < 1.05:
        return f"{symbol}_rounded"
    return f"{symbol}_{round(1 / ratio)}" if 0 < ratio < 1 else f"{symbol}_x{round(abs(ratio))}"
