"""What stands at an index of a tensor that is made of sizes and constants alone, as a formula.

`arange(seq)[None, :] <= arange(seq)[:, None]` has `k <= q` at the index (q, k), whatever `seq` is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sympy
import torch
from sympy.logic.boolalg import Boolean

from ir.graph import Call, Constant, Graph, Value

Index: TypeAlias = tuple[Any, ...]
"""Whole numbers and expressions, one a dimension."""

_WIDE = (torch.bool, torch.int32, torch.int64)  # no position overflows them
_SMALL = 256  # to here every float type counts exactly


class Unknown(Exception):
    """No formula is known: an operator without a rule, or a value of an input, a weight or a state."""


@dataclass
class Formulas:
    """The elements of the values of a graph.  `inputs` is what all inputs of whole numbers are taken to be full of."""

    graph: Graph
    inputs: int | None = None
    known: dict[tuple[Value, Index], Any] = field(default_factory=dict)

    def at(self, value: Value, index: Index) -> Any:
        """The element at an index: a sympy Boolean where the tensor is boolean.  Raises Unknown."""
        key = (value, index)
        if key not in self.known:
            self.known[key] = self._find(value, index)
        return self.known[key]

    def _find(self, value: Value, index: Index) -> Any:
        if isinstance(value, Constant):
            return _constant(value.data, index)
        if value in self.graph.inputs and self.inputs is not None and not value.type.dtype.is_floating_point:
            return _typed(self.inputs, value.type.dtype)
        node = self.graph.producer.get(value)
        rule = _RULES.get(node.op._schema.name) if isinstance(node, Call) and not node.unpacks else None
        if rule is None:
            raise Unknown
        return _typed(rule(_Arguments(self, node), index), value.type.dtype)  # type: ignore[arg-type]


class _Arguments:
    """The arguments of a node by name, and the elements of those that are tensors."""

    def __init__(self, formulas: Formulas, node: Call) -> None:
        self._formulas = formulas
        taken = node.op._schema.arguments
        self._given = {a.name: a.default_value for a in taken} | dict(zip((a.name for a in taken), node.args))  # noqa: B905
        self._given |= node.kwargs
        self.result = node.results[0].type

    def __getitem__(self, name: str) -> Any:
        return self._given.get(name)

    def tensor(self, name: str) -> Value:
        if not isinstance(self[name], Value):
            raise Unknown
        return self[name]

    def at(self, name: str, index: Index) -> Any:
        return self._formulas.at(self.tensor(name), index)

    def element(self, tensor: Value, index: Index) -> Any:
        """That of a tensor which is stretched to a shape with such an index."""
        last = index[len(index) - len(tensor.type.shape) :]
        own = tuple(0 if size == 1 else i for size, i in zip(tensor.type.shape, last, strict=True))
        return self._formulas.at(tensor, own)

    def here(self, name: str, index: Index) -> Any:
        """The same for an argument that may be a number, too."""
        given = self[name]
        if not isinstance(given, Value):
            return sympy.sympify(given)
        return self.element(given, index)

    def number(self, name: str, index: Index) -> Any:
        return _number(self.here(name, index))

    def truth(self, name: str, index: Index) -> Any:
        return _truth(self.here(name, index))

    def axis(self, of: str = "self", name: str = "dim", more: int = 0) -> int:
        return self[name] % (len(self.tensor(of).type.shape) + more)


_Rule: TypeAlias = Callable[[_Arguments, Index], Any]


# ---- truths and numbers


def _is_truth(element: Any) -> bool:
    return isinstance(element, Boolean) and not isinstance(element, sympy.Symbol)


def _number(element: Any) -> Any:
    return sympy.Piecewise((1, element), (0, True)) if _is_truth(element) else element


def _truth(element: Any) -> Any:
    return element if _is_truth(element) else sympy.Ne(element, 0)


def _typed(element: Any, dtype: torch.dtype) -> Any:
    """An element as a tensor of that dtype holds it.  Raises Unknown where it may be rounded, or wrap around."""
    element = sympy.sympify(element)
    if dtype is torch.bool:
        return _truth(element)
    element = _number(element)
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


def _constant(data: torch.Tensor, index: Index) -> Any:
    """An element of a table that holds one number, or one below and one above the diagonal, or counts along a row."""
    if data.is_meta or not data.numel():
        raise Unknown
    if bool((data == (first := data.flatten()[0])).all()):
        return _typed(first.item(), data.dtype)
    if data.ndim >= 2 and (halves := _halves(data)) is not None:
        low, high = (_typed(number, data.dtype) for number in halves)
        return _choice(sympy.Le(index[-1], index[-2]), low, high)
    if data.dtype in _WIDE and bool((data == torch.arange(data.shape[-1])).all()):
        return index[-1]
    raise Unknown


def _halves(data: torch.Tensor) -> tuple[Any, Any] | None:
    """The number at and below the diagonal of the last two dimensions, and the one above."""
    low, high = data.flatten()[0], data[..., 0, -1].flatten()[0]
    below = torch.ones(data.shape[-2:], dtype=torch.bool).tril()
    return (low.item(), high.item()) if bool((data == torch.where(below, low, high)).all()) else None


def _choice(condition: Any, yes: Any, no: Any) -> Any:
    if _is_truth(yes) and _is_truth(no):
        return sympy.Or(sympy.And(condition, yes), sympy.And(sympy.Not(condition), no))
    return sympy.Piecewise((_number(yes), condition), (_number(no), True))


# ---- a rule for each operator


def _pointwise(apply: Callable[..., Any], *names: str) -> _Rule:
    """Of numbers, one at each index."""
    return lambda a, i: apply(*(a.number(name, i) for name in names))


def _logical(apply: Callable[..., Any], *names: str) -> _Rule:
    """Of truths; the bits of whole numbers are another matter."""

    def rule(a: _Arguments, i: Index) -> Any:
        if a.result.dtype is not torch.bool:
            raise Unknown
        return apply(*(a.truth(name, i) for name in names))

    return rule


def _scaled(sign: int) -> _Rule:
    return lambda a, i: a.number("self", i) + sign * a.number("other", i) * sympy.sympify(a["alpha"])


def _product(a: _Arguments, i: Index) -> Any:
    if a.result.dtype is torch.bool:
        return sympy.And(a.truth("self", i), a.truth("other", i))
    return a.number("self", i) * a.number("other", i)


def _filled(number: int) -> _Rule:
    return lambda a, i: sympy.sympify(number)


def _arange(a: _Arguments, i: Index) -> Any:
    start, step = a["start"] or 0, 1 if a["step"] is None else a["step"]
    return start + step * i[0]


def _same(a: _Arguments, i: Index) -> Any:
    return a.at("self", i)


def _stretched(a: _Arguments, i: Index) -> Any:
    return a.here("self", i)


def _where(a: _Arguments, i: Index) -> Any:
    return _choice(a.truth("condition", i), a.here("self", i), a.here("other", i))


def _masked_fill(a: _Arguments, i: Index) -> Any:
    return _choice(a.truth("mask", i), _typed(a.here("value", i), a.result.dtype), a.here("self", i))


def _index_put(a: _Arguments, i: Index) -> Any:
    """`x[mask] = number`."""
    [mask, *others], number = a["indices"], a.tensor("values")
    same_rank = isinstance(mask, Value) and len(mask.type.shape) == len(i)
    if others or a["accumulate"] or number.type.shape or not same_rank or mask.type.dtype is not torch.bool:
        raise Unknown
    return _choice(a.element(mask, i), _typed(a.here("values", i), a.result.dtype), a.at("self", i))


def _triangle(keeps: Callable[[Any, Any], Any]) -> _Rule:
    """The elements whose distance from the diagonal is in bounds, and zeros."""
    return lambda a, i: _choice(keeps(i[-1] - i[-2], a["diagonal"]), *_or_zero(a.at("self", i)))


def _or_zero(element: Any) -> tuple[Any, Any]:
    return element, sympy.false if _is_truth(element) else sympy.Integer(0)


def _unsqueeze(a: _Arguments, i: Index) -> Any:
    axis = a.axis(more=1)
    return a.at("self", i[:axis] + i[axis + 1 :])


def _transpose(a: _Arguments, i: Index) -> Any:
    order = list(i)
    one, two = a.axis(name="dim0"), a.axis(name="dim1")
    order[one], order[two] = i[two], i[one]
    return a.at("self", tuple(order))


def _permute(a: _Arguments, i: Index) -> Any:
    places = {dim % len(i): index for dim, index in zip(a["dims"], i, strict=True)}
    return a.at("self", tuple(places[dim] for dim in range(len(i))))


def _reshape(a: _Arguments, i: Index) -> Any:
    """Where only dimensions of size 1 come and go."""
    before, after = a.tensor("self").type.shape, a.result.shape
    if [d for d in before if d != 1] != [d for d in after if d != 1]:
        raise Unknown
    rest = iter(index for index, size in zip(i, after, strict=True) if size != 1)
    return a.at("self", tuple(0 if size == 1 else next(rest) for size in before))


def _slice(a: _Arguments, i: Index) -> Any:
    axis, start = a.axis(), _from_the_front(a["start"] or 0, a.tensor("self").type.shape[a.axis()])
    return a.at("self", (*i[:axis], start + a["step"] * i[axis], *i[axis + 1 :]))


def _select(a: _Arguments, i: Index) -> Any:
    axis = a.axis()
    return a.at("self", (*i[:axis], _from_the_front(a["index"], a.tensor("self").type.shape[axis]), *i[axis:]))


def _from_the_front(index: Any, size: Any) -> Any:
    """An index that may count from the end; one past the start of a size that is not known has no formula."""
    if sympy.sympify(index).is_nonnegative:
        return index
    if isinstance(index, int) and isinstance(size, int):
        return max(index + size, 0)
    raise Unknown


def _gather(a: _Arguments, i: Index) -> Any:
    """`x[:, rows, columns]`: tensors of whole numbers that stand side by side."""
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


def _diff(a: _Arguments, i: Index) -> Any:
    """The first difference, of a row before which one element is put."""
    axis, before = a.axis(), a["prepend"]
    if a["n"] != 1 or a["append"] is not None or before is None or before.type.shape[axis] != 1:
        raise Unknown
    first = a.at("self", (*i[:axis], 0, *i[axis + 1 :])) - a.element(before, (*i[:axis], 0, *i[axis + 1 :]))
    later = a.at("self", i) - a.at("self", (*i[:axis], i[axis] - 1, *i[axis + 1 :]))
    return sympy.Piecewise((first, sympy.Eq(i[axis], 0)), (later, True))


def _cumsum(a: _Arguments, i: Index) -> Any:
    """Of a row that holds one number."""
    axis, along = a.axis(), sympy.Dummy(integer=True, nonnegative=True)
    element = _number(a.at("self", (*i[:axis], along, *i[axis + 1 :])))
    if element.has(along):
        raise Unknown
    return element * (i[axis] + 1)


_RULES: Mapping[str, _Rule] = {
    f"aten::{name}": rule
    for names, rule in {
        "arange": _arange,
        "ones ones_like new_ones": _filled(1),
        "zeros zeros_like new_zeros": _filled(0),
        "full full_like new_full": lambda a, i: sympy.sympify(a["fill_value"]),
        "scalar_tensor": lambda a, i: sympy.sympify(a["s"]),
        "fill": lambda a, i: a.number("value", i),
        "alias clone contiguous detach lift_fresh_copy to _to_copy type_as": _same,
        "expand expand_as broadcast_to": _stretched,
        "unsqueeze": _unsqueeze,
        "squeeze view reshape _unsafe_view view_as flatten unflatten": _reshape,
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
        "rsub": lambda a, i: a.number("other", i) - a.number("self", i) * sympy.sympify(a["alpha"]),
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
