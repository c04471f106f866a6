"""The pools of a decoder in its graph: their sizes, zeros as their first values, and updates in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ir.decoding import Decoding
from ir.graph import Call, Graph, Node, State, Value
from ir.operators import aten
from ir.sizes import TensorType, at


def with_pools(graph: Graph, decoding: Decoding) -> Graph:
    """The graph with pools of as many pages as `decoding` says, made of zeros and updated in place.

    An update is in place where nothing else reads the pool: `index_put` of new keys and values is then `index_put_`.
    """
    pages = dict.fromkeys(decoding.pools, decoding.pages) | dict.fromkeys(decoding.window_pools, decoding.window_pages)
    pools = {state: pages[name] for state in graph.states for name in state.fqns if name in pages}
    new: dict[Value, Value] = {state: replace(_sized(state, n), data=None, zeros=True) for state, n in pools.items()}
    in_place: set[Node] = set()
    for state, value in graph.updates:
        node = graph.producer[value]
        if state in pools and isinstance(node, Call) and node.op is aten.index_put.default and node.args[0] is state:
            new[value] = _sized(value, pools[state])
            if graph.users[state] == (node,) and value not in graph.outputs:
                in_place.add(node)
    written = graph.map(lambda n: replace(n, op=aten.index_put_.default) if n in in_place else n)
    return replace(written.map_values(lambda v: new.get(v, v)), decoding=decoding)


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
    named = {
        name: at(state.type.nbytes, {}) // at(state.type.shape[0], {}) for state in graph.states for name in state.fqns
    }
    decoding = graph.decoding
    return sum(named[name] for name in decoding.pools), sum(named[name] for name in decoding.window_pools)
