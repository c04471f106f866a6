"""Faults of the plan, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import torch

from ir.graph import Call, Node, Param, rename
from ir.plan import Stage, StagePlan

Change = Callable[[StagePlan, Random], StagePlan]


def _on_stage(change: Callable[[Stage, Random], Iterator[Stage]]) -> Change:
    """A change of one stage, of those that it applies to."""

    def changed(plan: StagePlan, random: Random) -> StagePlan:
        some = [(i, new) for i, stage in enumerate(plan.stages) for new in change(stage, random)]
        i, new = random.choice(some)
        return replace(plan, stages=(*plan.stages[:i], new, *plan.stages[i + 1 :]))

    return changed


def _with_nodes(stage: Stage, nodes: list[Node]) -> Stage:
    return replace(stage, graph=replace(stage.graph, nodes=tuple(nodes)))


def _without_receive(stage: Stage, random: Random) -> Iterator[Stage]:
    yield from (replace(stage, recvs=tuple(t for t in stage.recvs if t is not lost)) for lost in stage.recvs)


def _without_send(stage: Stage, random: Random) -> Iterator[Stage]:
    yield from (replace(stage, sends=tuple(t for t in stage.sends if t is not lost)) for lost in stage.sends)


def _without_node(stage: Stage, random: Random) -> Iterator[Stage]:
    yield from (_with_nodes(stage, [n for n in stage.graph.nodes if n is not lost]) for lost in stage.graph.nodes)


def _with_other_operands(stage: Stage, random: Random) -> Iterator[Stage]:
    for i, node in enumerate(stage.graph.nodes):
        if len({*node.operands}) > 1:
            a, b = random.sample([*{*node.operands}], 2)
            nodes = [*stage.graph.nodes]
            nodes[i] = rename(node, lambda v, a=a, b=b: {a: b, b: a}.get(v, v))
            yield _with_nodes(stage, nodes)


def _with_other_operator(stage: Stage, random: Random) -> Iterator[Stage]:
    for i, node in enumerate(stage.graph.nodes):
        if isinstance(node, Call) and node.op == torch.ops.aten.relu.default:
            nodes = [*stage.graph.nodes]
            nodes[i] = replace(node, op=torch.ops.aten.tanh.default)
            yield _with_nodes(stage, nodes)


def _with_looser_sizes(stage: Stage, random: Random) -> Iterator[Stage]:
    loose = dict.fromkeys(stage.graph.ranges, (1, None))
    yield replace(stage, graph=replace(stage.graph, ranges=loose))


def _with_other_weight(stage: Stage, random: Random) -> Iterator[Stage]:
    """A parameter of another dtype."""
    for param in stage.graph.params:
        other = Param(param.name, replace(param.type, dtype=torch.float16), param.fqns)
        yield replace(stage, graph=stage.graph.map_values(lambda v, p=param, o=other: o if v is p else v))


def _without_state(stage: Stage, random: Random) -> Iterator[Stage]:
    if stage.graph.states:
        yield replace(stage, graph=replace(stage.graph, updates=()))


def _on_other_device(stage: Stage, random: Random) -> Iterator[Stage]:
    yield replace(stage, device=replace(stage.device, name="cuda:7"))


def _without_node_of_graph(plan: StagePlan, random: Random) -> StagePlan:
    calls = [node for node in plan.graph.nodes if isinstance(node, Call)]
    lost = random.choice(calls)
    return replace(plan, graph=replace(plan.graph, nodes=tuple(n for n in plan.graph.nodes if n is not lost)))


def _with_other_bounds(plan: StagePlan, random: Random) -> StagePlan:
    ranges = {symbol: (low, 4096) for symbol, (low, _) in plan.graph.ranges.items()}
    return replace(plan, graph=replace(plan.graph, ranges=ranges))


def _with_stages_traded(plan: StagePlan, random: Random) -> StagePlan:
    a, b = random.sample(range(len(plan.stages)), 2)
    stages = [*plan.stages]
    stages[a], stages[b] = replace(stages[b], index=a), replace(stages[a], index=b)
    return replace(plan, stages=tuple(stages))


PLAN_FAULTS: dict[str, Change] = {
    "plan: a receive is dropped": _on_stage(_without_receive),
    "plan: a send is dropped": _on_stage(_without_send),
    "plan: a node is dropped": _on_stage(_without_node),
    "plan: operands are swapped": _on_stage(_with_other_operands),
    "plan: another operator": _on_stage(_with_other_operator),
    "plan: looser sizes": _on_stage(_with_looser_sizes),
    "plan: a weight of another dtype": _on_stage(_with_other_weight),
    "plan: a state is not updated": _on_stage(_without_state),
    "plan: another device": _on_stage(_on_other_device),
    "plan: the graph loses a node": _without_node_of_graph,
    "plan: other bounds": _with_other_bounds,
    "plan: stages are traded": _with_stages_traded,
}
