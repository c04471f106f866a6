"""The dimensions of a tensor as products of named factors, followed through operators that rearrange."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sympy

from ir.graph import Call
from ir.operators.facts import Elements, aten, rearrangement
from ir.sizes import Dim


@dataclass(frozen=True)
class Factor:
    """A part of a dimension: what it counts, and how many there are."""

    name: str
    size: Dim


Factors: TypeAlias = tuple[tuple[Factor, ...], ...]
"""The factors of each dimension, the outermost first; none for a dimension of size 1."""

REPEAT = "repeat"  # the factor of a dimension along which elements are repeated


def factored(*dims: Iterable[tuple[str, Dim]]) -> Factors:
    """The layout with these factors, without those of size 1."""
    return tuple(tuple(Factor(name, size) for name, size in dim if size != 1) for dim in dims)


def rearranges(node: Call) -> bool:
    """Whether a node gives a tensor whose layout may follow from that of its first operand, in the same dtype."""
    known = node.op == aten.repeat_interleave.self_int or rearrangement(node.op) is not None
    return known and not node.unpacks and node.results[0].type.dtype == node.operands[0].type.dtype


def rearranged(node: Call, before: Factors) -> Factors | None:
    """The layout of the result of an operator that rearranges a tensor of the layout `before`.

    None where the operator computes, leaves out elements, or splits a factor.
    """
    moves = rearrangement(node.op)
    shape = node.results[0].type.shape
    if node.op == aten.repeat_interleave.self_int:
        return _interleaved(node, before)
    match moves.elements if moves else None:
        case Elements.SAME | Elements.CAST:
            return before
        case Elements.PERMUTED:
            return _permuted(node, before)
        case Elements.EXPANDED:
            return _expanded(before, shape)
        case Elements.REPEATED:
            return _tiled(before, node.arguments["repeats"])
        case Elements.RESHAPED:
            return regrouped([factor for dim in before for factor in dim], shape)
        case Elements.SLICED if node.operands[0].type.shape == shape:
            return before
    return None


def _permuted(node: Call, before: Factors) -> Factors:
    given, order = node.arguments, list(range(len(before)))
    if "dims" in given:
        order = [dim % len(before) for dim in given["dims"]]
    else:
        one, two = given["dim0"] % len(before), given["dim1"] % len(before)
        order[one], order[two] = two, one
    return tuple(before[dim] for dim in order)


def _expanded(before: Factors, shape: Sequence[Dim]) -> Factors:
    padded = ((),) * (len(shape) - len(before)) + before
    return tuple(dim or _repeat(size) for dim, size in zip(padded, shape, strict=True))


def _tiled(before: Factors, times: Sequence[Dim]) -> Factors:
    padded = ((),) * (len(times) - len(before)) + before
    return tuple((*_repeat(size), *dim) for dim, size in zip(padded, times, strict=True))


def _interleaved(node: Call, before: Factors) -> Factors | None:
    given = node.arguments
    if given["dim"] is None:
        return None
    at = given["dim"] % len(before)
    return (*before[:at], (*before[at], *_repeat(given["repeats"])), *before[at + 1 :])


def _repeat(times: Dim) -> tuple[Factor, ...]:
    return factored([(REPEAT, times)])[0]


def regrouped(factors: Sequence[Factor], shape: Sequence[Dim]) -> Factors | None:
    """Factors in their order as the dimensions of a tensor; None where one would be split."""
    left, dims = list(factors), []
    for size in shape:
        dim: list[Factor] = []
        while not equal(size, *(factor.size for factor in dim)):
            if not left:
                return None
            dim.append(left.pop(0))
        dims.append(tuple(dim))
    return None if left else tuple(dims)


def equal(size: Dim, *parts: Dim) -> bool:
    """Whether a size is the product of others, whatever the sizes that they depend on."""
    return sympy.expand(size - sympy.prod(parts)) == 0


def names_of(dim: Sequence[Factor]) -> tuple[str, ...]:
    return tuple(factor.name for factor in dim)
