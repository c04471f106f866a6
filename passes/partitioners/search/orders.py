"""Topological orders of the units, for the dynamic program to cut.

A best split into stages consists of intervals of *some* topological order. No kind of order is best for every
graph, so several are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from passes.partitioners.units import BYTES, Core

Priority = Callable[[int], float]


def orders(core: Core) -> Iterator[np.ndarray]:
    """Distinct topological orders of the units, the most promising first."""
    successors, predecessors = core.neighbours(), core.neighbours(reverse=True)
    seen: set[bytes] = set()
    for order in _kinds(core, successors, predecessors):
        key = order.tobytes()
        if key not in seen:
            seen.add(key)
            yield order


def _kinds(core: Core, successors: list[list[int]], predecessors: list[list[int]]) -> Iterator[np.ndarray]:
    yield by_priority(predecessors, successors, lambda unit: -unit)[::-1]  # as late as program order allows
    yield np.arange(core.n)
    yield depth_first(successors, predecessors)
    yield least_open(core, successors, predecessors)
    depth = _depth(successors, predecessors)
    yield by_priority(successors, predecessors, lambda unit: depth[unit])
    height = _depth(predecessors, successors)
    yield by_priority(successors, predecessors, lambda unit: -height[unit])


def by_priority(
    successors: Sequence[Sequence[int]], predecessors: Sequence[Sequence[int]], priority: Priority
) -> np.ndarray:
    """The order that takes, of the units that may run next, the one of least `priority`, then of least number."""
    waiting = [len(before) for before in predecessors]
    ready = [(priority(unit), unit) for unit, count in enumerate(waiting) if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        _, unit = heappop(ready)
        order.append(unit)
        for target in successors[unit]:
            waiting[target] -= 1
            if not waiting[target]:
                heappush(ready, (priority(target), target))
    return np.array(order, dtype=np.int64)


def depth_first(successors: Sequence[Sequence[int]], predecessors: Sequence[Sequence[int]]) -> np.ndarray:
    """The order that follows a branch until it must wait for another, then continues the latest one begun."""
    waiting = [len(before) for before in predecessors]
    stack = [unit for unit in reversed(range(len(waiting))) if not waiting[unit]]
    order: list[int] = []
    while stack:
        unit = stack.pop()
        order.append(unit)
        for target in reversed(successors[unit]):
            waiting[target] -= 1
            if not waiting[target]:
                stack.append(target)
    return np.array(order, dtype=np.int64)


def least_open(core: Core, successors: Sequence[Sequence[int]], predecessors: Sequence[Sequence[int]]) -> np.ndarray:
    """The order that greedily keeps few bytes live (made, and not yet read by all consumers)."""
    unread = np.diff(core.values.starts) - 1
    made, read = _by_producer(core), _by_reader(core)
    size = core.values.sizes[:, BYTES]

    def opens(unit: int) -> float:
        return sum(size[v] for v in made[unit]) - sum(size[v] for v in read[unit] if unread[v] == 1)

    waiting = [len(before) for before in predecessors]
    ready = [(opens(unit), unit) for unit, count in enumerate(waiting) if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        known, unit = heappop(ready)
        now = opens(unit)
        if now < known:
            heappush(ready, (now, unit))
            continue
        order.append(unit)
        unread[read[unit]] -= 1
        for target in successors[unit]:
            waiting[target] -= 1
            if not waiting[target]:
                heappush(ready, (opens(target), target))
    return np.array(order, dtype=np.int64)


def _by_producer(core: Core) -> list[list[int]]:
    made: list[list[int]] = [[] for _ in range(core.n)]
    for value, unit in enumerate(core.producer.tolist()):
        made[unit].append(value)
    return made


def _by_reader(core: Core) -> list[list[int]]:
    read: list[list[int]] = [[] for _ in range(core.n)]
    producer = core.producer.tolist()
    for value, unit in zip(core.values.owner.tolist(), core.values.members.tolist(), strict=True):
        if unit != producer[value]:
            read[unit].append(value)
    return read


def _depth(successors: Sequence[Sequence[int]], predecessors: Sequence[Sequence[int]]) -> list[int]:
    """The length of the longest path to each unit."""
    depth = [0] * len(successors)
    for unit in by_priority(successors, predecessors, lambda _: 0).tolist():
        for target in successors[unit]:
            depth[target] = max(depth[target], depth[unit] + 1)
    return depth
