"""Memory of a stage: bytes stored between runs, and the peak of activations during one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from ir.graph import Graph, Value
from ir.sizes import at


def stored_bytes(values: Iterable[Value]) -> int:
    """Bytes of weights, constants or state, each counted once."""
    return sum(at(v.type.nbytes, {}) for v in set(values))


def peak_bytes(graph: Graph) -> int:
    """The peak of activation bytes when the nodes run in order, at the sizes that need most of those it is cut for.

    Inputs count from the start, outputs to the end.  A view keeps the tensor alive whose memory it shares.
    """
    return max(_peak(replace(graph, hints=call.sizes)) for call in graph.mix)


def _peak(graph: Graph) -> int:
    """The peak at the example's sizes."""
    behind = _storage_of(graph)
    last = {behind.get(v, v): i for i, node in enumerate(graph.nodes) for v in node.operands}
    last |= {behind.get(v, v): len(graph.nodes) for v in graph.kept}
    ends: dict[int, list[Value]] = {}
    for value, i in last.items():
        ends.setdefault(i, []).append(value)
    stored = {*graph.params, *graph.constants, *graph.states}
    live = {v: _size(v, graph) for v in graph.inputs}
    now = peak = sum(live.values())
    for i, node in enumerate(graph.nodes):
        for value in node.results:
            if value not in behind:
                live[value] = _size(value, graph)
                now += live[value]
        peak = max(peak, now)
        dead = [*ends.get(i, ()), *(v for v in node.results if behind.get(v, v) not in last)]
        now -= sum(live.pop(v, 0) for v in dead if v not in stored)
    return peak


def _storage_of(graph: Graph) -> dict[Value, Value]:
    """The tensor whose memory each view shares."""
    behind: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.view:
            source = node.operands[0]
            behind |= dict.fromkeys(node.results, behind.get(source, source))
    return behind


def _size(value: Value, graph: Graph) -> int:
    return at(value.type.nbytes, graph.hints)


def smaller_source(graph: Graph) -> dict[Value, Value]:
    """For each view that is larger than the tensor it shares memory with, that tensor: an expanded one is read once."""
    source: dict[Value, Value] = {}
    size = lru_cache(maxsize=None)(lambda dim: at(dim, graph.hints))
    for node in graph.nodes:
        if node.view:
            for result in node.results:
                behind = source.get(node.operands[0], node.operands[0])
                if size(behind.type.nbytes) < size(result.type.nbytes):
                    source[result] = behind
    return source
