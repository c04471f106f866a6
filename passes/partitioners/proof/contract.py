"""Contraction: units are fused that some best split keeps together, so that fewer remain to search.

Write k(S) for the transfers of a set S of units: the cost of every value with a member (its producer or a
consumer) in S and one outside. A stage S costs its time plus k(S). k is symmetric, k(S) = k(rest), and
submodular: adding v to a larger set adds no more than adding it to a smaller one.

Let unit v follow unit u into its stage. That makes no stage worse if, on every class of devices,

    (1) k({u, v}) - k({u}) + time(v) <= 0 where u may be, and k({u, v}) - k({u}) - time(v) <= 0 elsewhere,

for u's stage A grows by time(v) + k(A + v) - k(A), at most the first; v's old stage B changes by
-time(v) + k(B - v) - k(B) = -time(v) + k(C + v) - k(C), where C is everything but B and holds u, so by
no more than the second; and k of other stages does not know where v is. The order must hold too:

    (2) if v is below u: every predecessor of v is u or above u; if v is above u, the mirror image.

(3) v can run wherever u can, and (4) keeps no memory where memory matters. With overlap a load is the
largest of time, received and sent; so time(v) must be 0 and (1) hold for received and sent apart (both are
submodular, and what S receives the rest sends).

Many such moves may be made at once, as long as nobody follows a follower in a circle: moving the leaders
first only enlarges the sets, and then (1) still holds by submodularity, and (2) by transitivity.

Only splits better than one already known matter, so a unit may be only where it stays below that value;
and where parting two units costs as much as that value, they are fused outright.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count, pairwise
from math import inf

import numpy as np

from passes.partitioners.condense import indivisible
from passes.partitioners.proof.relaxed import Relaxed, relaxed
from passes.partitioners.units import Core, condensed

_ROUNDING = 1e-9  # relative


def contracted(model: Relaxed, known: float, rounds: int | None = None) -> Relaxed:
    """The same problem over fewer units: if a split is better than `known`, one of the best remains.

    `rounds`: how often units are fused; by default until none can be.
    """
    for _ in count() if rounds is None else range(rounds):
        found = _Contraction(model, known)
        pairs = found.inseparable() or found.followers()
        if not pairs:
            return model
        model = model.on(fused(model.core, pairs))
    return model


def light_followers(core: Core, seconds: float) -> list[tuple[int, int]]:
    """Pairs (v, u) of units of which v may follow u, if its memory does not matter and `seconds` of a stage do not.

    The rules are those with overlap: then u receives no more and sends no more, each by itself. The time of devices
    that run node by node is not looked at.
    """
    return _Contraction(replace(relaxed(core, memory=False), overlap=True), inf, seconds).followers()


def fused(core: Core, pairs: Sequence[tuple[int, int]]) -> Core:
    """The core in which the units of each pair are fused, with all units on paths between them."""
    unit_of = indivisible(core.n, [(a, b) for a, b in core.edges.tolist()], pairs)
    return condensed(core.problem, unit_of[core.unit_of], core.table)


class _Contraction:
    """One round of contraction."""

    def __init__(self, model: Relaxed, known: float, idle: float = 0.0) -> None:
        core = self.core = model.core
        self.idle = np.array([inf if c.node_by_node else idle for c in model.classes])
        self.model, self.known = model, known
        self.may_be = model.time < known
        self.may = self.may_be.T.tolist()  # of each unit: by class
        self.time, self.cost = model.time.T.tolist(), model.cost.T.tolist()  # of each unit, each value: by class
        self.before, self.after = core.neighbours(reverse=True), core.neighbours()
        self.producer = core.producer.tolist()
        members, starts = core.values.members.tolist(), core.values.starts.tolist()
        self.members = [frozenset(members[first:last]) for first, last in pairwise(starts)]
        self.of_unit: list[list[int]] = [[] for _ in range(core.n)]
        for value, unit in zip(core.values.owner.tolist(), core.values.members.tolist(), strict=True):
            self.of_unit[unit].append(value)

    def inseparable(self) -> list[tuple[int, int]]:
        """Pairs of neighbours of which one, in a stage without the other, has a load of `known` or more anywhere."""
        return [
            (u, v)
            for u in np.flatnonzero((self._most >= self.known * (1 - _ROUNDING)).all(axis=0)).tolist()
            for v in (*self.before[u], *self.after[u])
            if (self._apart(u, v) >= self.known).all()
        ]

    @cached_property
    def _most(self) -> np.ndarray:
        """[classes, units] the load of a stage that holds a unit alone: no less than `_apart` is for any neighbour."""
        values = self.core.values
        costs = (np.bincount(values.members, cost[values.owner], self.core.n) for cost in self.model.cost)
        return self.model.time + np.array([*costs])

    def _apart(self, u: int, v: int) -> np.ndarray:
        """[classes] the least load of a stage that holds `u` and not `v`."""
        shared = [value for value in self.of_unit[u] if v in self.members[value]]
        time, cost = self.model.time[:, u], self.model.cost
        if not self.model.overlap:
            return time + cost[:, shared].sum(axis=1)
        sent = [value for value in shared if self.producer[value] == u]
        received = [value for value in shared if self.producer[value] == v]
        return np.maximum(time, np.maximum(cost[:, sent].sum(axis=1), cost[:, received].sum(axis=1)))

    def followers(self) -> list[tuple[int, int]]:
        """Pairs (v, u) such that v may follow u, without cycles."""
        above, below = _beyond(self.before, range(self.core.n)), _beyond(self.after, reversed(range(self.core.n)))
        leader = list(range(self.core.n))
        stays, (led_from_above, led_from_below) = _keepers(self.model), self._worth_a_look()
        ways = (led_from_above, self.before, above), (led_from_below, self.after, below)
        for v in np.flatnonzero(~stays & (led_from_above | led_from_below)).tolist():
            leader[v] = next(
                (
                    u
                    for worth_a_look, near, beyond in ways
                    if worth_a_look[v]
                    for u in near[v]
                    if _all_in(near[v], beyond[u], u) and _root(leader, u) != v and self._no_worse(v, u)
                ),
                v,
            )
        return [(v, u) for v, u in enumerate(leader) if v != u]

    def _worth_a_look(self) -> tuple[np.ndarray, np.ndarray]:
        """[units] whether a unit may obey rule (1) with one above it, and with one below it, whichever that is.

        With a unit above it, all that it makes is sent, and what that unit makes for it alone no more; with one below
        it, what it receives alone is received, and at best nothing of what it makes is sent.  Units with values that
        are read above where they are made, as gradients are, always may.
        """
        model, values = self.model, self.core.values
        alone = np.flatnonzero(np.diff(values.starts) == 2)
        reader = values.members[values.starts[alone]] + values.members[values.starts[alone] + 1]
        reader -= self.core.producer[alone]
        received = np.array([np.bincount(reader, cost[alone], self.core.n) for cost in model.cost])
        everywhere = self.may_be.all(axis=1, keepdims=True)  # elsewhere other rules hold
        time = np.where(everywhere, model.time, 0.0)
        light = (time <= self.idle[:, None]) | (not model.overlap)
        room = -(received + model.made + time) * _ROUNDING + (0.0 if model.overlap else time)
        growths = (model.made - received, received - model.made)
        backward = values.members < self.core.producer[values.owner]
        always = np.zeros(self.core.n, dtype=bool)
        always[values.members[backward]] = always[self.core.producer[values.owner[backward]]] = True
        above, below = (np.all(light & (growth + room <= 0) | ~everywhere | always, axis=0) for growth in growths)
        return above, below

    def _no_worse(self, v: int, u: int) -> bool:
        """Rules (1) and (3)."""
        here, there = self.may[u], self.may[v]
        if here != there and any(leads and not follows for leads, follows in zip(here, there, strict=True)):
            return False
        time, (received, sent) = self.time[v], self._growth(v, u)
        if self.model.overlap:
            idle = (t <= most for t, most, leads in zip(time, self.idle.tolist(), here, strict=True) if leads)
            return max(*received, *sent) <= 0 and all(idle)
        slack = (-t if leads else t if may else inf for t, leads, may in zip(time, here, there, strict=True))
        return all(r + s <= least for r, s, least in zip(received, sent, slack, strict=True))

    def _growth(self, v: int, u: int) -> tuple[list[float], list[float]]:
        """[classes] what `u` and `v` together receive, and send, more than `u` alone."""
        received, sent = [0.0] * len(self.model.classes), [0.0] * len(self.model.classes)
        for value in self.of_unit[v]:
            members = self.members[value]
            if self.producer[value] == v:
                less, more = u in members, not members <= {u, v}
            else:
                less, more = -(u not in members), -(u in members and len(members) == 2)
            for kind, seconds in enumerate(self.cost[value] if less or more else ()):
                received[kind] -= seconds * less
                sent[kind] += seconds * more
        return received, sent


def _keepers(model: Relaxed) -> np.ndarray:
    """The units that keep memory, where memory matters."""
    core = model.core
    stays = np.zeros(core.n, dtype=bool)
    if model.memory_matters:
        stays = core.keeps > 0
        stays[core.weights.members] = True
    return stays


def _beyond(neighbours: Sequence[Sequence[int]], order: Iterable[int]) -> list[int]:
    """For each unit the bit set of all that can be reached over its `neighbours`, which come first in `order`."""
    reach, with_itself = [0] * len(neighbours), [0] * len(neighbours)
    for unit in order:
        near = neighbours[unit]
        reached = with_itself[near[0]] if near else 0
        for other in near[1:]:
            reached |= with_itself[other]
        reach[unit], with_itself[unit] = reached, reached | 1 << unit
    return reach


def _all_in(units: Iterable[int], bits: int, also: int) -> bool:
    return all(unit == also or bits >> unit & 1 for unit in units)


def _root(leader: Sequence[int], unit: int) -> int:
    while leader[unit] != unit:
        unit = leader[unit]
    return unit
