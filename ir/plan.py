"""The plan: one stage per slice of the program, cut out of a connected graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

from ir.analysis.memory import stored_bytes
from ir.analysis.programs import program_of
from ir.analysis.verify import connected, staged, stateful
from ir.cost import FREE, Cost
from ir.graph import Call, Graph, Transfer, Value
from ir.machine.cluster import Cluster, Device
from ir.text.call_sizes import better_lines, format_mix, how_to_choose
from ir.text.table import html_table, text_table
from ir.text.units import format_bytes, format_count, format_seconds


@dataclass(frozen=True)
class Stage:
    """A slice of the program for one device: receive, compute, send.

    `graph` is the slice as a program of its own: its inputs are the model's inputs that it reads and the
    values that it receives; its outputs are the values that it sends and those of the model's outputs that it makes.
    """

    index: int
    device: Device
    graph: Graph
    recvs: tuple[Transfer, ...]
    sends: tuple[Transfer, ...]

    @cached_property
    def cost(self) -> Cost:
        """The work of its nodes."""
        return sum((node.cost for node in self.graph.nodes), FREE)

    @property
    def stored(self) -> tuple[Value, ...]:
        """Values on the device between runs: weights, constants and state."""
        return (*self.graph.params, *self.graph.constants, *self.graph.states)

    def source_of(self, value: Value) -> int | None:
        """The stage that sends an input of this one; None for an input of the model."""
        return next((t.src for t in self.recvs if t.value.name == value.name), None)

    def targets_of(self, value: Value) -> tuple[int, ...]:
        """The stages that receive an output of this one."""
        return tuple(t.stage for t in self.sends if t.value.name == value.name)


@dataclass(frozen=True, repr=False)
class StagePlan:
    """All stages of a program, and the machine that they are planned for.

    With several programs the graph of a stage is the union of its slices of all: what it holds and costs.  What it runs
    is in the plans of the single programs.
    """

    graph: Graph
    cluster: Cluster
    stages: tuple[Stage, ...]

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of the programs."""
        return tuple(program.name for program in self.graph.programs) or (MAIN,)

    def program(self, index: int) -> StagePlan:
        """The plan of one program alone, with the same stages on the same devices; some may have no nodes in it."""
        return self._alone[index]

    @cached_property
    def _alone(self) -> tuple[StagePlan, ...]:
        if not self.graph.programs:
            return (self,)
        return tuple(plan_stages(program_of(self.graph, i), self.cluster) for i in range(len(self.graph.programs)))

    @cached_property
    def transfers(self) -> tuple[Transfer, ...]:
        return tuple(n for n in self.graph.nodes if isinstance(n, Transfer))

    def __repr__(self) -> str:
        """A table of the stages, their loads and what crosses their borders; the value of the cut; the sizes."""
        return "\n".join([text_table(_TITLES, self._rows()), *self._lines()])

    def _repr_html_(self) -> str:
        return html_table(_TITLES, self._rows()) + "".join(f"<p>{escape(line)}</p>" for line in self._lines())

    def _lines(self) -> list[str]:
        """The value of the objective with its bound, and the sizes for which the numbers hold."""
        return [*self._value(), *self._sizes()]

    def _value(self) -> list[str]:
        split = self.graph.split
        if not split.objective:
            return []
        value, least = format_seconds(split.value), format_seconds(split.lower_bound)
        return [f"{split.quantity} {value}, which no cut brings below {least}"]

    def _sizes(self) -> list[str]:
        """The sizes for which the numbers hold, and those for which another cut is better."""
        mix = [(call.sizes, call.share) for call in self.graph.mix]
        if not self.graph.hints:
            return []
        made_up = how_to_choose(self.graph.hints) if self.graph.made_up else ""
        better = better_lines([(other.sizes, other.gain) for other in self.graph.split.better])
        return [f"numbers for {format_mix(mix)}{made_up}", *better]

    def _rows(self) -> list[tuple[str, ...]]:
        loads = self.graph.split.loads  # none before split-stages
        busy = [format_seconds(loads[d]) if loads else "" for d in self.graph.placement]
        return [_row(stage, load) for stage, load in zip(self.stages, busy, strict=True)]


MAIN = "main"  # the name of a program that is alone

_TITLES = ("stage", "device", "busy", "operators", "parameters", "weights", "receives", "sends")


def _row(stage: Stage, busy: str) -> tuple[str, ...]:
    graph = stage.graph
    return (
        str(stage.index),
        stage.device.name,
        busy,
        str(len(graph.nodes)),
        format_count(sum(int(p.type.numel) for p in graph.params)),
        format_bytes(stored_bytes(stage.stored)),
        ", ".join(dict.fromkeys(v.name for v in graph.inputs)),
        ", ".join(dict.fromkeys(v.name for v in graph.outputs)),
    )


def plan_stages(graph: Graph, cluster: Cluster) -> StagePlan:
    """Cut a graph into its stages.  Raises VerifyError if `staged`, `stateful` or `connected` does not hold."""
    for invariant in (staged, stateful, connected):
        invariant(graph)
    plain = graph.map_values(original)
    stages = (_cut(plain, i, cluster.devices[d]) for i, d in enumerate(graph.placement))
    return StagePlan(graph, cluster, tuple(stages))


def _cut(graph: Graph, index: int, device: Device) -> Stage:
    """One stage of a graph in which copies of a value have its name."""
    transfers = [n for n in graph.nodes if isinstance(n, Transfer)]
    recvs = tuple(t for t in transfers if t.stage == index)
    sends = tuple(t for t in transfers if t.src == index)
    nodes = [n for n in graph.nodes if n.stage == index and isinstance(n, Call)]
    made = {v for n in nodes for v in n.results}
    used = {v for n in nodes for v in n.operands}
    outputs = dict.fromkeys(v for v in (*(t.value for t in sends), *graph.outputs) if v in made)
    updates = tuple((s, v) for s, v in graph.updates if v in made)
    changed = {s for s, _ in updates}
    body = replace(
        graph,
        inputs=(*(v for v in graph.inputs if v in used), *(t.results[0] for t in recvs)),
        params=tuple(p for p in graph.params if p in used),
        constants=tuple(c for c in graph.constants if c in used),
        states=tuple(s for s in graph.states if s in used or s in changed),
        nodes=tuple(replace(n, stage=0) for n in nodes),
        outputs=tuple(outputs),
        updates=updates,
        layouts=(),
        placement=(0,),
        programs=(),
    )
    return Stage(index, device, body, recvs, sends)


def original(value: Value) -> Value:
    """A copy of another stage's value under the name of the original, as its own stage calls it."""
    return replace(value, name=value.copy_of, copy_of="") if value.copy_of else value
