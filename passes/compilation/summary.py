"""The summary of a plan: predicted seconds, bytes and parameters of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import NamedTuple

import sympy

from ir.analysis.memory import peak_bytes, stored_bytes
from ir.graph import Node, State, Value
from ir.machine.kinds import has_graphs
from ir.numbers.summary import BetterFor, CallSummary, Edge, StageSummary, Summary, TextsAtOnce
from ir.plan import Stage, StagePlan
from passes.cost_models.predictions import MeanPredictions, Predictions, parts_of_calls


def summarize(plan: StagePlan, model: str, notes: tuple[str, ...] = ()) -> Summary:
    """The summary of a plan.  Unlike the search for the cut, it counts the copies of cheap nodes.

    Seconds and bytes are those of a call on average, over its workload and its programs.
    """
    graph, programs = plan.graph, _programs(plan)
    stages = tuple(_stage(stage, programs) for stage in plan.stages)
    total = sum(s.compute_seconds for s in stages)
    loads = _loads(plan, [s.receive_seconds + s.compute_seconds + s.send_seconds for s in stages])
    bottleneck = max(loads)
    return Summary(
        model=model,
        calls=tuple(_calls(plan, bottleneck)),
        made_up=graph.made_up,
        stages=tuple(replace(s, share=s.compute_seconds / total if total else 0.0) for s in stages),
        bottleneck_seconds=bottleneck,
        objective=graph.split.objective,
        quantity=graph.split.quantity,
        value_seconds=graph.split.value,
        lower_bound_seconds=graph.split.lower_bound,
        gap=graph.split.gap,
        binds=graph.split.binds,
        above=graph.split.above,
        proven=graph.split.proven,
        place=graph.split.place,
        best_cut_bytes=int(graph.split.best_bytes),
        good_for={str(symbol): ends for symbol, ends in graph.split.good_for.items()},
        close=graph.split.close,
        better=tuple(BetterFor(_by_name(other.sizes), other.gain) for other in graph.split.better),
        balance=bottleneck * len(loads) / sum(loads) if bottleneck else 1.0,
        cut_bytes=int(sum(p.part * p.predicted.nbytes(t.value) for p in programs for t in p.plan.transfers)),
        notes=notes,
        decoding=tuple(_decoding(plan)),
    )


def _decoding(plan: StagePlan) -> Iterator[TextsAtOnce]:
    """The decoding of 1, 2, 4, … texts, up to those that have room.

    Texts are in groups, each of which has a batch under way: as many as there are devices, where the host orders steps
    ahead, else as there are stages and one more.
    """
    decoding = plan.graph.decoding
    if not decoding.page:
        return
    each = -(-decoding.max_length // decoding.page)
    most = max((decoding.pages - 1) // each, 1)
    devices = {stage.device.name for stage in plan.stages}
    at_once = len(devices) if all(map(has_graphs, devices)) else len(plan.stages) + (len(plan.stages) > 1)
    number = next((i for i, name in enumerate(plan.programs) if name in ("decode", "next")), 0)
    step = plan.program(number)
    for texts in dict.fromkeys((*(1 << i for i in range(most.bit_length())), most)):
        groups = min(texts, at_once)
        used = {"batch": -(-texts // groups), "seq": 1}
        pages = dict.fromkeys(("pages", "window_pages"), max(each // 2, 1))
        sizes = {s: {**pages, **used}.get(str(s), hint) for s, hint in step.graph.hints.items()}
        programs = [_Program(step, Predictions(step.graph, sizes=sizes), 1.0, "")]
        loads = [sum(_seconds(stage, programs)) for stage in step.stages]
        seconds = max(sum(loads), groups * max(_loads(plan, loads)))
        yield TextsAtOnce(texts, texts / seconds if seconds else 0.0, seconds)


class _Program(NamedTuple):
    """A program of a plan, and its part of the calls."""

    plan: StagePlan
    predicted: MeanPredictions | Predictions
    part: float
    label: str  # before the names of its values, where there are several programs


def _programs(plan: StagePlan, call: int | None = None) -> list[_Program]:
    """The programs, with predictions for one call of the workload, by its number, or for a call on average."""
    alone = [plan.program(i) for i in range(len(plan.programs))]
    labels = [f"{name}: " for name in plan.programs] if len(alone) > 1 else [""]
    predictions = (
        MeanPredictions(p.graph) if call is None else Predictions(p.graph, sizes=p.graph.mix[call].sizes) for p in alone
    )
    return list(map(_Program, alone, predictions, parts_of_calls(plan.graph), labels))


def _calls(plan: StagePlan, mean: float) -> Iterator[CallSummary]:
    """The calls that the plan is for; `mean` is the bottleneck of a call on average."""
    several = len(plan.graph.mix) > 1
    for number, call in enumerate(plan.graph.mix):
        programs = _programs(plan, number) if several else ()
        loads = _loads(plan, [sum(_seconds(stage, programs)) for stage in plan.stages])
        yield CallSummary(_by_name(call.sizes), call.share, max(loads) if several else mean)


def _by_name(sizes: Mapping[sympy.Symbol, int]) -> dict[str, int]:
    return {str(symbol): size for symbol, size in sizes.items()}


def _loads(plan: StagePlan, seconds: Sequence[float]) -> list[float]:
    """The seconds for which a call keeps each device busy, from those of the stages."""
    loads: dict[int, float] = {}
    for device, of_stage in zip(plan.graph.placement, seconds, strict=True):
        loads[device] = loads.get(device, 0.0) + of_stage
    return list(loads.values())


def _seconds(stage: Stage, programs: Sequence[_Program]) -> tuple[float, float, float]:
    """The seconds of a stage: to receive, to compute and to send."""
    compute = receive = send = 0.0
    for p in programs:
        own = p.plan.stages[stage.index]
        received, sent = _transfer_seconds(p.plan, own, p.predicted)
        compute += p.part * p.predicted.seconds(own.graph.nodes, stage.device)
        receive += p.part * received
        send += p.part * sent
    return receive, compute, send


def _stage(stage: Stage, programs: Sequence[_Program]) -> StageSummary:
    slices = [(p, p.plan.stages[stage.index]) for p in programs]
    receive, compute, send = _seconds(stage, programs)
    return StageSummary(
        stage=stage.index,
        device=stage.device.name,
        parameters=sum(int(p.type.numel) for p in stage.graph.params),
        weight_bytes=stored_bytes(stage.stored),
        activation_bytes=max(peak_bytes(s.graph) for _, s in slices),
        memory_bytes=int(stage.device.memory) if isfinite(stage.device.memory) else None,
        compute_seconds=compute,
        receive_seconds=receive,
        send_seconds=send,
        share=0.0,
        receives=tuple(_edge(v, _one(s.source_of(v)), p) for p, s in slices for v in s.graph.inputs),
        sends=tuple(_sent(v, s, p) for p, s in slices for v in s.graph.outputs),
        cache_bytes=stored_bytes(v for v in stage.stored if isinstance(v, State) and v.zeros),
    )


def _sent(value: Value, stage: Stage, program: _Program) -> Edge:
    returned = {v.name for v in program.plan.graph.outputs}
    return replace(_edge(value, stage.targets_of(value), program), is_output=value.name in returned)


def _transfer_seconds(plan: StagePlan, stage: Stage, predicted: MeanPredictions | Predictions) -> tuple[float, float]:
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
    predicted = MeanPredictions(plan.graph)
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
