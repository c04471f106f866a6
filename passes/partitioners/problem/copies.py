"""The problem without the nodes that are copied for free.

A cheap node runs in every stage that reads it, so it belongs to none. Its operands are read by its readers
instead, and its bytes are held once by each device with a reader. Its value is made anew in each stage, and held
from the first reader there to the last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from graphlib import TopologicalSorter

from passes.partitioners.problem.model import Problem
from passes.partitioners.problem.parts import Remade, Value, Weight


def final_readers(problem: Problem) -> dict[int, tuple[int, ...]]:
    """For each node that is copied, the nodes that are not and that read it, directly or through copies."""
    bound = {node for group in problem.groups for node in group}
    direct: dict[int, set[int]] = {i: set() for i, node in enumerate(problem.nodes) if node.cheap and i not in bound}
    if not direct:
        return {}
    for value in problem.values:
        if value.producer in direct:
            direct[value.producer].update(value.consumers)
    reads = {node: [reader for reader in readers if reader in direct] for node, readers in direct.items()}
    found: dict[int, set[int]] = {}
    for node in TopologicalSorter(reads).static_order():
        found[node] = set().union(*(found.get(reader, {reader}) for reader in direct[node]))
    return {node: tuple(sorted(readers)) for node, readers in found.items() if readers}


def inline(problem: Problem) -> Problem:
    """The problem with every copied node dissolved into its readers; `ids` name the remaining nodes."""
    if "inline" not in problem.derived:
        copied = final_readers(problem)
        problem.derived["inline"] = _dissolved(problem, copied) if copied else None
    return problem.derived["inline"] or problem


def _dissolved(problem: Problem, copied: Mapping[int, tuple[int, ...]]) -> Problem:
    left = [node for node in range(len(problem.nodes)) if node not in copied]
    number = {node: i for i, node in enumerate(left)}

    def forwarded(readers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({number[end] for reader in readers for end in copied.get(reader, (reader,))}))

    kept = (Weight(problem.nodes[node].bytes, readers) for node, readers in copied.items() if problem.nodes[node].bytes)
    made = (value for value in problem.values if value.producer in copied and value.held)
    pairs = ((number[a], end) for a, b in problem.before if a in number for end in forwarded((b,)))
    return replace(
        problem,
        nodes=tuple(problem.nodes[node] for node in left),
        values=tuple(
            Value(number[value.producer], forwarded(value.consumers), value.bytes, value.held)
            for value in problem.values
            if value.producer in number
        ),
        weights=tuple(Weight(weight.bytes, forwarded(weight.readers)) for weight in (*problem.weights, *kept)),
        remade=tuple(Remade(value.held, tuple(number[r] for r in value.consumers if r in number)) for value in made),
        groups=tuple(tuple(number[node] for node in group) for group in problem.groups),
        modules=tuple(tuple(number[node] for node in module if node in number) for module in problem.modules),
        precedence=None if problem.precedence is None else tuple(pairs),
        ids=tuple(problem.names[node] for node in left),
        runs=tuple(bisect_left(left, first) for first in problem.runs),
    )
