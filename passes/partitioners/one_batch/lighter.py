"""The search over problems with fewer units: harder ones, whose splits are splits of the problem, and easier ones.

Nodes that may nearly as well be in the call of a neighbour are fused with it: that makes a harder problem, and where
calls pay for them only if they must, an easier one (see `easier`). A coarse pair of these gives a good split and a
bound at once. As long as there is time, what the best chain of an easier problem did not pay for is set free again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, inf

import numpy as np

from passes.partitioners.condense import indivisible
from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.climb import climbed
from passes.partitioners.one_batch.easier import STEPS, Easier, as_it_is, easier
from passes.partitioners.one_batch.fastest import TURNS, Fastest
from passes.partitioners.one_batch.flow import Flow, ProgramPaths
from passes.partitioners.problem.model import Problem
from passes.partitioners.proof.prove import Proof
from passes.partitioners.search.lattice import all_ideals
from passes.partitioners.units import Core, condensed

_QUICK = 3_000  # ideals of a problem that takes seconds
_FEW_IDEALS = 9_000  # of one that is searched for cuts
_MOST_IDEALS = 60_000  # of one that is searched for a bound
_MOST_MEMBERS = 16_000_000  # ideals times units
_TURNS_AGAIN = 3  # of a game that has been played for a coarser problem
_WIDER = 4  # times more ideals that a problem gets at once
_SHARES = (1.0, 0.3, 0.1, 0.03)  # of the nodes that are doubted
_NARROWER = 0.4  # ideals of a problem that is worth a search, relative to the next finer one
_SHARE = 0.35  # of the time that is left, for one of several problems


def fastest(core: Core, proof: Proof, deadline: Deadline) -> Proof:
    """The best cut and bound that are found in time."""
    problem, loose = core.problem, loosened(core)
    paths = ProgramPaths(problem)
    flow = _first_flow(problem, paths)
    for step, lighter, ideals in _narrow(loose, paths, proof.cut.value)[::-1]:
        stay = np.zeros(paths.n, dtype=bool)
        while not (proof.complete() or deadline.passed()):
            if step and not stay.any():
                proof, flow = _split(core, lighter.core, ideals, paths, proof, flow, deadline)
            turns = _TURNS_AGAIN if stay.any() else TURNS
            found = Fastest(problem, lighter, ideals, paths).search(proof, flow, deadline, turns)
            proof, flow = replace(found.proof, cut=climbed(core, found.proof.cut, deadline)), found.flow
            for some in _dearest(problem, found.doubted):
                finer = easier(loose, paths, proof.cut.value, step, stay | some)
                if (listed := _ideals(finer.core, max(_QUICK, _WIDER * len(ideals)))) is not None:
                    stay, lighter, ideals = stay | some, finer, listed
                    break
            else:
                break
    return proof


def _dearest(problem: Problem, doubted: np.ndarray) -> Iterator[np.ndarray]:
    """The nodes that are doubted, those of them that take the longest, and the longest of these."""
    nodes = np.flatnonzero(doubted)
    times = [max((t for t in problem.nodes[node].time if t < inf), default=0.0) for node in nodes]
    for count in dict.fromkeys(ceil(len(nodes) * share) for share in _SHARES):
        some = np.zeros(len(doubted), dtype=bool)
        some[nodes[np.argsort(times, kind="stable")[::-1][:count]]] = True
        if count:
            yield some


def _ideals(core: Core, most: int) -> np.ndarray | None:
    return all_ideals(core, min(most, _MOST_MEMBERS // core.n))


def _split(
    core: Core, coarse: Core, ideals: np.ndarray, paths: ProgramPaths, proof: Proof, flow: Flow, deadline: Deadline
) -> tuple[Proof, Flow]:
    """A better cut, if there is one that keeps the units of a coarse core together."""
    groups = (*core.problem.groups, *coarse.nodes)
    harder = condensed(core.problem, indivisible(len(core.unit_of), core.problem.before, groups))
    if not np.array_equal(harder.unit_of, coarse.unit_of):
        listed = _ideals(harder, _FEW_IDEALS)
        if listed is None:
            return proof, flow
        ideals = listed
    search = Fastest(core.problem, as_it_is(harder), ideals, paths)
    found = search.search(replace(proof, bound=0.0), flow, Deadline(deadline.left() * _SHARE))
    return replace(proof, cut=climbed(core, found.proof.cut, deadline, kicks=True)), found.flow


def _narrow(loose: Core, paths: ProgramPaths, value: float) -> list[tuple[int, Easier, np.ndarray]]:
    """The easier problems with few enough ideals, each much narrower than the one before, up to a quick one."""
    found: list[tuple[int, Easier, np.ndarray]] = []
    for step in range(STEPS + 1):
        lighter = easier(loose, paths, value, step, np.zeros(paths.n, dtype=bool))
        ideals = _ideals(lighter.core, _MOST_IDEALS)
        if ideals is not None and (not found or len(ideals) < _NARROWER * len(found[-1][2])):
            found.append((step, lighter, ideals))
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


def _first_flow(problem: Problem, paths: ProgramPaths) -> Flow:
    """The longest path if each node runs on the kind of device that is first listed."""
    kinds = [device.kind for device in problem.devices]
    times = [next((t for t in (node.time[k] for k in kinds) if t < inf), 0.0) for node in problem.nodes]
    _, path = paths.longest([times[head] for _, head in paths.edges.tolist()], times)
    return paths.along(path)
