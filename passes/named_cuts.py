"""Cuts where the user wants them: between modules, or before those that are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from ir.analysis.called_modules import layers, module_nodes
from ir.errors import PlanError
from ir.graph import Graph
from passes.partitioners import given
from passes.partitioners.problem import InvalidSplit, Problem, Solution


def between_modules(graph: Graph, problem: Problem) -> Problem:
    """The problem whose splits leave the layers of a model whole, and the modules beside them."""
    modules = module_nodes(graph)
    whole = (modules[path] for path in layers(modules))
    return replace(problem, groups=(*problem.groups, *(nodes for nodes in whole if len(nodes) > 1)))


def cut_before(graph: Graph, problem: Problem, names: Sequence[str]) -> Solution:
    """The split whose stages, but for the first, begin with these modules.

    Raises PlanError for a name that is no module, and where they are not one fewer than the devices, or where a stage
    cannot begin there.
    """
    modules = module_nodes(graph)
    for name in names:
        if name not in modules:
            near = get_close_matches(name, modules, n=1)
            raise PlanError(f"no module `{name}` is called" + (f"; there is `{near[0]}`" if near else ""))
    if len(set(names)) + 1 != len(problem.devices):
        cuts = len(problem.devices) - 1
        raise PlanError(f"{cuts + 1} devices need {cuts} modules to cut before, and {len(set(names))} are named")
    starts = sorted(modules[name][0] for name in set(names))
    stage_of = {i: sum(start <= i for start in starts) for i in range(len(graph.nodes))}
    try:
        return given(problem, stage_of)
    except InvalidSplit as e:
        raise PlanError(f"no cut before {', '.join(names)}: {e}") from e
