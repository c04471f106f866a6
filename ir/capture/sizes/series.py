"""Elements of tensors that follow from sizes, `first + i * step`, and what operators make of them."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ir.operators.facts import aten

Number: TypeAlias = Any
"""An int, a bool, or torch's SymInt or SymBool."""
_INTEGERS = (torch.int64, torch.int32)
_EXACT = (*_INTEGERS, torch.float32, torch.float64, torch.bool)  # which hold any size: float32 those below 2 ** 24
_LEAST_BITS = {torch.float32: 24, torch.int32: 31}  # of the whole numbers of a type; others hold 53
_SIZE_BITS = 14  # that are left for a size beside the numbers that it is multiplied by, or added to


@dataclass(frozen=True)
class Series:
    """Elements that are `first + i * step` at place `i` of a dimension, counted from the last one, -1."""

    first: Number
    step: Number = 0
    dim: int = -1

    @property
    def is_even(self) -> bool:
        """Whether all elements are the same."""
        return isinstance(self.step, int) and self.step == 0

    def times(self, factor: Number) -> Series:
        return replace(self, first=self.first * factor, step=0 if self.is_even else self.step * factor)


Known: TypeAlias = Callable[[Any], Series | None]
"""The elements of an argument, of a tensor or a number; None where they are not known."""
SeriesRule: TypeAlias = Callable[[Known, Sequence[Any], Mapping[str, Any], Any], Series | None]
"""From the arguments of an operator and its result to what is known of that."""


