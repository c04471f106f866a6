"""Units: sets of nodes that no stage boundary can separate, being a group and all nodes on paths between its members.

With one stage on each device, a group is in one stage. A node that must run after one member and before another
is then in that stage too, or the stage would wait for itself. So the indivisible units are the strongly
connected components of the precedence graph in which each group is one vertex.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

import numpy as np


def indivisible(n: int, edges: Sequence[tuple[int, int]], groups: Iterable[Sequence[int]]) -> np.ndarray:
    """The unit of each of `n` nodes; units are numbered in topological order, ties by their least node."""
    bound = [group for group in groups if len(group) > 1]
    if not bound and all(a < b for a, b in edges):
        return np.arange(n, dtype=np.int64)  # in order already, each node by itself
    leader = _union(n, bound)
    successors: list[list[int]] = [[] for _ in range(n)]
    for a, b in edges:
        if leader[a] != leader[b]:
            successors[leader[a]].append(leader[b])
    component = _components(successors)
    return _numbered([component[leader[node]] for node in range(n)], edges)


def _union(n: int, groups: Iterable[Sequence[int]]) -> list[int]:
    leader = list(range(n))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for group in groups:
        for node in group[1:]:
            leader[find(node)] = find(group[0])
    return [find(node) for node in range(n)]


def _components(successors: Sequence[Sequence[int]]) -> list[int]:
    """The strongly connected component of each node, without recursion.

    Tarjan: "Depth-first search and linear graph algorithms", SIAM J. Comput. 1(2), 1972.
    """
    n = len(successors)
    index, low, component = [-1] * n, [0] * n, [-1] * n
    path: list[int] = []
    found = count = 0
    for root in range(n):
        work = [(root, iter(successors[root]))] if index[root] < 0 else []
        while work:
            node, rest = work[-1]
            if index[node] < 0:
                index[node] = low[node] = found
                found += 1
                path.append(node)
            child = -1
            for target in rest:
                if component[target] < 0:
                    child = target
                    break
            if child < 0:
                work.pop()
                if low[node] == index[node]:
                    while component[node] < 0:
                        component[path.pop()] = count
                    count += 1
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
            elif index[child] < 0:
                work.append((child, iter(successors[child])))
            else:
                low[node] = min(low[node], index[child])
    return component


def _numbered(component: Sequence[int], edges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Components renumbered in topological order; of those that could come next, the one with the least node."""
    least: dict[int, int] = {}
    for node, home in enumerate(component):
        least.setdefault(home, node)
    successors: list[set[int]] = [set() for _ in range(max(component) + 1)]
    for a, b in edges:
        if component[a] != component[b]:
            successors[component[a]].add(component[b])
    waiting = [0] * len(successors)
    for targets in successors:
        for target in targets:
            waiting[target] += 1
    ready = [(node, c) for c, node in least.items() if not waiting[c]]
    heapify(ready)
    number = [0] * len(successors)
    for position in range(len(least)):
        _, current = heappop(ready)
        number[current] = position
        for target in successors[current]:
            waiting[target] -= 1
            if not waiting[target]:
                heappush(ready, (least[target], target))
    return np.array([number[home] for home in component], dtype=np.int64)
