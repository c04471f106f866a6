"""Names of values: unique identifiers, and as the user's source has them where values cross between stages."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field, replace

from ir.graph import Call, Graph, Transfer, Value

_RESERVED = frozenset({"torch", "nn", "aten", "self", "device", "math", "F"})


@dataclass
class Namer:
    """Gives each wish a name that no other has: `h.0.weight` -> h_0_weight, again -> h_0_weight_1."""

    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken |= _RESERVED

    def __call__(self, wish: str) -> str:
        stem = re.sub(r"\W", "_", wish) or "value"
        if stem[0].isdigit() or keyword.iskeyword(stem):
            stem = f"v_{stem}"
        name, count = stem, 0
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self.taken.add(name)
        return name


def repeated(value: Value, stage: int, namer: Namer) -> Value:
    """A value of another stage, received or computed again: `x` -> `x_on1`."""
    return replace(value, name=namer(f"{value.name}_on{stage}"), copy_of=value.copy_of or value.name)


def name_borders(graph: Graph) -> Graph:
    """The graph with better names for what stages send, and for its outputs; other names stay."""
    crossing = dict.fromkeys([n.value for n in graph.nodes if isinstance(n, Transfer)] + list(graph.outputs))
    namer, new = Namer(graph.names), dict[str, str]()
    for value in crossing:
        wish = source_name(graph, value)
        if wish and not value.copy_of:
            new[value.name] = namer(wish)

    def renamed(value: Value) -> Value:
        if value.copy_of in new:
            return replace(value, copy_of=new[value.copy_of])
        return replace(value, name=new[value.name]) if value.name in new else value

    return graph.map_values(renamed)


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
