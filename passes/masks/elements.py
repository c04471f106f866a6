"""Elements of tensors as formulas: truths of boolean tensors, numbers of all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import sympy
import torch
from sympy.logic.boolalg import Boolean

from ir.graph import Call, Value

Index: TypeAlias = tuple[Any, ...]
"""Whole numbers and expressions, one a dimension."""

_WIDE = (torch.bool, torch.int32, torch.int64)  # no position overflows them
_SMALL = 256  # to here every float type counts exactly


class Unknown(Exception):
    """No formula is known: an operator without a rule, or a value of an input, a weight or a state."""


def is_truth(element: Any) -> bool:
    return isinstance(element, Boolean) and not isinstance(element, sympy.Symbol)


def number(element: Any) -> Any:
    return sympy.Piecewise((1, element), (0, True)) if is_truth(element) else element


def truth(element: Any) -> Any:
    return element if is_truth(element) else sympy.Ne(element, 0)


def typed(element: Any, dtype: torch.dtype) -> Any:
    """An element as a tensor of that dtype holds it.  Raises Unknown where it may be rounded, or wrap around."""
    element = sympy.sympify(element)
    if dtype is torch.bool:
        return truth(element)
    element = number(element)
    if dtype in _WIDE and element.is_integer:
        return element
    element = sympy.piecewise_fold(element)
    cases = [case.args[0] for case in element.args] if isinstance(element, sympy.Piecewise) else [element]
    if not all(_exact(case, dtype) for case in cases):
        raise Unknown
    return element


def _exact(number: Any, dtype: torch.dtype) -> bool:
    if dtype.is_floating_point and (number.is_Float or number.is_infinite):
        return True
    return bool(number.is_Integer and (0 if dtype is torch.uint8 else -_SMALL // 2) <= number < _SMALL // 2)


def piecewise(condition: Any, yes: Any, no: Any) -> Any:
    if is_truth(yes) and is_truth(no):
        return sympy.Or(sympy.And(condition, yes), sympy.And(sympy.Not(condition), no))
    return sympy.Piecewise((number(yes), condition), (number(no), True))


def constant(data: torch.Tensor, index: Index) -> Any:
    """An element of a table that holds one number, or one below and one above the diagonal, or counts along a row."""
    if data.is_meta or not data.numel():
        raise Unknown
    if bool((data == (first := data.flatten()[0])).all()):
        return typed(first.item(), data.dtype)
    if data.ndim >= 2 and (halves := _halves(data)) is not None:
        low, high = (typed(number, data.dtype) for number in halves)
        return piecewise(sympy.Le(index[-1], index[-2]), low, high)
    if data.dtype in _WIDE and bool((data == torch.arange(data.shape[-1])).all()):
        return index[-1]
    raise Unknown


def _halves(data: torch.Tensor) -> tuple[Any, Any] | None:
    """The number at and below the diagonal of the last two dimensions, and the one above."""
    low, high = data.flatten()[0], data[..., 0, -1].flatten()[0]
    below = torch.ones(data.shape[-2:], dtype=torch.bool).tril()
    return (low.item(), high.item()) if bool((data == torch.where(below, low, high)).all()) else None


class CallElements:
    """The arguments of a node by name, and the elements of those that are tensors."""

    def __init__(self, at: Callable[[Value, Index], Any], node: Call) -> None:
        self._at = at
        self._given = node.arguments
        self.result = node.results[0].type

    def __getitem__(self, name: str) -> Any:
        return self._given.get(name)

    def tensor(self, name: str) -> Value:
        if not isinstance(self[name], Value):
            raise Unknown
        return self[name]

    def at(self, name: str, index: Index) -> Any:
        return self._at(self.tensor(name), index)

    def element(self, tensor: Value, index: Index) -> Any:
        """That of a tensor which is stretched to a shape with such an index."""
        last = index[len(index) - len(tensor.type.shape) :]
        own = tuple(0 if size == 1 else i for size, i in zip(tensor.type.shape, last, strict=True))
        return self._at(tensor, own)

    def here(self, name: str, index: Index) -> Any:
        """The same for an argument that may be a number, too."""
        given = self[name]
        if not isinstance(given, Value):
            return sympy.sympify(given)
        return self.element(given, index)

    def number(self, name: str, index: Index) -> Any:
        return number(self.here(name, index))

    def truth(self, name: str, index: Index) -> Any:
        return truth(self.here(name, index))

    def axis(self, name: str = "dim") -> int:
        return self[name] % len(self.tensor("self").type.shape)
