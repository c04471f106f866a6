"""The summary of a plan: predicted seconds, bytes and parameters of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import NamedTuple

from ir.analysis.memory import peak_bytes, stored_bytes
from ir.graph import Node, Value
from ir.plan import Stage, StagePlan
from ir.summary import Edge, StageSummary, Summary
from passes.cost_models.predictions import Predictions, parts_of_calls


def summarize(plan: StagePlan, model: str, notes: tuple[str, ...] = ()) -> Summary:
    """The summary of a plan.  Unlike the search for the cut, it counts the copies of cheap nodes.

    Of several programs, seconds and the bytes over the cuts are those of a call on average.
    """
    graph, programs = plan.graph, _programs(plan)
    stages = tuple(_stage(stage, programs) for stage in plan.stages)
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
        above=graph.split.above,
        proven=graph.split.proven,
        place=graph.split.place,
        best_cut_bytes=int(graph.split.best_bytes),
        good_for={str(symbol): ends for symbol, ends in graph.split.good_for.items()},
        balance=bottleneck * len(loads) / sum(loads.values()) if bottleneck else 1.0,
        cut_bytes=int(sum(p.part * p.predicted.nbytes(t.value) for p in programs for t in p.plan.transfers)),
        notes=notes,
    )


class _Program(NamedTuple):
    """A program of a plan, and its part of the calls."""

    plan: StagePlan
    predicted: Predictions
    part: float
    label: str  # before the names of its values, where there are several programs


def _programs(plan: StagePlan) -> list[_Program]:
    alone = [plan.program(i) for i in range(len(plan.programs))]
    labels = [f"{name}: " for name in plan.programs] if len(alone) > 1 else [""]
    predictions = (Predictions(p.graph) for p in alone)
    return list(map(_Program, alone, predictions, parts_of_calls(plan.graph), labels))


def _stage(stage: Stage, programs: Sequence[_Program]) -> StageSummary:
    slices = [(p, p.plan.stages[stage.index]) for p in programs]
    moved = [_transfer_seconds(p.plan, s, p.predicted) for p, s in slices]
    return StageSummary(
        stage=stage.index,
        device=stage.device.name,
        parameters=sum(int(p.type.numel) for p in stage.graph.params),
        weight_bytes=stored_bytes(stage.stored),
        activation_bytes=max(peak_bytes(s.graph) for _, s in slices),
        memory_bytes=int(stage.device.memory) if isfinite(stage.device.memory) else None,
        compute_seconds=sum(p.part * p.predicted.seconds(s.graph.nodes, stage.device) for p, s in slices),
        receive_seconds=sum(p.part * receive for p, (receive, _) in zip(programs, moved, strict=True)),
        send_seconds=sum(p.part * send for p, (_, send) in zip(programs, moved, strict=True)),
        share=0.0,
        receives=tuple(_edge(v, _one(s.source_of(v)), p) for p, s in slices for v in s.graph.inputs),
        sends=tuple(_sent(v, s, p) for p, s in slices for v in s.graph.outputs),
    )


def _sent(value: Value, stage: Stage, program: _Program) -> Edge:
    returned = {v.name for v in program.plan.graph.outputs}
    return replace(_edge(value, stage.targets_of(value), program), is_output=value.name in returned)


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


def _edge(value: Value, stages: tuple[int, ...], program: _Program) -> Edge:
    nbytes = int(program.predicted.nbytes(value))
    return Edge(f"{program.label}{value.name}", str(value.type), nbytes, stages)


def _one(stage: int | None) -> tuple[int, ...]:
    return () if stage is None else (stage,)
