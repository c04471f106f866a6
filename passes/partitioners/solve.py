"""From a problem to its solution: condense, cut, bound, and report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passes.partitioners.clock import Clock
from passes.partitioners.condense import indivisible
from passes.partitioners.copies import final_readers, inline
from passes.partitioners.core import Core, condensed
from passes.partitioners.errors import Infeasible
from passes.partitioners.evaluation import evaluate, loads, pipeline_order
from passes.partitioners.model import Problem, Solution
from passes.partitioners.ring import ring_core, ring_cut, wide_groups
from passes.partitioners.search import first_cut

PROOF = 1e-6  # relative: a value this close to a lower bound is called optimal


def solve(problem: Problem, time_limit: float = 60.0) -> Solution:
    """The best split that can be found, and how good it is, in about `time_limit` seconds.

    Raises Infeasible, with the facts, where no split obeys the problem.
    """
    clock = Clock(time_limit)
    whole = inline(problem)
    core = loose = condensed(whole, indivisible(len(whole.nodes), whole.before, whole.groups))
    wide = wide_groups(whole) if problem.n_stages > len(problem.devices) else []
    if wide:
        loose = ring_core(whole, wide)
    _countable(loose)
    cut, bound = first_cut(core, clock), least_possible(loose)
    if wide:
        around = ring_cut(loose, wide, clock)
        if around is not None and (cut is None or around.value < cut.value):
            core, cut = loose, around
    if cut is None:
        raise Infeasible("no split fits the devices' memory")
    return reported(problem, whole, cut.stages(core), bound)


def least_possible(core: Core) -> float:
    """No split is better than all work shared evenly, or than the longest unit where it is fastest."""
    fastest = core.time[sorted({device.kind for device in core.problem.devices})].min(axis=0)
    if core.problem.objective == "latency":
        return float(fastest.max())
    return float(max(fastest.sum() / len(core.problem.devices), fastest.max()))


def _countable(core: Core) -> None:
    devices, units = len(core.problem.devices), core.n
    if core.problem.every_device and units < devices:
        raise Infeasible(f"{devices} devices need a stage each, and the program has {units} indivisible parts")
    fastest = core.time[[device.kind for device in core.problem.devices]].min(axis=0)
    if np.isinf(fastest).any():
        unit = int(np.argmax(np.isinf(fastest)))
        raise Infeasible(f"nodes {core.nodes[unit]} must share a device, and no device can run them all")


def reported(problem: Problem, whole: Problem, stages: Sequence[int], lower_bound: float) -> Solution:
    """The solution in the caller's words: stages by node id, everything evaluated anew."""
    stage_of = dict(zip(whole.names, stages, strict=True))
    for node, readers in final_readers(problem).items():
        stage_of[problem.names[node]] = stage_of[problem.names[readers[0]]]
    value = evaluate(problem, stage_of)
    order = tuple(pipeline_order(whole, stages))
    return Solution(
        stage_of={name: stage_of[name] for name in problem.names},
        value=value,
        lower_bound=min(lower_bound, value),
        optimal=value <= lower_bound * (1 + PROOF),
        order=order,
        placement={stage: problem.device_of(stage) for stage in order},
        loads=loads(whole, stages),
    )
