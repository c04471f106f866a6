"""Bytes to and from memory that operators move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TypeAlias

from ir.graph import Call, Value
from ir.paged.paged_operator import keys_read
from ir.sizes import Dim

Bytes: TypeAlias = Callable[[Call, Mapping[Value, Value]], Dim]


def each_once(node: Call, source: Mapping[Value, Value]) -> Dim:
    """The default: every operand is read once and every result written once."""
    read = dict.fromkeys(source.get(v, v) for v in node.operands)
    return sum(v.type.nbytes for v in (*read, *node.results))


def _gathered(node: Call, source: Mapping[Value, Value]) -> Dim:
    """A gather: the indices and the elements returned are read, and the result is written."""
    indices = [v for v in node.operands[1:] if not v.type.dtype.is_floating_point]
    return sum(v.type.nbytes for v in (*node.results, *node.results, *indices))


def _scattered(node: Call, source: Mapping[Value, Value]) -> Dim:
    """An update in place: the indices and the new elements are read, and these are written."""
    return sum(v.type.nbytes for v in (*node.operands[1:], node.arguments["values"]))


def _from_pages(node: Call, source: Mapping[Value, Value]) -> Dim:
    """Attention over pages: the keys and values in the pages of all rows are read once, not the pools."""
    pools = (node.arguments["keys"], node.arguments["values"])
    read = (v for v in node.operands if v not in pools)
    each = sum(prod(pool.type.shape[2:]) * pool.type.dtype.itemsize for pool in pools)
    return keys_read(node) * each + sum(v.type.nbytes for v in (*read, *node.results))


def _written(node: Call, source: Mapping[Value, Value]) -> Dim:
    """A factory that reads only the shape of its operand: the result is written."""
    return sum(v.type.nbytes for v in node.results)


_MADE_OF_A_SHAPE = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like")

TRAFFIC: Mapping[str, Bytes] = {
    **dict.fromkeys((*_MADE_OF_A_SHAPE, "new_zeros", "new_ones", "new_full", "new_empty"), _written),
    "embedding": _gathered,
    "index_select": _gathered,
    "gather": _gathered,
    "index": _gathered,
    "index_put_": _scattered,
    "paged_attention": _from_pages,
    "take": _gathered,
    "slice_copy": _gathered,
    "select_copy": _gathered,
}
