"""The solution of a problem: condense it, find a first cut, improve or prove it, evaluate it anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from passes.partitioners.condense import indivisible
from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.lighter import fastest, loosened
from passes.partitioners.problem.copies import final_readers, inline
from passes.partitioners.problem.errors import Infeasible
from passes.partitioners.problem.evaluation import evaluate, loads, pipeline_order
from passes.partitioners.problem.model import Problem, Solution
from passes.partitioners.proof.prove import Proof, any_cut, assigned, proven
from passes.partitioners.search.first_cut import Cut, better, first_bound, first_cut
from passes.partitioners.search.plain import plainest_cut
from passes.partitioners.search.ring import ring_core, ring_cut, wide_groups
from passes.partitioners.search.thrift import thriftier
from passes.partitioners.sharing import Share, in_turn
from passes.partitioners.shortage import shortage
from passes.partitioners.units import Core, condensed

_IN_TIME = 0.97  # of the time that is left, for a search that looks at the clock between steps of a second


def solve(problem: Problem, time_limit: float = 60.0, share: Share = in_turn) -> Solution:
    """The best split that is found in about `time_limit` seconds, and a lower bound of all splits.

    `share` runs searches that do not wait for each other, by default in turn.  Raises Infeasible, with the facts, if no
    split obeys the problem or none is found.
    """
    deadline = Deadline(time_limit)
    whole = replace(inline(problem), modules=())  # they matter to `plainest` alone
    proof = _around(whole, deadline, share) if returns(whole) else _along(whole, deadline, share)
    return reported(problem, whole, proof)


def plainest(
    problem: Problem, found: Solution, slack: float, time_limit: float = 10.0, share: Share = in_turn
) -> Solution:
    """The plainest split whose bottleneck is at most `slack` above that of `found`, or `found` if none is plainer.

    That is the one of least `crossing`, of those that are found (of all, in small problems): it sends the fewest
    values, then parts the fewest modules, then sends the fewest bytes, then has the least bottleneck. A split whose
    first and last stage share a device stays as it is, and so does one for an objective that is not one of loads.
    """
    whole = inline(problem)
    if returns(whole) or not whole.objective.of_loads:
        return found
    core = indivisible_parts(whole)
    cut = Cut(tuple(found.stage_of[name] for name in whole.names), found.value)
    plain = plainest_cut(core, cut, found.value * (1 + slack), Deadline(time_limit), share)
    return found if plain is cut else reported(problem, whole, Proof(plain, found.lower_bound))


def check_capacity(problem: Problem) -> None:
    """Raise Infeasible, with the facts, if the weights are more than all devices together hold."""
    whole = inline(problem)
    needed = sum(w.bytes for w in whole.weights if w.readers) + sum(node.bytes for node in whole.nodes)
    if needed > sum(device.memory for device in whole.devices):
        groups = () if returns(whole) else whole.groups
        raise shortage(condensed(whole, indivisible(len(whole.nodes), whole.before, groups)), proven=True)


def given(problem: Problem, stage_of: Mapping[int, int]) -> Solution:
    """A split that somebody chose, evaluated.  Raises InvalidSplit where it breaks a rule of the problem."""
    whole = inline(problem)
    stages = tuple(stage_of[name] for name in whole.names)
    return reported(problem, whole, Proof(Cut(stages, evaluate(problem, stage_of)), 0.0))


def returns(problem: Problem) -> bool:
    """Whether the pipeline may end on the device on which it begins."""
    return problem.n_stages > len(problem.devices)


def indivisible_parts(problem: Problem) -> Core:
    """The units of a problem without copies, if each device has one stage.

    Raises Infeasible where these are too few, or one of them cannot run anywhere.
    """
    core = condensed(problem, indivisible(len(problem.nodes), problem.before, problem.groups))
    _countable(core)
    return core


def _along(problem: Problem, deadline: Deadline, share: Share) -> Proof:
    """A cut with one stage on each device, and a bound."""
    core = condensed(problem, indivisible(len(problem.nodes), problem.before, problem.groups))
    smallest = core
    if problem.node_by_node:  # whose nodes of a group may lie apart
        smallest = condensed(problem, indivisible(len(problem.nodes), problem.before, ()))
    _countable(smallest)
    cut = _first_cut(core, deadline, share) or any_cut(smallest, deadline)
    proof = Proof(cut, first_bound(loosened(core)))
    if problem.objective.of_loads:
        proof = proven(core, cut, proof.bound, deadline)
    elif problem.precedence is None:  # then whatever waits for something reads a value of it
        proof = fastest(core, proof, Deadline(deadline.left() * _IN_TIME))
    proof = assigned(core, proof, deadline)
    if problem.objective.of_loads:
        proof = replace(proof, cut=thriftier(core, proof.cut, deadline))
    return proof


def _around(problem: Problem, deadline: Deadline, share: Share) -> Proof:
    """A cut whose first and last stage may share a device, or one that keeps each group in a stage, and a bound."""
    loose = condensed(problem, indivisible(len(problem.nodes), problem.before, []))
    fused = condensed(problem, indivisible(len(problem.nodes), problem.before, problem.groups))
    _countable(loose)
    cut = _first_cut(fused, deadline, share)
    if wide := wide_groups(problem):
        cut = better(cut, ring_cut(ring_core(problem, wide), wide, deadline))
    cut = cut or any_cut(loose, deadline)
    return assigned(loose, Proof(cut, first_bound(loose)), deadline)


def _first_cut(core: Core, deadline: Deadline, share: Share) -> Cut | None:
    """The first cut, if each unit can run on some device."""
    return None if np.isinf(core.fastest).any() else first_cut(core, deadline, share)


def _countable(core: Core) -> None:
    devices, units = len(core.problem.devices), core.n
    if core.problem.every_device and units < devices:
        parts = "one indivisible part" if units == 1 else f"{units} indivisible parts"
        raise Infeasible(f"{devices} devices need a stage each, and the program has {parts}")
    if np.isinf(core.fastest).any():
        unit = int(np.argmax(np.isinf(core.fastest)))
        raise Infeasible(f"nodes {core.nodes[unit]} must share a device, and no device can run them all")


def reported(problem: Problem, whole: Problem, proof: Proof) -> Solution:
    """The solution in terms of `problem`: stages by node id, everything evaluated anew."""
    stage_of = dict(zip(whole.names, proof.cut.stages, strict=True))
    for node, readers in final_readers(problem).items():
        stage_of[problem.names[node]] = stage_of[problem.names[readers[0]]]
    value = evaluate(problem, stage_of)
    order = tuple(pipeline_order(whole, proof.cut.stages))
    return Solution(
        stage_of={name: stage_of[name] for name in problem.names},
        value=value,
        lower_bound=min(proof.bound, value),
        optimal=proof.complete(),
        order=order,
        placement={stage: problem.device_of(stage) for stage in order},
        loads=loads(whole, proof.cut.stages),
    )
