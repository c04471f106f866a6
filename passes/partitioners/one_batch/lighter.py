"""Problems with fewer ideals: some that are harder, whose splits are splits of the problem, and some that are easier.

Harder: units are fused. Easier: nodes that take no time and send no more than the unit that they follow lose their
bytes of memory, and then some best split has them in the call of that unit (see `contract`, whose rules for stages that
overlap transfers and compute hold for calls), so that they are fused with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from math import inf

import numpy as np

from passes.partitioners.condense import indivisible
from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.fastest import Fastest, Searched
from passes.partitioners.one_batch.flow import Flow, ProgramPaths
from passes.partitioners.problem.errors import InvalidSplit
from passes.partitioners.problem.evaluation import evaluate
from passes.partitioners.problem.model import Problem
from passes.partitioners.proof.contract import fused, idle_followers
from passes.partitioners.proof.ideals import TooWide
from passes.partitioners.proof.prove import Proof
from passes.partitioners.search.first_cut import Cut, better
from passes.partitioners.search.lattice import all_ideals
from passes.partitioners.units import BYTES, Core, condensed

_FEW_IDEALS = 8_000  # of a problem that is searched for cuts
_MOST_IDEALS = 60_000  # of one that is searched for a bound
_LIGHT = (1e-12, 1e-3, 1e-2, inf)  # shares of a device's memory that followers keep at most


def fastest(core: Core, proof: Proof, deadline: Deadline) -> Proof:
    """The best cut and bound that are found in time."""
    problem, easier = core.problem, loosened(core)
    paths = ProgramPaths(problem)
    flow = _first_flow(problem, paths)
    if found := _searched(_harder(core), _FEW_IDEALS, paths, replace(proof, bound=0.0), flow, deadline):
        searched, result = found
        flow, cut = result.flow, result.proof.cut
        if searched is easier:
            return Proof(cut, max(proof.bound, result.proof.bound))
        proof = replace(proof, cut=cut)
    if found := _searched(_easier(easier), _MOST_IDEALS, paths, proof, flow, deadline):
        cut, bound = revalued(problem, found[1].proof.cut), found[1].proof.bound
        proof = Proof(better(proof.cut, cut) or proof.cut, bound)
    return replace(proof, bound=min(proof.bound, proof.cut.value))


def _searched(
    cores: Iterable[Core], limit: int, paths: ProgramPaths, proof: Proof, flow: Flow, deadline: Deadline
) -> tuple[Core, Searched] | None:
    """The first core of no more ideals than a limit, and what is found in it."""
    for core in cores:
        if deadline.passed():
            return None
        if (ideals := all_ideals(core, limit)) is not None:
            with suppress(TooWide):
                return core, Fastest(core, ideals, paths).search(proof, flow, deadline)
    return None


def loosened(core: Core) -> Core:
    """The core without the groups that a device which runs node by node need not keep together.

    On a stage, a group has with it all nodes on paths between its members; there it has not.
    """
    problem = core.problem
    kept = tuple(group for group in problem.groups if set(core.nodes[core.unit_of[group[0]]]) == set(group))
    if not problem.node_by_node or len(kept) == len(problem.groups):
        return core
    easier = replace(problem, groups=kept)
    return condensed(easier, indivisible(len(problem.nodes), problem.before, kept))


def _harder(core: Core) -> Iterator[Core]:
    yield core
    for most in _LIGHT:
        core, _ = _without_followers(core, most)
        yield core
    for even in (True, False):
        while pairs := _links(core, even=even):
            core = fused(core, pairs)
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
    above = np.zeros((core.n, core.n), dtype=bool)
    for unit, direct in enumerate(before):
        above[unit] = above[direct].any(axis=0)
        above[unit, direct] = True
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
