"""Exported nodes without effect: assertions, casts to the same dtype, dropout that is off, pads by 0, `True & mask`."""

from __future__ import annotations

import operator
from itertools import permutations
from typing import Any, cast

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import cast_symbool_to_symint_guardless

from ir.capture.program.in_place.mutation import may_alias
from ir.operators.facts import Elements, aten, rearrangement

_WHOLE = 2**63 - 1
_ALWAYS = {aten.detach_.default, aten.lift_fresh_copy.default}
_DROPOUTS = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default}
_DROPOUTS |= {aten.dropout_.default}
_RELATIONS = {operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge}
_WITHOUT_TENSORS = {aten.promote_types.default}  # of torch.tensor([size, 1.0])
_READINGS = {aten.item.default, aten._local_scalar_dense.default}  # of a number, which a fixed input leaves unused


def is_assertion(node: fx.Node) -> bool:
    """Whether a node is an assertion, which returns nothing."""
    return any(word in str(node.target) for word in ("_assert", "sym_constrain_range", "_check"))


def is_checked_alone(node: fx.Node) -> bool:
    """Whether a node is an assertion, or a number that only assertions read."""
    if is_assertion(node) or node.target in _WITHOUT_TENSORS:
        return True
    number = isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool))
    valueless = is_truth_as_number(node) or node.target in _RELATIONS or node.target in _READINGS
    return (number or valueless) and all(map(is_checked_alone, node.users))


def erase_with_users(node: fx.Node) -> None:
    """Erase a node, and all that reads what it makes."""
    for user in list(node.users):
        erase_with_users(user)
    node.graph.erase_node(node)


def is_truth_as_number(node: fx.Node) -> bool:
    """Whether a node makes 1 or 0 of a condition; some torch versions leave its value out."""
    return node.target is cast_symbool_to_symint_guardless


def kept_operand(node: fx.Node) -> fx.Node | None:
    """The operand that a node returns, the same elements with the same strides; None if it returns none."""
    if node.target in ANDS:
        pairs = permutations(node.all_input_nodes, 2)
        return next((mask for mask, other in pairs if _is_one(other) and _has_type_of(mask, node)), None)
    return node.args[0] if is_identity(node) and isinstance(node.args[0], fx.Node) else None


def is_identity(node: fx.Node) -> bool:
    """Whether a node returns its first argument: the same elements with the same strides."""
    target, args = node.target, cast("tuple[Any, ...]", node.args)
    moves = rearrangement(target)
    if target in _ALWAYS or (moves is not None and moves.is_alias):
        return True
    if target in _DROPOUTS:
        return is_off(node)
    if moves is not None and moves.elements is Elements.CAST:
        return node.kwargs.get("memory_format") is None and not _copies(node) and _dtype(args[0]) is _dtype(node)
    if target in PADS:
        return all(type(width) is int and width == 0 for width in args[1]) and _has_type_of(args[0], node)
    if target is aten.slice.Tensor:
        start, end = (*args[2:4], *[None] * 2)[:2]
        return start in (None, 0) and (end is None or end == _WHOLE) and (len(args) < 5 or args[4] == 1)
    return _is_neutral(node)


def is_off(node: fx.Node) -> bool:
    """Whether a node is a dropout that returns its argument itself."""
    return node.target in _DROPOUTS and (not node.args[1] or not node.args[2])


def is_returned_copy(node: fx.Node) -> bool:
    """Whether the model returns what an identity makes in memory of its own: `x * 1`, `torch.tensor([1.0])`."""
    own = node.target in (*SUMS, *PRODUCTS, *ANDS, *PADS, aten.lift_fresh_copy.default)
    return own and _is_returned(node)


def _is_returned(node: fx.Node) -> bool:
    """Whether the model returns the node's result, or a view of it."""
    return any(u.op == "output" or (may_alias(u) and _is_returned(u)) for u in node.users)


ANDS = {aten.__and__.Tensor, aten.bitwise_and.Tensor, aten.logical_and.default}
PADS = {aten.pad.default, aten.constant_pad_nd.default}
ONES = {aten.new_ones.default, aten.ones.default}
SUMS, PRODUCTS = {aten.add.Tensor, aten.sub.Tensor}, {aten.mul.Tensor, aten.div.Tensor}


def _is_neutral(node: fx.Node) -> bool:
    """Whether a node adds 0 to integers, or multiplies by 1, and keeps dtype and strides."""
    if node.target not in SUMS | PRODUCTS or len(node.args) < 2 or not isinstance(node.args[0], fx.Node):
        return False
    number = node.args[1]
    if type(number) not in (int, float) or not _has_type_of(node.args[0], node):
        return False
    return keeps_elements(node.target, number, _dtype(node))


def keeps_elements(op: Any, number: Any, dtype: torch.dtype) -> bool:
    """Whether a sum or product with `number` keeps the elements; not a sum of floats, as -0.0 + 0 is 0.0."""
    if op in SUMS:
        return bool(number == 0) and not dtype.is_floating_point and not dtype.is_complex
    return bool(number == 1)


def _is_one(node: fx.Node) -> bool:
    """Whether a node makes one True, with which masks of several conditions begin."""
    return node.target in ONES and node.meta["val"].ndim == 0 and _dtype(node) is torch.bool


def _has_type_of(before: fx.Node, after: fx.Node) -> bool:
    one, other = before.meta["val"], after.meta["val"]
    return one.dtype is other.dtype and str(one.stride()) == str(other.stride())


def _copies(node: fx.Node) -> bool:
    return bool(node.kwargs.get("copy")) or any(a is True for a in node.args[1:])


def _dtype(node: Any) -> torch.dtype:
    return node.meta["val"].dtype
