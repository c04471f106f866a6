"""Formulas for the elements of tensors that are made of sizes and constants alone.

The element of `arange(seq)[None, :] <= arange(seq)[:, None]` at the index (q, k) is `k <= q`, whatever `seq` is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sympy
import torch

from ir.graph import Call, Constant, Graph, Value
from ir.operators.facts import Elements, rearrangement
from passes.fusing.masks.elements import CallElements, Index, Unknown, constant, is_truth, numeric, piecewise, typed


@dataclass
class Formulas:
    """The elements of the values of a graph.  `inputs`, if given, is the element of every integer input."""

    graph: Graph
    inputs: int | None = None
    known: dict[tuple[Value, Index], Any] = field(default_factory=dict)

    def at(self, value: Value, index: Index) -> Any:
        """The element at an index: a sympy Boolean if the tensor is boolean.  Raises Unknown."""
        key = (value, index)
        if key not in self.known:
            self.known[key] = self._find(value, index)
        return self.known[key]

    def _find(self, value: Value, index: Index) -> Any:
        if isinstance(value, Constant):
            return constant(value.data, index)
        if value in self.graph.inputs and self.inputs is not None and not value.type.dtype.is_floating_point:
            return typed(self.inputs, value.type.dtype)
        node = self.graph.producer.get(value)
        rule = _rule_of(node) if isinstance(node, Call) and not node.unpacks else None
        if rule is None:
            raise Unknown
        return self.held(rule(CallElements(self.at, node), index), value.type.dtype)  # type: ignore[arg-type]

    def held(self, element: Any, dtype: torch.dtype) -> Any:
        """An element as a tensor of `dtype` holds it.  Raises Unknown."""
        return typed(element, dtype)


def _rule_of(node: Call) -> _Rule | None:
    moves = rearrangement(node.op)
    rule = None if moves is None else _REARRANGED.get(moves.elements)
    return rule or _RULES.get(node.op._schema.name)


_Rule: TypeAlias = Callable[[CallElements, Index], Any]


# ---- a rule for each operator


def _pointwise(apply: Callable[..., Any], *names: str) -> _Rule:
    """A function of the numbers at the same index."""
    return lambda a, i: apply(*(a.number(name, i) for name in names))


def _logical(apply: Callable[..., Any], *names: str) -> _Rule:
    """A function of the booleans at the same index; bits of integers have no formula."""

    def rule(a: CallElements, i: Index) -> Any:
        if a.result.dtype is not torch.bool:
            raise Unknown
        return apply(*(a.truth(name, i) for name in names))

    return rule


def _scaled(sign: int) -> _Rule:
    return lambda a, i: a.number("self", i) + sign * a.number("other", i) * sympy.sympify(a["alpha"], strict=True)


def _product(a: CallElements, i: Index) -> Any:
    if a.result.dtype is torch.bool:
        return sympy.And(a.truth("self", i), a.truth("other", i))
    return a.number("self", i) * a.number("other", i)


def _filled(number: int) -> _Rule:
    return lambda a, i: sympy.sympify(number, strict=True)


def _arange(a: CallElements, i: Index) -> Any:
    start, step = a["start"] or 0, 1 if a["step"] is None else a["step"]
    return start + step * i[0]


def _same(a: CallElements, i: Index) -> Any:
    return a.at("self", i)


def _stretched(a: CallElements, i: Index) -> Any:
    return a.here("self", i)


def _where(a: CallElements, i: Index) -> Any:
    return piecewise(a.truth("condition", i), a.here("self", i), a.here("other", i))


def _masked_fill(a: CallElements, i: Index) -> Any:
    return piecewise(a.truth("mask", i), typed(a.here("value", i), a.result.dtype), a.here("self", i))


def _index_put(a: CallElements, i: Index) -> Any:
    """`x[mask] = number`, for a mask of the shape of x."""
    [mask, *others], number = a["indices"], a.tensor("values")
    same_rank = isinstance(mask, Value) and len(mask.type.shape) == len(i)
    if others or a["accumulate"] or number.type.shape or not same_rank or mask.type.dtype is not torch.bool:
        raise Unknown
    return piecewise(a.element(mask, i), typed(a.here("values", i), a.result.dtype), a.at("self", i))


def _triangle(keeps: Callable[[Any, Any], Any]) -> _Rule:
    """The elements whose distance from the diagonal satisfies `keeps`, and zeros elsewhere."""
    return lambda a, i: piecewise(keeps(i[-1] - i[-2], a["diagonal"]), *_or_zero(a.at("self", i)))


def _or_zero(element: Any) -> tuple[Any, Any]:
    return element, sympy.false if is_truth(element) else sympy.Integer(0)


def _transpose(a: CallElements, i: Index) -> Any:
    order = list(i)
    one, two = a.axis(name="dim0"), a.axis(name="dim1")
    order[one], order[two] = i[two], i[one]
    return a.at("self", tuple(order))


def _permute(a: CallElements, i: Index) -> Any:
    places = {dim % len(i): index for dim, index in zip(a["dims"], i, strict=True)}
    return a.at("self", tuple(places[dim] for dim in range(len(i))))


def _reshape(a: CallElements, i: Index) -> Any:
    """A reshape that adds and removes only dimensions of size 1."""
    before, after = a.tensor("self").type.shape, a.result.shape
    if [d for d in before if d != 1] != [d for d in after if d != 1]:
        raise Unknown
    rest = iter(index for index, size in zip(i, after, strict=True) if size != 1)
    return a.at("self", tuple(0 if size == 1 else next(rest) for size in before))


def _slice(a: CallElements, i: Index) -> Any:
    axis, start = a.axis(), _from_the_front(a["start"] or 0, a.tensor("self").type.shape[a.axis()])
    return a.at("self", (*i[:axis], start + a["step"] * i[axis], *i[axis + 1 :]))


def _select(a: CallElements, i: Index) -> Any:
    axis = a.axis()
    return a.at("self", (*i[:axis], _from_the_front(a["index"], a.tensor("self").type.shape[axis]), *i[axis:]))


def _from_the_front(index: Any, size: Any) -> Any:
    """A nonnegative index for one that may count from the end.  Raises Unknown if it cannot be resolved."""
    if sympy.sympify(index, strict=True).is_nonnegative:
        return index
    if isinstance(index, int) and isinstance(size, int):
        return max(index + size, 0)
    raise Unknown


def _gather(a: CallElements, i: Index) -> Any:
    """`x[:, rows, columns]`: integer tensors for adjacent dimensions."""
    lead = next(n for n, t in enumerate(a["indices"]) if t is not None)
    tensors: list[Value] = a["indices"][lead:]
    if any(t is None or t.type.dtype is torch.bool for t in tensors):
        raise Unknown
    rank = max(len(t.type.shape) for t in tensors)
    here = i[lead : lead + rank]
    found = [a.element(t, here) for t in tensors]
    if not all(element.is_nonnegative for element in found):
        raise Unknown
    return a.at("self", (*i[:lead], *found, *i[lead + rank :]))


def _diff(a: CallElements, i: Index) -> Any:
    """The first difference along a dimension, with one element prepended."""
    axis, before = a.axis(), a["prepend"]
    if a["n"] != 1 or a["append"] is not None or before is None or before.type.shape[axis] != 1:
        raise Unknown
    first = a.at("self", (*i[:axis], 0, *i[axis + 1 :])) - a.element(before, (*i[:axis], 0, *i[axis + 1 :]))
    later = a.at("self", i) - a.at("self", (*i[:axis], i[axis] - 1, *i[axis + 1 :]))
    return sympy.Piecewise((first, sympy.Eq(i[axis], 0)), (later, True))


def _cumsum(a: CallElements, i: Index) -> Any:
    """The cumulative sum of equal elements."""
    axis, along = a.axis(), sympy.Dummy(integer=True, nonnegative=True)
    element = numeric(a.at("self", (*i[:axis], along, *i[axis + 1 :])))
    if element.has(along):
        raise Unknown
    return element * (i[axis] + 1)


_REARRANGED: Mapping[Elements, _Rule] = {
    Elements.SAME: _same,
    Elements.CAST: _same,
    Elements.EXPANDED: _stretched,
    Elements.RESHAPED: _reshape,
}

_RULES: Mapping[str, _Rule] = {
    f"aten::{name}": rule
    for names, rule in {
        "arange": _arange,
        "ones ones_like new_ones": _filled(1),
        "zeros zeros_like new_zeros": _filled(0),
        "full full_like new_full": lambda a, i: sympy.sympify(a["fill_value"], strict=True),
        "scalar_tensor": lambda a, i: sympy.sympify(a["s"], strict=True),
        "fill": lambda a, i: a.number("value", i),
        "transpose": _transpose,
        "permute": _permute,
        "slice": _slice,
        "select": _select,
        "index": _gather,
        "diff": _diff,
        "cumsum": _cumsum,
        "tril": _triangle(sympy.Le),
        "triu": _triangle(sympy.Ge),
        "where": _where,
        "masked_fill": _masked_fill,
        "index_put": _index_put,
        "__and__ logical_and bitwise_and": _logical(sympy.And, "self", "other"),
        "__or__ logical_or bitwise_or": _logical(sympy.Or, "self", "other"),
        "logical_not bitwise_not": _logical(sympy.Not, "self"),
        "add": _scaled(1),
        "sub": _scaled(-1),
        "rsub": lambda a, i: a.number("other", i) - a.number("self", i) * sympy.sympify(a["alpha"], strict=True),
        "mul": _product,
        "neg": _pointwise(operator.neg, "self"),
        "eq": _pointwise(sympy.Eq, "self", "other"),
        "ne": _pointwise(sympy.Ne, "self", "other"),
        "lt": _pointwise(sympy.Lt, "self", "other"),
        "le": _pointwise(sympy.Le, "self", "other"),
        "gt": _pointwise(sympy.Gt, "self", "other"),
        "ge": _pointwise(sympy.Ge, "self", "other"),
    }.items()
    for name in names.split()
}
