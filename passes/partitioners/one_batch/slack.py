"""Nodes of its units that a call of an easier problem need not hold: they were moved there from other calls.

In an easier problem (see `easier`) some nodes are in the unit of a node that they follow, its root. A call with this
unit may be one that in the problem itself lacks them. It lacks no node on a path between two roots that it holds, as
no path leaves a call and comes back. So what it may lack is after the last of its roots, which is known from the ideal
where the call ends, or before the first, which is known from the one where it begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter

import numpy as np

from passes.partitioners.proof.relaxed import Relaxed


class Slack:
    """The seconds and the bytes that calls between ideals may lack; `moved[nodes]` are the nodes that were moved."""

    def __init__(self, model: Relaxed, ideals: np.ndarray, moved: np.ndarray, kind: np.dtype) -> None:
        core = model.core
        nodes = np.flatnonzero(moved)
        self.ideals, self.nodes, self.unit_of = ideals, nodes, core.unit_of[nodes]
        above = _roots(core.problem.before, core.unit_of, moved)[nodes]
        below = _roots([(b, a) for a, b in core.problem.before], core.unit_of, moved)[nodes]
        own = np.arange(len(nodes)), core.unit_of[nodes]
        first, last = above[own], below[own]  # whether the node is after a root of its unit, and before one
        here = ideals[:, core.unit_of[nodes]]
        self.after = here & (_meets_none(ideals, below) & first & ~last | ~(first | last))
        self.before = ~here & _meets_none(~ideals, above) & last & ~first
        units = np.zeros((len(nodes), core.n), dtype=kind)
        units[own] = 1.0
        times = np.array([node.time for node in core.problem.nodes], dtype=float)[nodes].T
        bytes_ = np.array([core.problem.nodes[node].bytes for node in nodes])
        amounts = [*(np.where(np.isinf(times[c.kind]), 0.0, times[c.kind]) for c in model.classes), bytes_]
        self.early = [(self.before * amount).astype(kind) @ units for amount in amounts]  # [ideals, units] each
        self.late = [(self.after * amount).astype(kind) @ units for amount in amounts]

    def seconds(self, kind: int, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """[begin, end] seconds on a class of devices."""
        return self._between(kind, begin, end)

    def bytes(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """[begin, end] bytes of memory."""
        return self._between(-1, begin, end)

    def most_bytes(self) -> tuple[np.ndarray, np.ndarray]:
        """[ideals] the most bytes that calls lack before their first roots if they begin there; at the end likewise."""
        return self.early[-1].sum(axis=1), self.late[-1].sum(axis=1)

    def lacked(self, begin: int, end: int) -> np.ndarray:
        """The moved nodes that a call between two ideals may lack."""
        made = self.ideals[end, self.unit_of] & ~self.ideals[begin, self.unit_of]
        return self.nodes[made & (self.before[begin] | self.after[end])]

    def _between(self, amount: int, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        early, late = self.early[amount][begin], self.late[amount][end]
        at_begin, at_end = np.flatnonzero(early.any(axis=0)), np.flatnonzero(late.any(axis=0))
        inside, outside = self.ideals[np.ix_(end, at_begin)], ~self.ideals[np.ix_(begin, at_end)]
        return early[:, at_begin] @ inside.T.astype(early.dtype) + outside.astype(late.dtype) @ late[:, at_end].T


def _roots(edges: Iterable[tuple[int, int]], unit_of: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """[nodes, units] whether a node that was not moved, of the unit, comes before the node along the edges."""
    before: dict[int, set[int]] = {node: set() for node in range(len(unit_of))}
    for a, b in edges:
        before[b].add(a)
    found = np.zeros((len(unit_of), int(unit_of.max()) + 1), dtype=bool)
    for node in TopologicalSorter(before).static_order():
        for other in before[node]:
            found[node] |= found[other]
            found[node, unit_of[other]] |= not moved[other]
    return found


def _meets_none(ideals: np.ndarray, units: np.ndarray) -> np.ndarray:
    """[ideals, nodes] whether none of the units of a node, `units[nodes, units]`, is in an ideal."""
    return ideals.astype(np.float32) @ units.T.astype(np.float32) < 0.5
