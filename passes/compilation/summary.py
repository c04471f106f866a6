"""The summary of a plan: predicted seconds, bytes and parameters of its stages."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from ir.analysis.memory import peak_bytes, stored_bytes
from ir.graph import Node, Value
from ir.plan import Stage, StagePlan
from ir.summary import Edge, StageSummary, Summary
from passes.cost_models.predictions import Predictions


def summarize(plan: StagePlan, model: str, notes: tuple[str, ...] = ()) -> Summary:
    """The summary of a plan.  Unlike the search for the cut, it counts the copies of cheap nodes."""
    graph, predicted = plan.graph, Predictions(plan.graph)
    stages = tuple(_stage(plan, stage, predicted) for stage in plan.stages)
    total = sum(s.compute_seconds for s in stages)
    loads: dict[int, float] = {}
    for device, s in zip(graph.placement, stages, strict=True):
        loads[device] = loads.get(device, 0.0) + s.compute_seconds + s.receive_seconds + s.send_seconds
    bottleneck = max(loads.values())
    return Summary(
        model=model,
        stages=tuple(replace(s, share=s.compute_seconds / total if total else 0.0) for s in stages),
        bottleneck_seconds=bottleneck,
        lower_bound_seconds=graph.split.lower_bound,
        gap=graph.split.gap,
        binds=graph.split.binds,
        good_for={str(symbol): ends for symbol, ends in graph.split.good_for.items()},
        balance=bottleneck * len(loads) / sum(loads.values()) if bottleneck else 1.0,
        cut_bytes=sum(int(predicted.nbytes(t.value)) for t in plan.transfers),
        notes=notes,
    )


def _stage(plan: StagePlan, stage: Stage, predicted: Predictions) -> StageSummary:
    graph, returned = stage.graph, {v.name for v in plan.graph.outputs}
    receive, send = _transfer_seconds(plan, stage, predicted)
    return StageSummary(
        stage=stage.index,
        device=stage.device.name,
        parameters=sum(int(p.type.numel) for p in graph.params),
        weight_bytes=stored_bytes(stage.stored),
        activation_bytes=peak_bytes(graph),
        memory_bytes=int(stage.device.memory) if isfinite(stage.device.memory) else None,
        compute_seconds=predicted.seconds(graph.nodes, stage.device),
        receive_seconds=receive,
        send_seconds=send,
        share=0.0,
        receives=tuple(_edge(v, _one(stage.source_of(v)), predicted) for v in graph.inputs),
        sends=tuple(
            replace(_edge(v, stage.targets_of(v), predicted), is_output=v.name in returned) for v in graph.outputs
        ),
    )


def _transfer_seconds(plan: StagePlan, stage: Stage, predicted: Predictions) -> tuple[float, float]:
    """Seconds to receive and to send: each value once, and sent at the pace of the slowest link that it takes."""
    sent: dict[Value, float] = {}
    received = 0.0
    for t in (*stage.recvs, *stage.sends):
        link = plan.cluster.links.get((plan.graph.placement[t.src], plan.graph.placement[t.stage]))
        seconds = link.seconds(predicted.nbytes(t.value)) if link is not None else 0.0  # none on one device
        if t.stage == stage.index:
            received += seconds
        else:
            sent[t.value] = max(sent.get(t.value, 0.0), seconds)
    return received, sum(sent.values())


def node_seconds(plan: StagePlan) -> dict[Node, float]:
    """The seconds that each node of the whole graph adds to the time of its stage."""
    predicted = Predictions(plan.graph)
    seconds: dict[Node, float] = {}
    for stage in plan.stages:
        nodes = [node for node in plan.graph.nodes if node.stage == stage.index]
        seconds |= zip(nodes, predicted.shares(nodes, stage.device), strict=True)
    return seconds


def _edge(value: Value, stages: tuple[int, ...], predicted: Predictions) -> Edge:
    return Edge(value.name, str(value.type), int(predicted.nbytes(value)), stages)


def _one(stage: int | None) -> tuple[int, ...]:
    return () if stage is None else (stage,)
