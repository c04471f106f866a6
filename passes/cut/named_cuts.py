"""Cuts where the user wants them: between modules, or before those that are named.

They may come between what is computed of weights alone and what reads it, which no other cut parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from math import inf

from ir.analysis.called_modules import layers, module_nodes
from ir.errors import PlanError
from ir.graph import Graph
from passes.cut.cut_problem import Wiring
from passes.partitioners import given
from passes.partitioners.problem import InvalidSplit, Problem, Solution

_SHOWN = 8  # modules that a message lists


def between_modules(graph: Graph, problem: Problem) -> Problem:
    """The problem whose splits leave the layers of a model whole, and the modules beside them."""
    modules = module_nodes(graph)
    cheap = {i for i, node in enumerate(problem.nodes) if node.cheap}  # which each stage may compute anew
    whole = (tuple(i for i in modules[path] if i not in cheap) for path in layers(modules))
    return replace(problem, groups=(*Wiring.of(graph).groups, *(nodes for nodes in whole if len(nodes) > 1)))


def cut_before(graph: Graph, problem: Problem, names: Sequence[str]) -> Solution:
    """The split whose stages, but for the first, begin with these modules, in each program.

    Raises PlanError for a name that is no module, and where they are not one fewer than the devices, or where a stage
    cannot begin there.
    """
    modules = module_nodes(graph)
    for name in names:
        if name not in modules:
            near = get_close_matches(name, modules, n=1)
            known = f"there is `{near[0]}`" if near else f"those that are: {', '.join(layers(modules)[:_SHOWN])}"
            raise PlanError(f"no module `{name}` is called; {known}")
    if len(set(names)) + 1 != len(problem.devices):
        cuts = len(problem.devices) - 1
        raise PlanError(f"{cuts + 1} devices need {cuts} modules to cut before, and {len(set(names))} are named")
    ordered = sorted(set(names), key=lambda name: modules[name][0])
    freer = replace(problem, groups=Wiring.of(graph).groups)
    try:
        return given(freer, _begun(graph, [modules[name] for name in ordered]))
    except InvalidSplit as e:
        raise PlanError(f"no cut before {', '.join(names)}: {e}") from e


def _begun(graph: Graph, starts: Sequence[Sequence[int]]) -> dict[int, int]:
    """The stage of each node: the last one of those whose first node comes before it in its program, or the first."""
    stage_of: dict[int, int] = {}
    for program in {node.program for node in graph.nodes}:
        own = [i for i, node in enumerate(graph.nodes) if node.program == program]
        first = [min((i for i in nodes if graph.nodes[i].program == program), default=inf) for nodes in starts]
        stage_of |= {i: max((k for k, start in enumerate(first, start=1) if start <= i), default=0) for i in own}
    return stage_of
