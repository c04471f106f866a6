"""The calls of a table one after the other, with their seconds on an average of paths.

Two threads list them, as numpy computes beside Python. What has been listed is kept for the way back, if there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import NamedTuple

import numpy as np

from passes.partitioners.one_batch.call_table import CallList, CallTable
from passes.partitioners.one_batch.flow import Shares

_ROOM = 40_000_000  # calls that are kept, of 16 bytes each
_FEW_IDEALS = 30_000  # of a table whose calls between all of them fit in memory twice


class Listed(NamedTuple):
    """Calls that end at ideals of `size` units, and the weight of each: its seconds on the paths, on average."""

    size: int
    calls: CallList
    weight: np.ndarray


class ListedCalls:
    """All possible calls of a table; `ascending` comes first."""

    def __init__(self, table: CallTable, shares: Shares) -> None:
        self.table, self.shares, self.room = table, shares, _ROOM
        self.kept: dict[tuple[int, int], Listed] = {}
        self.threads = 2 if len(table.ideals) <= _FEW_IDEALS else 1

    def ascending(self) -> Iterator[Listed]:
        """The calls of each class of devices to the ideals of one unit, of two, and so on."""
        for key, listed in self._in_turn(self._keys()):
            if len(listed.weight) <= self.room:
                self.room -= len(listed.weight)
                self.kept[key] = listed
            yield listed

    def descending(self) -> Iterator[Listed]:
        """The same from the last ideal down, for the last time."""
        for _, listed in self._in_turn(self._keys()[::-1]):
            yield listed

    def _keys(self) -> list[tuple[int, int]]:
        return [*product(range(1, self.table.model.core.n + 1), range(len(self.table.model.classes)))]

    def _in_turn(self, keys: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Listed]]:
        pool = ThreadPoolExecutor(self.threads)
        begun: deque[tuple[tuple[int, int], Future[Listed]]] = deque()
        try:
            for key in keys:
                begun.append((key, pool.submit(self._listed, *key)))
                if len(begun) > self.threads:
                    first, listed = begun.popleft()
                    yield first, listed.result()
            for first, listed in begun:
                yield first, listed.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _listed(self, size: int, kind: int) -> Listed:
        if (known := self.kept.pop((size, kind), None)) is not None:
            return known
        if self.table.model.classes[kind].node_by_node:
            calls = self.table.single(kind, size)
            return Listed(size, calls, self.shares.of(calls))
        begin, end, seconds = self.table.stages(kind, size)
        to, at = np.nonzero(np.isfinite(seconds).T)
        weight = self.shares.stages(begin, end, seconds)[at, to]
        calls = CallList(kind, begin[at].astype(np.int32), end[to].astype(np.int32), seconds[at, to])
        return Listed(size, calls, weight)
