"""The pools of a decoder in its graph: their sizes, zeros as their first values, and updates in place."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ir.decoding import Decoding
from ir.graph import Call, Graph, Node, State, Value
from ir.operators.facts import aten
from ir.sizes import TensorType, at

GATHERS = (aten.index.Tensor, aten.index_select.default)
"""Operators that copy what rows of a batch have in a pool."""


def with_pools(graph: Graph, decoding: Decoding) -> Graph:
    """The graph with pools of as many pages as `decoding` says, made of zeros at load and updated in place.

    An update is in place where nothing reads the old pool after it: `index_put` of what is new is then `index_put_`.
    A graph that has pools already gets others of these sizes.
    """
    if any(state.zeros for state in graph.states):
        return with_pool_sizes(graph, decoding)
    rows = {name: size for size, names in decoding.pools_by_size.items() for name in names}
    sizes = {state: rows[name] for state in graph.states for name in state.fqns if name in rows}
    pools = {state: getattr(decoding, size) for state, size in sizes.items()}
    new: dict[Value, Value] = {
        state: replace(_sized(state, n), data=None, rows=sizes[state]) for state, n in pools.items()
    }
    in_place: set[Node] = set()
    for state, value in graph.updates:
        node = graph.producer[value]
        if state in pools and isinstance(node, Call) and node.op is aten.index_put.default and node.args[0] is state:
            new[value] = _sized(value, pools[state])
            if value not in graph.outputs and _is_last(graph, node, state):
                in_place.add(node)
    written = graph.map(lambda n: replace(n, op=aten.index_put_.default) if n in in_place else n)
    return replace(written.map_values(lambda v: new.get(v, v)), decoding=decoding)


def with_pool_sizes(graph: Graph, decoding: Decoding) -> Graph:
    """The graph, whose pools have sizes already, with those that `decoding` says."""
    sizes = {state: getattr(decoding, state.rows) for state in graph.states if state.zeros}
    updated = {value: sizes[state] for state, value in graph.updates if state in sizes}
    new = {value: _sized(value, rows) for value, rows in {**sizes, **updated}.items()}
    return replace(graph.map_values(lambda v: new.get(v, v)), decoding=decoding)


def _is_last(graph: Graph, update: Call, state: State) -> bool:
    """Whether nothing reads the old state after its update, in any order of nodes that the graph allows.

    All that reads it must copy from it what the update is made of.
    """
    readers = [n for n in graph.users[state] if n.program == update.program and n is not update]
    if not all(isinstance(n, Call) and n.op in GATHERS for n in readers):
        return False
    at = {node: i for i, node in enumerate(graph.nodes)} if readers else {}
    needed: set[Node] = {update}
    for node in reversed(graph.nodes[min(map(at.__getitem__, readers), default=0) : at.get(update, 0)]):
        if any(user in needed for value in node.results for user in graph.users.get(value, ())):
            needed.add(node)
    return needed.issuperset(readers)


def _sized(value: Value, pages: int) -> Value:
    return replace(value, type=TensorType((pages, *value.type.shape[1:]), value.type.dtype))


def updated_in_place(graph: Graph) -> Iterator[State]:
    """The states that a node of the graph has changed by the end of a run."""
    for state, value in graph.updates:
        node = graph.producer[value]
        if isinstance(node, Call) and node.op._schema.is_mutable and node.args[0] is state:
            yield state


def page_bytes(graph: Graph) -> tuple[int, int]:
    """The bytes of one page in all pools together: of those of the whole text, and of those of sliding layers."""
    return _row_bytes(graph, graph.decoding.pools), _row_bytes(graph, graph.decoding.window_pools)


def slot_bytes(graph: Graph) -> int:
    """The bytes of one slot in all pools together."""
    return _row_bytes(graph, graph.decoding.slot_pools)


def source_page_bytes(graph: Graph) -> int:
    """The bytes of one page of sources in all pools together."""
    return _row_bytes(graph, graph.decoding.source_pools)


def _row_bytes(graph: Graph, pools: Collection[str]) -> int:
    """The bytes of a page, or of a slot, in all these pools together."""
    states = (state for state in graph.states for name in state.fqns if name in pools)
    return sum(at(state.type.nbytes, {}) // at(state.type.shape[0], {}) for state in states)
