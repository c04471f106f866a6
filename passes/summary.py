"""What a plan predicts, as plain data: for the table, for --json and for the manifest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ir.graph import Value
from ir.memory import peak_bytes, stored_bytes
from ir.plan import Stage, StagePlan
from passes.timing import Clock


@dataclass(frozen=True)
class Edge:
    """What crosses a border of a stage, at the example's sizes."""

    name: str
    type: str
    bytes: int
    stages: tuple[int, ...]  # at the other end
    is_output: bool = False  # of the model


@dataclass(frozen=True)
class StageSummary:
    """One row of the table.  Seconds are of one batch of the example's sizes."""

    stage: int
    device: str
    parameters: int
    weight_bytes: int
    activation_bytes: int  # at their peak
    memory_bytes: int  # what the device has
    compute_seconds: float
    transfer_seconds: float
    share: float  # of the computation of all stages
    receives: tuple[Edge, ...]
    sends: tuple[Edge, ...]


@dataclass(frozen=True)
class Summary:
    """A plan in numbers."""

    model: str
    stages: tuple[StageSummary, ...]
    bottleneck_seconds: float  # the load of the busiest device
    lower_bound_seconds: float  # no cut has a smaller bottleneck
    gap: float  # how far this cut may be from the best, relative
    binds: str  # what keeps it from being better: "compute", "memory" or "link"
    good_for: dict[str, tuple[int, int]]  # sizes over which the cut is within 5 % of the best
    balance: float  # busiest device over mean
    cut_bytes: int  # over all cuts, for one batch


def summarize(plan: StagePlan, model: str) -> Summary:
    graph, clock = plan.graph, Clock(plan.graph)
    compute = [sum(clock.seconds(n, s.device) for n in s.graph.nodes) for s in plan.stages]
    loads = [load.seconds for load in graph.split.loads] or compute
    returned = {v.name for v in graph.outputs}
    devices = [graph.placement[s.index] for s in plan.stages]
    return Summary(
        model=model,
        stages=tuple(
            StageSummary(
                stage=stage.index,
                device=stage.device.name,
                parameters=sum(int(p.type.numel) for p in stage.graph.params),
                weight_bytes=stored_bytes(stage.stored),
                activation_bytes=peak_bytes(stage.graph),
                memory_bytes=stage.device.memory,
                compute_seconds=seconds,
                transfer_seconds=_transfer_seconds(plan, stage, devices, clock),
                share=seconds / max(sum(compute), 1e-30),
                receives=tuple(_edge(v, _one(stage.source_of(v)), clock) for v in stage.graph.inputs),
                sends=tuple(
                    replace(_edge(v, stage.targets_of(v), clock), is_output=v.name in returned)
                    for v in stage.graph.outputs
                ),
            )
            for stage, seconds in zip(plan.stages, compute, strict=True)
        ),
        bottleneck_seconds=max(loads),
        lower_bound_seconds=graph.split.lower_bound,
        gap=graph.split.gap,
        binds=graph.split.binds,
        good_for={str(symbol): ends for symbol, ends in graph.split.good_for.items()},
        balance=max(loads) / max(sum(loads) / len(loads), 1e-30),
        cut_bytes=sum(int(clock.nbytes(t.value)) for t in plan.transfers),
    )


def _transfer_seconds(plan: StagePlan, stage: Stage, devices: list[int], clock: Clock) -> float:
    ends = [(t.src, stage.index, t) for t in stage.recvs] + [(stage.index, t.stage, t) for t in stage.sends]
    links = ((plan.cluster.links.get((devices[a], devices[b])), t) for a, b, t in ends)
    return sum(link.seconds(clock.nbytes(t.value)) for link, t in links if link is not None)


def _edge(value: Value, stages: tuple[int, ...], clock: Clock) -> Edge:
    return Edge(value.name, str(value.type), int(clock.nbytes(value)), stages)


def _one(stage: int | None) -> tuple[int, ...]:
    return () if stage is None else (stage,)
