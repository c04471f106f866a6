"""Cost of a higher-order operator: that of its functions, as often as it runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from math import prod
from operator import add
from typing import Any, TypeAlias

import sympy

from ir.cost import FREE, Arithmetic, Cost
from ir.graph import Call, Value
from ir.operators.facts import rearrangement
from ir.operators.higher_order import Body, HigherOrder
from ir.sizes import Dim, at

CostOf: TypeAlias = Callable[[Call], Cost]
Sizes: TypeAlias = Mapping[sympy.Symbol, int]


def higher_order_cost(call: Call, what: HigherOrder, cost_of: CostOf, sizes: Sizes) -> Cost:
    """The cost of a node, where `cost_of` says that of a node in a function.

    Of the branches of `cond` the dearer one at `sizes` counts; a loop that values end counts as one turn.
    """
    costs = [_body_cost(body, cost_of) for body in what.bodies]
    match what.name:
        case "cond":
            return max(costs, key=lambda cost: (at(cost.flops, sizes), at(cost.bytes, sizes)))
        case "while_loop":
            return _times(costs[0], what.turns + 1, sizes) + _times(costs[1], what.turns, sizes)
        case "flex_attention":
            return _attention(call, what, reduce(add, costs, FREE), sizes)
    return _times(reduce(add, costs, FREE), _rows(call, what), sizes)


def _body_cost(body: Body, cost_of: CostOf) -> Cost:
    return reduce(add, (FREE if _is_view(node) else cost_of(node) for node in body.nodes), FREE)


def _is_view(node: Call) -> bool:
    """Whether a node may leave its operand where it lies: one that casts does not."""
    moves = rearrangement(node.op)
    return moves is not None and moves.may_alias and node.results[0].type.dtype == node.operands[0].type.dtype


def _times(cost: Cost, turns: Dim, sizes: Sizes) -> Cost:
    return replace(
        cost,
        flops=cost.flops * turns,
        bytes=cost.bytes * turns,
        launches=cost.launches * at(turns, sizes),
        elements=cost.elements * turns,
    )


def _rows(call: Call, what: HigherOrder) -> Dim:
    """The turns of `scan` and `map`: the rows of what they go over, which stand in the first list of several."""
    over = what.arguments[2] if what.name == "scan" else what.arguments[1]
    return _type(call, over[0]).shape[0]


def _attention(call: Call, what: HigherOrder, scores: Cost, sizes: Sizes) -> Cost:
    """Q Kᵀ, the functions once for each of its elements, and the attention weights times V."""
    query, key, value = (_type(call, slot) for slot in what.arguments[:3])
    *batch, queries, depth = query.shape
    points = prod(batch) * queries * key.shape[-2]
    moved = sum(t.nbytes for t in (query, key, value, call.results[0].type))
    flops = 2 * points * (depth + value.shape[-1])
    product = Cost(flops, moved, arithmetic=Arithmetic("biased_attention", query.dtype))
    return product + replace(_times(scores, points, sizes), launches=scores.launches)


def _type(call: Call, slot: Any) -> Any:
    operand: Value = call.args[0][slot.index]
    return operand.type
