"""The keys that each query sees, and what its scores gain by their places: from the formulas of masks and addends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from sympy.core.relational import Ge, Gt, Le, Lt

from ir.graph import Value
from passes.fusing.attention.scores import HEAD, KEY, Addend, Mask, Scores
from passes.fusing.masks.elements import Index, Unknown, is_truth, numeric, typed
from passes.fusing.masks.formulas import Formulas
from passes.fusing.masks.kinds import NEVER


@dataclass
class Terms(Formulas):
    """Formulas over KEY in which elements that do not depend on it are symbols, or sums of them."""

    tensors: dict[sympy.Symbol, tuple[Value, Index]] = field(default_factory=dict)  # what the symbols stand for

    def _find(self, value: Value, index: Index) -> Any:
        by_key = any(sympy.sympify(i, strict=True).has(KEY) for i in index)
        try:
            found = super()._find(value, index)
            if by_key or self._is_sum(found):
                return found
        except Unknown:
            if by_key:
                raise
        if value.type.dtype is torch.bool:
            raise Unknown
        whole = not value.type.dtype.is_floating_point
        symbol = sympy.Symbol(f"{value.name}[{', '.join(map(str, index))}]", real=True, integer=whole or None)
        self.tensors[symbol] = value, index
        return symbol

    def _is_sum(self, element: Any) -> bool:
        """Whether an element is a number, or a sum of symbols."""
        terms = element.as_coefficients_dict() if not is_truth(element) else {element: 1}
        return all(term == 1 or term in self.tensors for term in terms)

    def held(self, element: Any, dtype: torch.dtype) -> Any:
        """Of floats as if they were exact: attention of another kind rounds in other places anyway."""
        return numeric(sympy.sympify(element, strict=True)) if dtype.is_floating_point else typed(element, dtype)


@dataclass(frozen=True)
class Visible:
    """The keys that a query sees, and what the scores of a head gain a key."""

    last: tuple[Any, ...]  # places of keys, of which the least is the last that is seen
    window: int  # of the keys up to the last the number that is seen; 0: all
    slope: Any  # 0, or the symbol of an element of a tensor


def visible(scores: Scores, terms: Terms) -> Visible:
    """The outcome of the masks of scores and of all that is added to them.  Raises Unknown for another form."""
    conditions: list[Any] = []
    slope: Any = sympy.Integer(0)
    for added in scores.added:
        match added:
            case Mask(value, index, shown):
                truth = _plain(terms.at(value, index))
                conditions.append(truth if shown else sympy.Not(truth))
            case Addend(value, index, factor):
                truth, rest = _parted(terms.at(value, index))
                conditions.append(truth)
                slope += _slope(rest) * sympy.nsimplify(factor)
    bounds = [_bound(c) for condition in conditions for c in sympy.And.make_args(condition) if c != sympy.true]
    ends = tuple(dict.fromkeys(place for place, last in bounds if last))
    starts = tuple(dict.fromkeys(place for place, last in bounds if not last and not place.is_nonpositive))
    if not ends or not (slope == 0 or slope.is_Symbol):
        raise Unknown
    return Visible(ends, _window(ends, starts) if starts else 0, slope)


def _window(ends: tuple[Any, ...], starts: tuple[Any, ...]) -> int:
    """The number of keys from the one place where a condition begins to hold to the one where it ceases."""
    size = sympy.expand(ends[0] - starts[0] + 1)
    if len(ends) > 1 or len(starts) > 1 or not size.is_Integer or size < 1:
        raise Unknown
    return int(size)


def _parted(element: Any) -> tuple[Any, Any]:
    """The condition under which an addend leaves a score in use, and what it is there."""
    if is_truth(element):
        raise Unknown
    element = sympy.piecewise_fold(element)
    if not isinstance(element, sympy.Piecewise):
        return sympy.true, element
    cases: Any = element.args
    hidden = [bool(sympy.expand(number).as_coefficients_dict()[1] <= NEVER) for number, _ in cases]
    if hidden not in ([True, False], [False, True]):
        raise Unknown
    (first, condition), (second, _) = cases
    return (sympy.Not(condition), second) if hidden[0] else (condition, first)


def _plain(condition: Any) -> Any:
    """A comparison of a number with one of two as the condition between these."""
    sides = condition.args if isinstance(condition, (sympy.Eq, sympy.Ne)) else ()
    cases: Any = next((side.args for side in sides if isinstance(side, sympy.Piecewise)), ())
    number = next((side for side in sides if side.is_number), None)
    if len(cases) != 2 or number is None:
        return condition
    truths = [condition.func(case, number) for case, _ in cases]
    if truths == [sympy.true, sympy.false]:
        return cases[0][1]
    return sympy.Not(cases[0][1]) if truths == [sympy.false, sympy.true] else condition


def _slope(element: Any) -> Any:
    """The gain of an addend from one key to the next, the same at all places; softmax does not see the rest."""
    element = sympy.expand(element)
    slope = element.coeff(KEY)
    if slope.has(KEY) or (element - slope * KEY).has(KEY):
        raise Unknown
    return slope


def _bound(condition: Any) -> tuple[Any, bool]:
    """A condition on KEY as the last place where it holds, and True; or as the first, and False."""
    if not isinstance(condition, (Le, Lt, Ge, Gt)):
        raise Unknown
    difference: Any = sympy.expand(condition.lhs - condition.rhs)  # type: ignore[operator]
    if isinstance(condition, (Ge, Gt)):
        difference = -difference
    if isinstance(condition, (Lt, Gt)):
        difference += 1
    factor = difference.coeff(KEY)
    rest = sympy.expand(difference - factor * KEY)
    if factor not in (1, -1) or rest.has(KEY) or not rest.is_integer:
        raise Unknown
    return (-rest, True) if factor == 1 else (rest, False)


def elements_of(symbol: Any, terms: Terms, index: Index) -> Value:
    """The tensor of whose elements at this index a symbol stands for one.  Raises Unknown for any other."""
    value, own = terms.tensors.get(symbol, (None, ()))
    if value is None or tuple(own) != tuple(index):
        raise Unknown
    return value


def by_head(symbol: Any, terms: Terms) -> Value:
    """The tensor `[heads]` with this element for each head.  Raises Unknown."""
    return elements_of(symbol, terms, (HEAD,))
