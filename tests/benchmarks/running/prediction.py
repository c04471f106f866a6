"""How near the predicted time of a stage is to the measured one: what the benchmarks on CPU and GPU share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers as t
from torch import nn

from ir.graph import Call, Node
from ir.machine.cluster import Cluster
from ir.plan import StagePlan
from ir.text.printer import op_name
from passes.compilation.api import compile_model
from passes.cost_models.predictions import Predictions
from passes.cost_models.roofline import Roofline
from runtime import Pipeline
from runtime.trace import traces
from runtime.trace.traces import Run

Kwargs = dict[str, torch.Tensor]

WARM, BATCHES = 3, 12


@dataclass(frozen=True)
class Entry:
    """A model, made on the current default device in the default dtype, and a batch for it."""

    make: Callable[[], nn.Module]
    batch: Callable[[], Kwargs]
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Row:
    """Seconds of a device for one batch of the stages that it runs, mostly one."""

    model: str
    stages: str
    roofline: float
    profiled: float
    measured: float

    def cells(self) -> tuple[str, ...]:
        def beside(seconds: float) -> str:
            return f"{1e3 * seconds:.2f} ms ({seconds / self.measured - 1:+.1%})"

        measured = f"{1e3 * self.measured:.2f} ms"
        return self.model, self.stages, measured, beside(self.roofline), beside(self.profiled)

    @property
    def errors(self) -> tuple[float, float]:
        """Of the roofline and of the profile, relative to what was measured."""
        return abs(self.roofline / self.measured - 1), abs(self.profiled / self.measured - 1)


COLUMNS = ("model", "stages", "measured", "roofline", "profiled")


def text(batch: int, seq: int, decoder: int = 0) -> Kwargs:
    ids = {"input_ids": torch.randint(1000, (batch, seq))}
    return ids | ({"decoder_input_ids": torch.randint(1000, (batch, decoder))} if decoder else {})


def gpt2() -> nn.Module:
    return t.GPT2LMHeadModel(t.GPT2Config(use_cache=False))


def resnet50() -> nn.Module:
    return t.ResNetForImageClassification(t.ResNetConfig())


def t5(**sizes: Any) -> nn.Module:
    return t.T5ForConditionalGeneration(t.T5Config(use_cache=False, **sizes))


def llama(**sizes: Any) -> nn.Module:
    return t.LlamaForCausalLM(t.LlamaConfig(use_cache=False, **sizes))


def made(entry: Entry, device: torch.device) -> nn.Module:
    """The model on the host, with weights that were drawn where that is fast."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(entry.dtype)
    try:
        with device:
            return entry.make().eval().requires_grad_(False).to("cpu")
    finally:
        torch.set_default_dtype(before)


def predict_and_run(
    name: str, entry: Entry, cluster: Cluster, out: Path, in_flight: int
) -> tuple[list[Row], StagePlan]:
    """Cut a model for a measured cluster, with both predictions of each stage, and run it."""
    batch = {k: v.to(entry.dtype) if v.is_floating_point() else v for k, v in entry.batch().items()}
    model = made(entry, torch.device(cluster.devices[0].name))
    plan = compile_model(model, kwargs=batch, out=out, cluster=cluster, cost="profiled")
    del model
    measured = run(out, batch, in_flight)
    clocks = Predictions(plan.graph, Roofline()), Predictions(plan.graph)
    rows = list[Row]()
    for device in dict.fromkeys(stage.device for stage in plan.stages):
        mine = [stage for stage in plan.stages if stage.device == device]
        nodes = [node for stage in mine for node in stage.graph.nodes]
        roofline, profiled = (predicted.seconds(nodes, device) for predicted in clocks)
        stages = [stage.index for stage in mine]
        rows.append(Row(name, " and ".join(map(str, stages)), roofline, profiled, busy(measured, stages)))
    return rows, plan


def busy(runs: Sequence[Run], stages: Sequence[int]) -> float:
    """Seconds of a device for one batch: the median run of its stage, or of several the time when any of them ran."""
    mine = sorted((run.started, run.ended) for run in runs if run.stage in stages)
    if len(stages) == 1:
        return median(ended - started for started, ended in mine)
    total, until = 0.0, 0.0
    for started, ended in mine:
        total += max(0.0, ended - max(started, until))
        until = max(until, ended)
    return total / BATCHES


def run(out: Path, batch: Kwargs, in_flight: int) -> list[Run]:
    """What a trace records of a stream of batches, with all kernels compiled.

    The batches are on the first device, and so their results stay on one: copies to the host would count as well.
    """
    with thread_seconds(), Pipeline.load(out) as pipe:
        pipe.prepare()
        batch = {name: tensor.to(pipe.devices[0]) for name, tensor in batch.items()}
        for _ in pipe.map([batch] * WARM):
            pass
        with pipe.trace() as trace:
            for _ in pipe.map([batch] * BATCHES, in_flight=in_flight):
                pass
        return [run for stage in trace.stages for run in stage.runs()]


@contextmanager
def thread_seconds() -> Iterator[None]:
    """Meanwhile traces of the CPU count what the thread of a stage computes, whatever else a shared machine does."""
    before = traces.clock_of

    def clock_of(device: torch.device) -> Callable[[], Callable[[], float]]:
        if device.type != "cpu":
            return before(device)

        def now() -> Callable[[], float]:
            seconds = time.thread_time()
            return lambda: seconds

        return now

    traces.clock_of = clock_of
    try:
        yield
    finally:
        traces.clock_of = before


def operators(plan: StagePlan, most: int = 25) -> Iterator[str]:
    """Where the two predictions differ: seconds by operator and type of the result, the largest first."""
    clocks = Predictions(plan.graph, Roofline()), Predictions(plan.graph)
    totals: dict[str, list[float]] = {}
    for stage in plan.stages:
        for node in stage.graph.nodes:
            row = totals.setdefault(_kind(node), [0, 0.0, 0.0, 0.0])
            roofline, profiled = (predicted.time(node, stage.device) for predicted in clocks)
            row[:] = [row[0] + 1, row[1] + roofline.device, row[2] + profiled.device, row[3] + profiled.host]
    yield f"{'operator':72} {'count':>5} {'roofline':>10} {'profiled':>10} {'host':>10}  ms"
    for kind, (count, *seconds) in sorted(totals.items(), key=lambda item: -item[1][2])[:most]:
        yield f"{kind[:72]:72} {count:5.0f} " + " ".join(f"{1e3 * s:10.3f}" for s in seconds)


def _kind(node: Node) -> str:
    if not isinstance(node, Call):
        return "transfer"
    return f"{op_name(node)} {node.operands[0].type if node.operands else ''} -> {node.results[0].type}"


def first(cluster: Cluster, count: int) -> Cluster:
    """The first devices of a cluster."""
    links = {pair: link for pair, link in cluster.links.items() if max(pair) < count}
    return replace(cluster, devices=cluster.devices[:count], links=links)
