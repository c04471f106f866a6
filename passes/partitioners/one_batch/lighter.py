"""Problems with fewer ideals: some that are harder, whose splits are splits of the problem, and some that are easier.

Harder: units are fused. Easier: nodes that take no time and send no more than the unit that they follow lose their
bytes of memory, and then some best split has them in the call of that unit (see `contract`, whose rules for stages that
overlap transfers and compute hold for calls), so that they are fused with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf

import numpy as np

from passes.partitioners.condense import indivisible
from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.fastest import Fastest
from passes.partitioners.one_batch.flow import Flow, ProgramPaths
from passes.partitioners.problem.errors import InvalidSplit
from passes.partitioners.problem.evaluation import evaluate
from passes.partitioners.problem.model import Problem
from passes.partitioners.proof.contract import fused, idle_followers
from passes.partitioners.proof.prove import Proof
from passes.partitioners.search.first_cut import Cut, better
from passes.partitioners.search.lattice import all_ideals
from passes.partitioners.units import BYTES, Core, condensed

_QUICK = 2_500  # ideals of a problem that takes seconds
_FEW_IDEALS = 9_000  # of one that is searched for cuts
_MOST_IDEALS = 60_000  # of one that is searched for a bound
_MOST_MEMBERS = 16_000_000  # ideals times units
_SHARE = 0.35  # of the time that is left, for one of several problems
_LIGHT = (1e-12, 1e-3, 1e-2, inf)  # shares of a device's memory that followers keep at most


def fastest(core: Core, proof: Proof, deadline: Deadline) -> Proof:
    """The best cut and bound that are found in time."""
    problem, easier = core.problem, loosened(core)
    paths = ProgramPaths(problem)
    flow = _first_flow(problem, paths)
    for harder, ideals in _narrow(_harder(core), _FEW_IDEALS)[::-1]:
        if deadline.passed():
            return proof
        time = deadline if harder is easier else Deadline(deadline.left() * _SHARE)
        found = Fastest(harder, ideals, paths).search(replace(proof, bound=0.0), flow, time)
        flow, proof = found.flow, replace(proof, cut=found.proof.cut)
        if harder is easier:
            return replace(proof, bound=max(proof.bound, found.proof.bound))
    for lighter, ideals in _narrow(_easier(easier), _MOST_IDEALS)[:1]:
        found = Fastest(lighter, ideals, paths).search(proof, flow, deadline)
        cut = better(proof.cut, revalued(problem, found.proof.cut)) or proof.cut
        proof = Proof(cut, min(found.proof.bound, cut.value))
    return proof


def _narrow(cores: Iterable[Core], limit: int) -> list[tuple[Core, np.ndarray]]:
    """The cores of no more ideals than a limit, and these, up to the first one that has very few."""
    found: list[tuple[Core, np.ndarray]] = []
    for core in cores:
        if found and core.n == found[-1][0].n:
            continue
        if (ideals := all_ideals(core, min(limit, _MOST_MEMBERS // core.n))) is not None:
            found.append((core, ideals))
            if len(ideals) <= _QUICK:
                break
    return found


def loosened(core: Core) -> Core:
    """The core of an easier problem, without the groups that matter to a device which runs node by node.

    On a stage, a group is done at once, so that whatever one member waits for comes before all that waits for another.
    There it need not be, so a group may be one unit only if that is so in any case.
    """
    problem = core.problem
    if not problem.node_by_node or not problem.groups:
        return core
    single = condensed(problem, indivisible(len(problem.nodes), problem.before, ()))
    above = _above(single)[np.ix_(single.unit_of, single.unit_of)]
    kept = tuple(group for group in problem.groups if _orders_nothing(list(group), above))
    if len(kept) == len(problem.groups):
        return core
    return condensed(replace(problem, groups=kept), indivisible(len(problem.nodes), problem.before, kept))


def _orders_nothing(group: list[int], above: np.ndarray) -> bool:
    """Whether all that comes before a member comes before all that comes after another; `above[node, earlier]`."""
    others = np.setdiff1d(np.arange(len(above)), group)
    earlier, later = others[above[group][:, others].any(axis=0)], others[above[others][:, group].any(axis=1)]
    return bool(above[np.ix_(later, earlier)].all())


def _above(core: Core) -> np.ndarray:
    """[units, units] whether the second must run before the first."""
    above = np.zeros((core.n, core.n), dtype=bool)
    for unit, direct in enumerate(core.neighbours(reverse=True)):
        above[unit] = above[direct].any(axis=0)
        above[unit, direct] = True
    return above


def _harder(core: Core) -> Iterator[Core]:
    yield core
    for most in _LIGHT:
        core, _ = _without_followers(core, most)
        yield core
    for even in (True, False):
        while pairs := _links(core, even=even):
            seconds = {b for _, b in pairs}
            core = fused(core, [(a, b) for a, b in pairs if a not in seconds] or pairs)
            yield core


def _easier(core: Core) -> Iterator[Core]:
    yield core
    for most in _LIGHT:
        core, followers = _without_followers(core, most)
        core = condensed(_without_bytes(core.problem, followers), core.unit_of)
        yield core


def _without_bytes(problem: Problem, idle: set[int]) -> Problem:
    nodes = (replace(node, bytes=0.0) if i in idle else node for i, node in enumerate(problem.nodes))
    weights = (replace(weight, readers=tuple(r for r in weight.readers if r not in idle)) for weight in problem.weights)
    return replace(problem, nodes=tuple(nodes), weights=tuple(weights))


def _without_followers(core: Core, most: float) -> tuple[Core, set[int]]:
    """The core in which units that may follow others are fused with them, and the nodes of the followers.

    They keep at most the share `most` of the memory of the smallest device.
    """
    nodes: set[int] = set()
    memory = min(device.memory for device in core.problem.devices)
    while pairs := [(v, u) for v, u in idle_followers(core) if _bytes(core, v) <= most * memory]:
        nodes |= {node for follower, _ in pairs for node in core.nodes[follower]}
        core = fused(core, pairs)
    return core, nodes


def _bytes(core: Core, unit: int) -> float:
    read = core.weights.owner[core.weights.members == unit]
    return float(core.keeps[unit] + core.weights.sizes[read].sum())


def _links(core: Core, *, even: bool) -> list[tuple[int, int]]:
    """Pairs of units of which one is all that the other waits for, and that all that waits for it.

    There is a unit beside them that could run before or after. `even`: the second sends as much as the first.
    """
    before, after = core.neighbours(reverse=True), core.neighbours()
    above = _above(core)
    ordered = 1 + above.sum(axis=0) + above.sum(axis=1)
    sent = np.bincount(core.producer, core.values.sizes[:, BYTES], core.n)
    pairs = ((a, after[a][0]) for a in range(core.n) if len(after[a]) == 1)
    return [
        (a, b)
        for a, b in pairs
        if before[b] == [a] and ordered[b] < core.n and (not even or np.isclose(sent[a], sent[b]))
    ]


def _first_flow(problem: Problem, paths: ProgramPaths) -> Flow:
    """The longest path if each node runs on the kind of device that is first listed."""
    kinds = [device.kind for device in problem.devices]
    times = [next((t for t in (node.time[k] for k in kinds) if t < inf), 0.0) for node in problem.nodes]
    _, path = paths.longest([times[head] for _, head in paths.edges.tolist()], times)
    return paths.along(path)


def revalued(problem: Problem, cut: Cut) -> Cut | None:
    """The same split with its value in another problem of the same nodes; None if it breaks a rule of that."""
    try:
        return Cut(cut.stages, evaluate(problem, dict(zip(problem.names, cut.stages, strict=True))))
    except InvalidSplit:
        return None
