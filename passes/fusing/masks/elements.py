"""Elements of tensors as sympy expressions: booleans of boolean tensors, numbers of all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import sympy
import torch
from sympy.logic.boolalg import Boolean

from ir.graph import Call, Value

Index: TypeAlias = tuple[Any, ...]
"""Integers and integer expressions, one for each dimension."""

_WIDE = (torch.bool, torch.int32, torch.int64)  # hold every position
_SMALL = 256  # every float type holds the integers up to here


class Unknown(Exception):
    """An element without a formula: of an operator without a rule, an input, a weight or a state."""


def is_truth(element: Any) -> bool:
    """Whether an element is a boolean expression."""
    return isinstance(element, Boolean) and not isinstance(element, sympy.Symbol)


def numeric(element: Any) -> Any:
    """A boolean as 1 or 0."""
    return sympy.Piecewise((1, element), (0, True)) if is_truth(element) else element


def boolean(element: Any) -> Any:
    """A number as a boolean: whether it differs from 0."""
    return element if is_truth(element) else sympy.Ne(element, 0)


def typed(element: Any, dtype: torch.dtype) -> Any:
    """An element as a tensor of `dtype` holds it.  Raises Unknown if it may be rounded or overflow."""
    element = sympy.sympify(element, strict=True)
    if dtype is torch.bool:
        return boolean(element)
    element = numeric(element)
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
    """`yes` where the condition holds, `no` elsewhere."""
    if is_truth(yes) and is_truth(no):
        return sympy.Or(sympy.And(condition, yes), sympy.And(sympy.Not(condition), no))
    return sympy.Piecewise((numeric(yes), condition), (numeric(no), True))


def constant(data: torch.Tensor, index: Index) -> Any:
    """An element of a constant: of one number, one on each side of the diagonal, or positions.  Raises Unknown."""
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
    """The number at and below the diagonal of the last two dimensions, and the number above it."""
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
        """The element at `index` of `tensor` broadcast to a larger shape."""
        last = index[len(index) - len(tensor.type.shape) :]
        own = tuple(0 if size == 1 else i for size, i in zip(tensor.type.shape, last, strict=True))
        return self._at(tensor, own)

    def here(self, name: str, index: Index) -> Any:
        """The same for an argument that may also be a number."""
        given = self[name]
        if not isinstance(given, Value):
            return sympy.sympify(given, strict=True)
        return self.element(given, index)

    def number(self, name: str, index: Index) -> Any:
        return numeric(self.here(name, index))

    def truth(self, name: str, index: Index) -> Any:
        return boolean(self.here(name, index))

    def axis(self, name: str = "dim") -> int:
        return self[name] % len(self.tensor("self").type.shape)
