"""Sizes that are rounded up to a multiple, in one form however a model computes them.

`(8 - seq % 8) % 8`, `-seq % 8` and `8 * math.ceil(seq / 8) - seq` are the same padding, `8*((seq + 7)//8) - seq`.
torch takes each as it is written: of `seq + (8 - seq % 8) % 8` it knows neither that 8 divides it nor how often, and
assumes both at the example's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import sympy
from torch.fx.experimental.sym_node import SymNode
from torch.utils._sympy.functions import CeilToInt, FloorDiv, IntTrueDiv, Mod, PythonMod, ToFloat, TruncToInt

_METHODS = ("_mod", "_int_floordiv", "_ceil", "_trunc")  # of torch's nodes for sizes


@contextmanager
def rounded_up_alike() -> Iterator[None]:
    """Inside the context, what is computed of sizes has this form."""

    def alike(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def computed(node: SymNode, *others: Any) -> Any:
            made = method(node, *others)
            expr = made.expr if isinstance(made, SymNode) else None
            if expr is None or (form := in_one_form(expr)) is expr:
                return made
            return SymNode(form, made.shape_env, made.pytype, made.hint, fx_node=made.fx_node)

        return computed

    with ExitStack() as patches:
        for name in _METHODS:
            patches.enter_context(patch.object(SymNode, name, alike(getattr(SymNode, name))))
        yield


def in_one_form(expr: Any) -> Any:
    """A remainder of `-size`, a quotient that is rounded up, or that of `-size`, by floors of sums; others as given."""
    match expr:
        case Mod(args=(of, sympy.Integer() as by)) | PythonMod(args=(of, sympy.Integer() as by)) if by > 1:
            size = _size_below(of, int(by))
            return expr if size is None else by * _rounded_up(size, by) - size
        case CeilToInt(args=(IntTrueDiv(args=(size, sympy.Integer() as by)),)) if by > 1 and size.is_integer:
            return _rounded_up(size, by)
        case CeilToInt(args=(ToFloat(args=(size,)),)) | TruncToInt(args=(ToFloat(args=(size,)),)):
            return size
        case FloorDiv(args=(of, sympy.Integer() as by)) if by > 1 and (size := _negated(of)) is not None:
            return -_rounded_up(size, by)
        case FloorDiv(args=(of, sympy.Integer() as by)) if (even := _with_evens(of)) is not of:
            return FloorDiv(even, by)
    return expr


def _with_evens(expr: Any) -> Any:
    """A sum with `size + size % 2` in it as `2 * ((size + 1) // 2)`; others as given."""
    for term in expr.args if isinstance(expr, sympy.Add) else ():
        count, remainder = term.as_coeff_Mul()  # type: ignore[attr-defined]
        if isinstance(remainder, (Mod, PythonMod)) and remainder.args[1] == 2:
            size: Any = remainder.args[0]
            if expr.coeff(size) == count:  # type: ignore[attr-defined]
                return expr - count * (size + remainder - 2 * _rounded_up(size, 2))
    return expr


def _rounded_up(size: sympy.Basic, by: Any) -> Any:
    """The least number of times that `by` makes up a size."""
    return FloorDiv(size + by - 1, by)  # type: ignore[operator]


def _size_below(of: Any, by: int) -> sympy.Basic | None:
    """The size that is missing from a multiple of `by`, as `of` is, but for multiples; None for another expression."""
    inner = {m: m.args[0] for m in of.atoms(Mod, PythonMod) if m.args[1] == by}
    size = _negated(of.xreplace(inner))
    if size is None:
        return None
    constant, rest = size.as_coeff_Add()
    return rest + constant % by if constant.is_Integer else None


def _negated(expr: Any) -> Any:
    """`size` for `number - size`, where all that is taken off are sizes; None for another expression."""
    constant, rest = (-expr).as_coeff_Add()
    terms = sympy.Add.make_args(rest)
    plain = all(not t.is_number and t.is_integer and t.as_coeff_Mul()[0].is_positive for t in terms)
    return constant + rest if plain and not expr.atoms(sympy.Float) else None