def elements_made(op: Any, known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    """The elements of a tensor that an operator has made; None where they do not follow from what is known."""
    rule = _RULES.get(getattr(op, "overloadpacket", None))
    if rule is None or not isinstance(made, torch.Tensor) or made.dtype not in _EXACT or op is aten.view.dtype:
        return None
    found = rule(_numbers_alone(known) if op.overloadpacket in _ARITHMETIC else known, args, kwargs, made)
    if found is None or _is_truth(found.first) != (made.dtype is torch.bool):
        return None  # as where a mask is filled with 5: what is read from it is True
    if not all(_fits(number, made.dtype) for number in (found.first, found.step)):
        return None
    if -found.dim > made.dim():
        return found if found.is_even else None
    return replace(found, step=0) if _is_number(made.shape[found.dim], 1) else found


def _numbers_alone(known: Known) -> Known:
    """Elements of an argument; None of truth values, which Python and torch do not calculate with alike."""

    def of(value: Any) -> Series | None:
        found = known(value)
        return None if found is None or _is_truth(found.first) else found

    return of


def _fits(value: Number, dtype: torch.dtype) -> bool:
    """Whether a type holds a number as it is: a result that wraps around, or is rounded, is not known."""
    if _is_truth(value):
        return True
    bits = _LEAST_BITS.get(dtype, 53)
    if isinstance(value, int):
        return abs(value) < 2**bits
    expr = value.node.expr
    if any(abs(n) >= 2 ** (bits - _SIZE_BITS) for n in expr.atoms(sympy.Integer)):
        return False
    several = (sum(bool(a.free_symbols) for a in product.args) > 1 for product in expr.atoms(sympy.Mul))
    return bits == 53 or not (any(several) or expr.atoms(sympy.Pow))


def _is_truth(value: Number) -> bool:
    return isinstance(value, (bool, torch.SymBool))


def is_followed(op: Any) -> bool:
    """Whether a rule says what an operator makes."""
    return getattr(op, "overloadpacket", None) in _RULES


def element_of(value: Any) -> Number | None:
    """A whole number or a truth value, as one that series hold; None for any other."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, torch.SymInt, torch.SymBool)) else None


def _is_number(size: Any, value: int) -> bool:
    return isinstance(size, int) and size == value


def _same(one: Number, other: Number) -> bool:
    """Whether two numbers are equal at all sizes, as they are written."""
    numbers = [n.node.expr if isinstance(n, torch.SymInt) else n for n in (one, other)]
    return bool(numbers[0] == numbers[1])


# ---- tensors from numbers


def _filled(place: int | None, value: int = 0) -> SeriesRule:
    """A tensor of one number: the argument at a `place`, or a `value`."""

    def rule(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
        given = value if place is None else args[place] if place < len(args) else kwargs.get("fill_value")
        found = element_of(given)
        return None if found is None else Series(found)

    return rule


def _arange(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    start, step = args[0] if len(args) > 1 else 0, args[2] if len(args) > 2 else kwargs.get("step", 1)
    first, by = element_of(start), element_of(step)
    return None if first is None or by is None else Series(first, by)


# ---- the same elements, and parts of them


def _same_elements(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    return known(args[0])


def _copied(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    """The same elements in another type: neither truth values of numbers nor the other way round."""
    is_truth = args[0].dtype is torch.bool, made.dtype is torch.bool
    return known(args[0]) if is_truth[0] == is_truth[1] else None


def _reshaped(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    found = known(args[0])
    return found if found is not None and found.is_even else None


def _unsqueezed(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    found, behind = known(args[0]), args[1] % made.dim() - made.dim()
    return found if found is None or behind < found.dim else replace(found, dim=found.dim - 1)


def _selected(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    x, dim, place = args
    found, at = known(x), dim % x.dim() - x.dim()
    if found is None or (found.dim != at and not found.is_even):
        return None if found is None or at < found.dim else replace(found, dim=found.dim + 1)
    if found.is_even:
        return found
    if (index := element_of(place)) is None or (isinstance(index, torch.SymInt) and not index.node.expr.is_nonnegative):
        return None
    index = index if isinstance(index, torch.SymInt) or index >= 0 else x.shape[at] + index
    return Series(found.first + index * found.step)


def _sliced(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    given: tuple[Any, ...] = (*args, *(0, None, None, 1)[len(args) - 1 :])
    x, dim, start, end, by = given
    found = known(x)
    if found is None or found.is_even or found.dim != dim % x.dim() - x.dim():
        return found
    if start is None or (isinstance(start, int) and start >= 0):
        skipped = start or 0
    elif by == 1 and (end is None or (isinstance(end, int) and end == sys.maxsize)):
        skipped = x.shape[dim] - made.shape[dim]
    else:
        return None
    return replace(found, first=found.first + skipped * found.step, step=found.step * by)


def _joined(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    """One number ahead of a series that goes on from it: a token of its own ahead of the positions of others."""
    if len(args[0]) != 2 or made.dim() != 1:
        return None
    one, rest = map(known, args[0])
    if one is None or rest is None or not _is_number(args[0][0].shape[0], 1):
        return None
    return Series(one.first, rest.step) if _same(one.first + rest.step, rest.first) else None


# ---- numbers from numbers


def _of_both(function: Callable[[Number, Number], Number], is_linear: bool = False) -> SeriesRule:
    """An operator on two tensors, or on a tensor and a number; other than `is_linear`, where all are the same."""

    def rule(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
        one, other = known(args[0]), known(args[1])
        if one is None or other is None or args[2:] or element_of(kwargs.get("alpha", 1)) != 1:
            return None
        if is_linear and made.dtype is torch.bool:
            return None
        if one.is_even and other.is_even:
            return Series(function(one.first, other.first))
        if not is_linear or (one.dim != other.dim and not one.is_even and not other.is_even):
            return None
        dim = other.dim if one.is_even else one.dim
        return Series(function(one.first, other.first), function(one.step, other.step), dim)

    return rule


def _times(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    one, other = known(args[0]), known(args[1])
    if one is None or other is None or not (one.is_even or other.is_even) or made.dtype is torch.bool:
        return None
    series, factor = (other, one.first) if one.is_even else (one, other.first)
    return series.times(factor)


def _divided(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    """A quotient that is rounded down, of what is not negative where it is rounded to zero."""
    mode = args[2] if len(args) > 2 else kwargs.get("rounding_mode", "floor")
    one, by = known(args[0]), known(args[1])
    if one is None or by is None or not (one.is_even and by.is_even) or mode is None:
        return None
    if not isinstance(by.first, int) or by.first < 1 or (mode == "trunc" and not _is_never_negative(one.first)):
        return None
    return Series(one.first // by.first)


def _remainder(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    """The rest of a division by a number that is not zero."""
    by = known(args[1])
    if by is None or _is_number(by.first, 0):
        return None
    return _of_both(operator.mod)(known, args, kwargs, made)


def _is_never_negative(value: Number) -> bool:
    return bool(value.node.expr.is_nonnegative) if isinstance(value, torch.SymInt) else value >= 0


def _negated(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    return None if (found := known(args[0])) is None else found.times(-1)


def _clamped(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    found = known(args[0])
    if found is None or not found.is_even:
        return None
    least, most = (args[i] if len(args) > i else kwargs.get(name) for i, name in ((1, "min"), (2, "max")))
    value = found.first
    for bound, limited in ((least, torch.sym_max), (most, torch.sym_min)):
        if bound is not None:
            limit = known(bound)
            if limit is None or not limit.is_even:
                return None
            value = limited(value, limit.first)
    return Series(value)


def _extreme(is_last: bool) -> SeriesRule:
    """The largest element, at the end of a series that grows, or the least."""

    def rule(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
        found = known(args[0])
        if found is None or len(args) > 1 or kwargs:
            return None
        if found.is_even:
            return Series(found.first)
        if not isinstance(found.step, int):
            return None
        at_end = (found.step > 0) == is_last
        return Series(found.first + (args[0].shape[found.dim] - 1) * found.step if at_end else found.first)

    return rule


def _of_truth(known: Known, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Series | None:
    """Whether any, or all, of elements that are the same, and of which there are some at any size."""
    found = known(args[0]) if len(args) == 1 and not kwargs else None
    if found is None or not found.is_even or not statically_known_true(args[0].numel() > 0):
        return None
    return Series(_not_equal(found.first, 0))


def _not_equal(one: Number, other: Number) -> Number:
    if isinstance(one, (bool, torch.SymBool)) and isinstance(other, int) and other == 0:
        return one
    return one != other


_KEEP = ("clone", "detach", "alias", "lift_fresh", "lift_fresh_copy", "contiguous", "expand", "detach_")
_RULES: Mapping[Any, SeriesRule] = {
    **{getattr(aten, name): _same_elements for name in _KEEP},
    aten._to_copy: _copied,
    aten.scalar_tensor: _filled(0),
    aten.full: _filled(1),
    aten.new_full: _filled(2),
    aten.full_like: _filled(1),
    **{getattr(aten, name): _filled(None, 1) for name in ("ones", "new_ones", "ones_like")},
    **{getattr(aten, name): _filled(None, 0) for name in ("zeros", "new_zeros", "zeros_like")},
    aten.arange: _arange,
    **{getattr(aten, name): _reshaped for name in ("view", "_unsafe_view", "reshape", "permute", "transpose", "t")},
    aten.unsqueeze: _unsqueezed,
    aten.select: _selected,
    aten.slice: _sliced,
    aten.cat: _joined,
    aten.add: _of_both(operator.add, is_linear=True),
    aten.sub: _of_both(operator.sub, is_linear=True),
    aten.rsub: _of_both(lambda one, other: other - one, is_linear=True),
    aten.mul: _times,
    aten.neg: _negated,
    aten.floor_divide: _divided,
    aten.div: lambda known, args, kwargs, made: (
        _divided(known, args, kwargs, made) if "rounding_mode" in kwargs or len(args) > 2 else None
    ),
    aten.remainder: _remainder,
    aten.minimum: _of_both(torch.sym_min),
    aten.maximum: _of_both(torch.sym_max),
    aten.clamp: _clamped,
    aten.clamp_min: _clamped,
    aten.max: _extreme(is_last=True),
    aten.min: _extreme(is_last=False),
    **{getattr(aten, name): _of_both(getattr(operator, name)) for name in ("eq", "lt", "le", "gt", "ge")},
    aten.ne: _of_both(_not_equal),
    aten.any: _of_truth,
    aten.all: _of_truth,
}
_ARITHMETIC = {
    *(aten.add, aten.sub, aten.rsub, aten.mul, aten.neg, aten.floor_divide, aten.div, aten.remainder),
    *(aten.minimum, aten.maximum, aten.clamp, aten.clamp_min, aten.max, aten.min, aten.lt, aten.le, aten.gt, aten.ge),
}
"""Operators of which the rules are for numbers."""
