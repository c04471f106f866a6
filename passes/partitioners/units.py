"""The problem as arrays over units, the indivisible parts of a program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

import numpy as np

from passes.partitioners.problem.memory import held_in, kinds_of_batches
from passes.partitioners.problem.model import Problem

COUNT, BYTES = 0, 1


@dataclass(frozen=True, eq=False)
class Sets:
    """Sets of units, each with sizes: set s is `members[starts[s]:starts[s + 1]]`, ascending.

    `starts[sets + 1]`, `members[...]`, `sizes[sets, channels]`.
    """

    starts: np.ndarray
    members: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, sets: Iterable[Sequence[int]], sizes: np.ndarray) -> Sets:
        listed = [*sets]
        owner = np.repeat(np.arange(len(listed)), np.array([len(members) for members in listed], dtype=np.int64))
        joined = np.fromiter(chain.from_iterable(listed), dtype=np.int64, count=len(owner))
        by_set = np.lexsort((joined, owner))
        owner, joined = owner[by_set], joined[by_set]
        new = np.append(True, (owner[1:] != owner[:-1]) | (joined[1:] != joined[:-1]))[: len(owner)]
        starts = np.searchsorted(owner[new], np.arange(len(listed) + 1))
        return cls(starts.astype(np.int64), joined[new], sizes)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def owner(self) -> np.ndarray:
        """The set of each member."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


@dataclass(frozen=True, eq=False)
class NodeTable:
    """The numbers of a problem's nodes and values as arrays, which each core of the problem adds up.

    `time[kind, node]` seconds; `keeps[node]` bytes; `alive[node]` bytes alive in the whole program while it runs;
    `before[:, 2]` node before node; `passed[:, 3]` the number, producer and consumer of each value with one consumer,
    `shared` the numbers of those with several.
    """

    time: np.ndarray
    keeps: np.ndarray
    alive: np.ndarray
    before: np.ndarray
    passed: np.ndarray
    shared: np.ndarray

    @classmethod
    def of(cls, problem: Problem) -> NodeTable:
        alive = np.array([_alive(problem, kind) for kind in range(kinds_of_batches(problem))]).max(axis=0)
        passed = [(i, v.producer, v.consumers[0]) for i, v in enumerate(problem.values) if len(v.consumers) == 1]
        return cls(
            time=np.array([node.time for node in problem.nodes], dtype=float).T,
            keeps=np.array([node.bytes for node in problem.nodes], dtype=float),
            alive=np.maximum(alive, 0.0) * problem.in_flight,
            before=np.array(problem.before, dtype=np.int64).reshape(-1, 2),
            passed=np.array(passed, dtype=np.int64).reshape(-1, 3),
            shared=np.array([i for i, v in enumerate(problem.values) if len(v.consumers) > 1], dtype=np.int64),
        )


@dataclass(frozen=True, eq=False)
class Core:
    """Units, numbered in topological order, and all quantities that the cost of a stage depends on.

    `time[kind, unit]` seconds; `keeps[unit]` bytes; `peak[unit]` bytes of activations in the whole
    program while the unit runs, for all microbatches in flight; `edges[:, 2]` unit before unit;
    `values` are the sets {producer, consumers} with sizes (number of values, bytes on the wire), and
    `producer` the unit that makes each; `weights` the sets of readers with sizes (bytes,);
    `modules` those of units that belong together, of size 1.
    """

    problem: Problem
    unit_of: np.ndarray
    time: np.ndarray
    keeps: np.ndarray
    peak: np.ndarray
    edges: np.ndarray
    values: Sets
    producer: np.ndarray
    weights: Sets
    modules: Sets
    table: NodeTable

    @property
    def n(self) -> int:
        return self.time.shape[1]

    @cached_property
    def nodes(self) -> tuple[tuple[int, ...], ...]:
        """The nodes of each unit."""
        listed: list[list[int]] = [[] for _ in range(self.n)]
        for node, unit in enumerate(self.unit_of.tolist()):
            listed[unit].append(node)
        return tuple(map(tuple, listed))

    @cached_property
    def fastest(self) -> np.ndarray:
        """[units] seconds of each unit on the device that runs it fastest."""
        return self.time[sorted({device.kind for device in self.problem.devices})].min(axis=0)

    def neighbours(self, *, reverse: bool = False) -> list[list[int]]:
        """The direct successors of each unit, or its predecessors."""
        listed: list[list[int]] = [[] for _ in range(self.n)]
        for a, b in self.edges.tolist():
            listed[b if reverse else a].append(a if reverse else b)
        return listed


