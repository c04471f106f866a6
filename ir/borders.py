"""Names of the values that cross between stages, as the user's source calls them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ir.graph import Call, Graph, Transfer, Value, rename
from ir.namer import Namer


def name_borders(graph: Graph) -> Graph:
    """The graph with better names for what stages send, and for its outputs; other names stay."""
    crossing = dict.fromkeys([n.value for n in graph.nodes if isinstance(n, Transfer)] + list(graph.outputs))
    namer, new = Namer(graph.names), dict[str, str]()
    for value in crossing:
        wish = source_name(graph, value)
        if wish and not value.stands_for:
            new[value.name] = namer(wish)

    @cache
    def renamed(value: Value) -> Value:
        if value.stands_for in new:
            return replace(value, stands_for=new[value.stands_for])
        return replace(value, name=new[value.name]) if value.name in new else value

    nodes = (replace(rename(n, renamed), results=tuple(map(renamed, n.results))) for n in graph.nodes)
    outputs = tuple(map(renamed, graph.outputs))
    return replace(graph, nodes=tuple(nodes), outputs=outputs, updates=tuple((s, renamed(v)) for s, v in graph.updates))


def source_name(graph: Graph, value: Value) -> str:
    """What the user's source assigns a value to, in the innermost statement that gives it a name; "" for nothing."""
    maker = graph.producer.get(value)
    if not isinstance(maker, Call):
        return ""
    for depth in range(len(maker.where.frames), 0, -1):
        frames = maker.where.frames[:depth]
        names = [name for name in frames[-1].assigns if name and name != "_"]
        if len(names) == 1:
            return names[0]
        if names:
            return _of_several(graph, value, depth, names)
    return ""


def _of_several(graph: Graph, value: Value, depth: int, names: list[str]) -> str:
    """One of the names of `key, value = …`: the results of that statement which others read, in their order."""
    maker = graph.producer[value]
    frames = maker.where.frames[:depth]
    made = [
        v
        for node in graph.nodes
        if node.stage == maker.stage and isinstance(node, Call) and node.where.frames[:depth] == frames
        for v in node.results
        if v in graph.kept
        or any(isinstance(u, Transfer) or u.where.frames[:depth] != frames for u in graph.users.get(v, ()))
    ]
    return names[made.index(value)] if value in made and len(made) <= len(names) else names[0]
