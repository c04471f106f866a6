"""Easier problems with fewer units, whose best splits bound those of the problem: nodes are moved to their neighbours.

A unit v may follow a unit u if that makes no other call longer (see `contract`, whose rules for stages that overlap
transfers and compute hold for calls). The call that it comes to would be longer by v: so in the easier problem it pays
for v only where it holds v in any case (see `slack`).

Values that cost little are free, so that more units may follow others.

Where devices run node by node, v adds its seconds there. If it was in a stage, that had to receive and to send: v
follows if that takes no less, unless what reads v is in the same stage. Such a stage waits for u alone: `credit` are
the seconds that it does not wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np

from passes.partitioners.one_batch.flow import ProgramPaths
from passes.partitioners.proof.contract import fused, light_followers
from passes.partitioners.proof.relaxed import DeviceClass, relaxed
from passes.partitioners.units import Core, condensed

_MOST = (  # relative: seconds of a follower and of a free value to the best value, bytes of a follower to a device's
    (0.0, 0.0, 1e-12),
    (0.0, 0.0, 1e-3),
    (1e-4, 1e-5, 1e-2),
    (3e-4, 1e-4, 0.1),
    (1e-3, 1e-3, 0.1),
    (2e-3, 2e-3, 0.1),
    (5e-3, 5e-3, 0.3),
    (2e-2, 1e-2, inf),
)
_SIDE = 2e-2  # the same for a free value that leads to no node of the longest path
STEPS = len(_MOST)


@dataclass(frozen=True, eq=False)
class Easier:
    """An easier problem: its units, whether a node was moved into one (`moved[nodes]`), and `credit[nodes]` seconds."""

    core: Core
    moved: np.ndarray
    credit: np.ndarray


def as_it_is(core: Core) -> Easier:
    """The problem itself."""
    return Easier(core, np.zeros(len(core.unit_of), dtype=bool), np.zeros(len(core.unit_of)))


def easier(core: Core, paths: ProgramPaths, value: float, step: int, stay: np.ndarray) -> Easier:
    """A problem of fewer units, the fewer the higher `step` is, up to `STEPS`; 0 is the problem itself.

    `value` is that of some split; `stay[nodes]` says which are not moved.
    """
    if not step:
        return as_it_is(core)
    mover = _Mover(core, paths, stay, _MOST[step - 1][1] * value, _SIDE * value)
    memory = min(device.memory for device in core.problem.devices)
    for seconds, _, share in _MOST[:step]:
        mover.move(seconds * value, share * memory)
    return mover.result()


class _Mover:
    """Moves nodes, as many as may be."""

    def __init__(self, core: Core, paths: ProgramPaths, stay: np.ndarray, free: float, side: float) -> None:
        self.classes, self.cost = relaxed(core, memory=False).classes, np.zeros(paths.n)
        problem, cost = core.problem, _costs(core, self.classes)
        self.cost[[value.producer for value in problem.values]] = cost
        self.stay, self.paths, self.via_host = stay, paths, problem.via_host
        leads, alone = _leads(core, paths), [c.kind for c in self.classes if c.node_by_node]
        limits = np.where(leads[[value.producer for value in problem.values]], free, side)
        dear = tuple(value for value, charged in zip(problem.values, cost > limits, strict=True) if charged)
        nodes = tuple(
            node if lead else replace(node, time=tuple(0.0 if k in alone else t for k, t in enumerate(node.time)))
            for node, lead in zip(problem.nodes, leads.tolist(), strict=True)
        )
        problem = replace(problem, nodes=nodes, values=dear, precedence=problem.before)
        self.core = condensed(problem, core.unit_of)
        times = np.array([[node.time[kind] for kind in alone] for node in nodes]).reshape(len(nodes), len(alone))
        self.alone = np.where(np.isinf(times), 0.0, times).max(axis=1, initial=0.0)
        self.moved = np.zeros(len(self.alone), dtype=bool)
        self.credit = np.zeros(len(self.alone))
        self.least = np.full(len(self.alone), inf)  # seconds to receive one of the values on the way to a moved node
        single = [weight for weight in problem.weights if len(weight.readers) == 1]
        self.bytes = np.array([node.bytes for node in nodes])
        np.add.at(self.bytes, [w.readers[0] for w in single], [w.bytes for w in single])

    def move(self, seconds: float, bytes_: float) -> None:
        """Move all that take no more than so many seconds of a stage, and so many bytes."""
        while pairs := [pair for pair in light_followers(self.core, seconds) if self._may_move(*pair, bytes_)]:
            self.core = fused(self.core, pairs)

    def result(self) -> Easier:
        """The problem with what has been moved."""
        problem = self.core.problem
        shared = [w for w in problem.weights if len(w.readers) > 1]
        nodes = (replace(node, bytes=float(size)) for node, size in zip(problem.nodes, self.bytes, strict=True))
        weights = (replace(w, readers=tuple(r for r in w.readers if not self.moved[r])) for w in shared)
        loose = replace(problem, nodes=tuple(nodes), weights=tuple(weights), every_device=False)
        return Easier(condensed(loose, self.core.unit_of), self.moved.copy(), self.credit * self.moved)

    def _may_move(self, unit: int, leader: int, bytes_: float) -> bool:
        nodes = sorted(self.core.nodes[unit], key=self.paths.rank.__getitem__)
        if self.bytes[nodes].sum() > bytes_ or self.stay[nodes].any():
            return False
        if unit < leader:
            may = not self.alone[nodes].any()
        else:
            known = self.credit[nodes], self.least[nodes]
            may = all(self._waits_long(node, {*nodes}, {*nodes, *self.core.nodes[leader]}) for node in nodes)
            if not may:
                self.credit[nodes], self.least[nodes] = known
        self.moved[nodes] |= may
        return may

    def _waits_long(self, node: int, unit: set[int], together: set[int]) -> bool:
        """Whether a stage with the node, and without what it follows, takes longer than what runs the node alone."""
        before = [other for other in self.paths.before[node] if other in together] or self.paths.before[node]
        followed = [other for other in before if other in unit or (other in together and self.moved[other])]
        self.credit[node] = self.alone[node] + max((self.credit[other] for other in followed), default=0.0)
        received = min((self.cost[other] for other in before), default=0.0)
        self.least[node] = min(received, min((self.least[other] for other in followed), default=inf))
        sent = self.cost[node] if self.via_host and self.paths.after[node] else 0.0
        return not self.alone[node] or self.credit[node] <= self.least[node] + sent


def _leads(core: Core, paths: ProgramPaths) -> np.ndarray:
    """[nodes] whether a node comes before the last one of the longest path, or is that one."""
    times = [min(node.time) for node in core.problem.nodes]
    found = np.zeros(paths.n, dtype=bool)
    found[paths.longest([times[head] for _, head in paths.edges.tolist()], times)[1][-1]] = True
    for node in reversed(paths.order):
        found[node] |= any(found[other] for other in paths.after[node])
    return found


def _costs(core: Core, classes: tuple[DeviceClass, ...]) -> np.ndarray:
    """[values] the least seconds that any stage takes to receive or to send a value."""
    stages = [c for c in classes if not c.node_by_node]
    return np.array(
        [
            min((0.0 if c.free_transfers else c.link.seconds(value.bytes) for c in stages), default=0.0)
            for value in core.problem.values
        ]
    )
