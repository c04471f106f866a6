"""Tensors that hold what the rows of a batch have in a pool of keys or values."""

from __future__ import annotations

from dataclasses import dataclass

from ir.graph import Call, Graph, State, Value
from ir.operators.facts import Elements, aten, rearrangement
from ir.sizes import Dim
from passes.fusing.attention.layouts import Factors, factored, rearranged, regrouped

KEYS = ("pages", "place")  # the factors of a dimension that counts the keys of a row


@dataclass(frozen=True)
class FromPages:
    """The entries of a pool `[pages, page, heads, dim]` in the pages of each row, and their layout."""

    pool: Value
    table: Value  # int64[batch, pages]
    layout: Factors

    @property
    def heads(self) -> Dim:
        return self.pool.type.shape[2]


def from_pages(value: Value, graph: Graph) -> FromPages | None:
    """The pool behind a tensor, by way of a gather of pages and of rearrangements alone; None for any other tensor."""
    node = graph.producer.get(value)
    if not isinstance(node, Call) or node.unpacks:
        return None
    if node.op in (aten.index_select.default, aten.index.Tensor):
        return _gathered(node, graph)
    if not node.operands or (held := from_pages(node.operands[0], graph)) is None:
        return None
    layout = rearranged(node, held.layout)
    return None if layout is None else FromPages(held.pool, held.table, layout)


def _gathered(node: Call, graph: Graph) -> FromPages | None:
    """`pool[table]`, or `pool.index_select(0, table.flatten())`."""
    pool, given = node.arguments["self"], node.arguments
    if not _is_pool(pool, graph) or len(pool.type.shape) != 4:
        return None
    if node.op is aten.index.Tensor:
        pages = given["indices"][0] if len(given["indices"]) == 1 else None
    else:
        pages = given["index"] if given["dim"] == 0 else None
    table = _table(pages, graph) if isinstance(pages, Value) else None
    if table is None or pages is None:
        return None
    by_table = factored([("batch", table.type.shape[0])], [("pages", table.type.shape[1])])
    by_page = regrouped([factor for dim in by_table for factor in dim], pages.type.shape)
    _, page, heads, dim = pool.type.shape
    kept = factored([("place", page)], [("heads", heads)], [("dim", dim)])
    return None if by_page is None else FromPages(pool, table, (*by_page, *kept))


def _is_pool(value: Value, graph: Graph) -> bool:
    node = graph.producer.get(value)
    if isinstance(node, Call) and node.op in (aten.index_put_.default, aten.index_put.default):
        value = node.args[0]
    return isinstance(value, State) and value.zeros


def _table(pages: Value, graph: Graph) -> Value | None:
    """The table `[batch, pages]` whose entries these are, in their order."""
    while len(pages.type.shape) != 2:
        node = graph.producer.get(pages)
        moves = rearrangement(node.op) if isinstance(node, Call) else None
        if moves is None or moves.elements not in (Elements.SAME, Elements.RESHAPED):
            return None
        pages = node.operands[0]  # type: ignore[union-attr]
    return pages
