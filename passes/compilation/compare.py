"""compare_machines: plans of one model for several machines, from one export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codegen.picture.machines import draw_machines
from ir.errors import CompileError, OutputError, PlanError
from ir.graph import Graph, Value
from ir.machine.cluster import Cluster
from ir.numbers.comparison import Comparison, Counted, DeviceLoad, Planned, Refused
from ir.numbers.summary import Summary
from ir.plan import StagePlan, plan_stages
from ir.sizes import TensorType
from passes.check_sizes import CheckSizes
from passes.cli.terminal import Terminal
from passes.compilation.compiler import Compiler
from passes.compilation.given import read_given
from passes.compilation.job import check_decoder_options, passes_of
from passes.compilation.sizes.pools import Room, with_room
from passes.compilation.summary import summarize
from passes.compilation.target import target
from passes.cost_models.predictions import MeanPredictions
from passes.options.options import Candidates, Options, Weights, compared_options, with_options
from passes.pipeline import PassPipeline


@partial(with_options, taken=compared_options())
def compare_machines(
    source_or_model: str | Path | nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    clusters: Sequence[Cluster | str | Path] = (),
    stages: Sequence[int] = (),
    out: str | Path | None = None,
    variants: Mapping[str, Any] | None = None,
    **options: Any,
) -> Comparison:
    """Plan a model for several machines, and set the plans side by side.

        compare_machines("checkpoint-folder", clusters=["h100x4", "l4x8"], stages=[2, 4, 8])

    `source_or_model`, `args`, `kwargs`, `variants` and the options are those of `compile_model`; the weights are not
    read.  `clusters` are files, names or Clusters; `stages` are numbers of equal devices of this host, which come after
    them.  `out` is a file for the picture, as SVG; else nothing is written.

    Returns the plans in numbers, in this order, and as its `repr` the table that the command prints.  A machine for
    which there is no plan has the reason in its place.  Raises CompileError with one clear message where the model or
    a machine cannot be read.
    """
    candidates = Candidates(clusters, stages, out)  # type: ignore[arg-type]
    return compared(Options.of(options, compared_options()), candidates, source_or_model, args, kwargs, variants)


def compared(
    options: Options,
    candidates: Candidates,
    source_or_model: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    variants: Mapping[str, Any] | None = None,
) -> Comparison:
    """The plans for all candidates."""
    terminal = Terminal.of(options)
    check_decoder_options(options)
    machines = dict(_machines(options, candidates))
    if candidates.out is not None and candidates.out.suffix != ".svg":
        raise CompileError(f"the picture is an SVG; name a file such as {candidates.out.with_suffix('.svg')}")
    passes = PassPipeline(tuple(p for p in passes_of(options, terminal).passes if not isinstance(p, CheckSizes)))
    nothing = Cluster((), {})
    room = Room(options.sequences, options.tokens)
    compiler = Compiler(passes, nothing, workload=options.workload, room=room, cache=options.cache, tell=terminal.tell)
    with terminal.during("model"):
        source = read_given(source_or_model, args, kwargs, replace(options, weights=Weights.none), variants)
    with terminal.during("export"):
        planning = _Planning(source.name, compiler.export(source), passes, room)
    rows = []
    for name, machine in machines.items():
        with terminal.during(name):
            rows.append(planning.row(name, machine))
    comparison = Comparison(source.name, planning.counted, tuple(rows))
    notes = dict.fromkeys((*source.all_notes, *(note for row in comparison.planned() for note in row.summary.notes)))
    comparison = replace(comparison, notes=tuple(notes))
    if candidates.out is not None:
        _write(candidates.out, draw_machines(comparison))
        terminal.note(f"wrote {candidates.out}")
    return comparison


def _machines(options: Options, candidates: Candidates) -> Iterator[tuple[str, Cluster]]:
    """The machines by name.  Raises CompileError where there is none, or one cannot be read."""
    if not candidates.clusters and not candidates.stages:
        raise CompileError("say which machines: --clusters h100x4,l4x8, --stages 2,4,8 or both")
    for place, cluster in enumerate(candidates.clusters):
        name = Path(cluster).stem if isinstance(cluster, (str, Path)) else f"cluster {place}"
        yield name, target(replace(options, cluster=cluster))
    for count in candidates.stages:
        machine = target(replace(options, stages=count))
        yield f"{count} × {machine.devices[0].name.partition(':')[0]}", machine


@dataclass(frozen=True)
class _Planning:
    """A captured model, and the passes that plan it for one machine after the other."""

    model: str
    graph: Graph
    passes: PassPipeline
    room: Room  # that a decoder's pools are to have on each machine

    def row(self, name: str, machine: Cluster) -> Planned | Refused:
        try:
            *_, last = self.passes.run(self._graph_on(machine), machine)
        except PlanError as e:
            return Refused(name, str(e))
        plan = plan_stages(last.graph, machine)
        summary = summarize(plan, self.model, plan.graph.notes)
        return Planned(name, summary, tuple(_loads(plan, summary)), self._count() / summary.bottleneck_seconds)

    def _graph_on(self, machine: Cluster) -> Graph:
        """The graph, in which the pools of a decoder are of the size that is asked for, or that the machine has."""
        decoding = self.graph.decoding
        return with_room(self.graph, decoding, self.room, machine) if decoding.page else self.graph

    @property
    def counted(self) -> Counted:
        """Tokens, where the model's first input holds the numbers of some for each sequence, or else samples."""
        first = self.graph.inputs[0].type
        return "tokens" if not first.dtype.is_floating_point and len(first.shape) > 1 else "samples"

    def _count(self) -> float:
        """The tokens or the samples of a call."""
        shape = self.graph.inputs[0].type.shape
        counted = Value("", TensorType(shape if self.counted == "tokens" else shape[:1], torch.uint8))
        return MeanPredictions(self.graph).nbytes(counted)


def _loads(plan: StagePlan, summary: Summary) -> Iterator[DeviceLoad]:
    """The load of each device of a plan, in the order of the cluster."""
    for number, device in enumerate(plan.cluster.devices):
        stages = [s for s, on in zip(summary.stages, plan.graph.placement, strict=True) if on == number]
        yield DeviceLoad(
            device=device.name,
            compute_seconds=sum(s.compute_seconds for s in stages),
            transfer_seconds=sum(s.receive_seconds + s.send_seconds for s in stages),
            held_bytes=sum(s.weight_bytes + s.activation_bytes for s in stages),
            memory_bytes=int(device.memory) if isfinite(device.memory) else None,
        )


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as e:
        raise OutputError(f"cannot write {file}: {e.strerror}") from e