def condensed(problem: Problem, unit_of: np.ndarray, table: NodeTable | None = None) -> Core:
    """The core of a problem without copies; `unit_of[node]` are units in topological order.

    `table`: that of the problem, where it is known.
    """
    table, n = table or NodeTable.of(problem), int(unit_of.max()) + 1
    time, peak = np.zeros((len(table.time), n)), np.zeros(n)
    for kind, row in enumerate(table.time):
        np.add.at(time[kind], unit_of, row)
    # A stage that is an interval of the program never holds more than the highest of its units here: what it receives,
    # makes and still has to send is alive in the whole program as well.
    np.maximum.at(peak, unit_of, table.alive)
    pairs = unit_of[table.before]
    edges = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    assert (edges[:, 0] < edges[:, 1]).all(), "units must be numbered along the precedence"
    values, producer = _values(problem, unit_of, table)
    return Core(
        problem=problem,
        unit_of=unit_of,
        time=time,
        keeps=np.bincount(unit_of, table.keeps, n),
        peak=peak,
        edges=edges,
        values=values,
        producer=producer,
        weights=_weights(problem, unit_of),
        modules=_modules(problem, unit_of),
        table=table,
    )


def _values(problem: Problem, unit_of: np.ndarray, table: NodeTable) -> tuple[Sets, np.ndarray]:
    """Values between units, and the producer of each; values with the same producer and consumers are merged."""
    unit = unit_of.tolist()
    numbers, producers, consumers = table.passed.T
    between = numbers[unit_of[producers] != unit_of[consumers]]
    merged: dict[tuple[int, tuple[int, ...]], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for number in np.sort(np.append(between, table.shared)).tolist():
        value = problem.values[number]
        home = unit[value.producer]
        if readers := tuple(reader for reader in _units(value.consumers, unit) if reader != home):
            size = merged[home, readers]
            size[COUNT] += 1
            size[BYTES] += value.bytes
    sizes = np.array(list(merged.values()), dtype=float).reshape(-1, 2)
    producer = np.array([home for home, _ in merged], dtype=np.int64)
    return Sets.of(((home, *readers) for home, readers in merged), sizes), producer


def _units(nodes: Sequence[int], unit: Sequence[int]) -> tuple[int, ...]:
    """The units of some nodes, in order; most often there is one node."""
    return (unit[nodes[0]],) if len(nodes) == 1 else tuple(sorted({unit[node] for node in nodes}))


def _weights(problem: Problem, unit_of: np.ndarray) -> Sets:
    unit = unit_of.tolist()
    merged: dict[tuple[int, ...], float] = defaultdict(float)
    for weight in problem.weights:
        readers = _units(weight.readers, unit)
        if readers and weight.bytes > 0:
            merged[readers] += weight.bytes
    return Sets.of(merged, np.array(list(merged.values()), dtype=float).reshape(-1, 1))


def _modules(problem: Problem, unit_of: np.ndarray) -> Sets:
    unit = unit_of.tolist()
    parts = ({unit[node] for node in module} for module in problem.modules)
    divisible = [tuple(sorted(part)) for part in parts if len(part) > 1]
    return Sets.of(divisible, np.ones((len(divisible), 1)))


def _alive(problem: Problem, kind: int) -> list[float]:
    """Bytes alive in the whole program while each node runs, in one kind of batch."""
    change = [0.0] * (len(problem.nodes) + 1)
    for value in problem.values:
        if held := held_in(value.held, kind):
            readers = value.consumers
            change[value.producer] += held
            change[max(readers) + 1 if readers else problem.run_of(value.producer)[1]] -= held
    for value in problem.remade:
        if value.readers and (held := held_in(value.held, kind)):
            change[min(value.readers)] += held
            change[max(value.readers) + 1] -= held
    return [*accumulate(change[:-1])]
