"""One model of the zoo cut in three and run: does it return what the uncut model does, and at what price?"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import nn

from codegen.artifact import write_artifact
from ir.capture import capture
from ir.dot import Detail
from ir.errors import CompileError
from ir.graph import Graph
from ir.plan import StagePlan, plan_stages
from ir.signature import flatten
from passes.summary import summarize
from runtime import Pipeline
from tests.checking import Call, run_model
from tests.planning import machine, planned
from tests.zoo.entry import Entry

STAGES = 3
SEARCH = {"time_limit": 5.0, "size_limit": 1.0}  # seconds: what is measured here is coverage, not the cut
SIZES = ((2, 16), (3, 21))  # batch and length
ONE = (1, 9)
FELT = 0.01  # least change of an output, relative to its size, that other inputs must make


@dataclass(frozen=True)
class Result:
    """A row of the table; of one that fails only the reason."""

    name: str
    nodes: int = 0
    stages: int = 0
    cut_bytes: int = 0  # over all cuts, for the example's sizes
    export_seconds: float = 0.0
    difference: float = 0.0  # the largest of any element, from the uncut model
    sizes: str = ""  # what a user must know of the sizes it takes
    failure: str = ""

    @property
    def good(self) -> bool:
        return not self.failure and self.difference == 0


def measure(name: str, entry: Entry) -> Result:
    """Never raises: what goes wrong with a model is its result."""
    try:
        with TemporaryDirectory() as folder:
            return _measure(name, entry, Path(folder))
    except CompileError as e:
        return Result(name, failure=f"{type(e).__name__}: {e}")
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        return Result(name, failure=f"{type(e).__name__}: {e}\n  at {Path(last.filename).name}:{last.lineno}")


def _measure(name: str, entry: Entry, folder: Path) -> Result:
    model = entry.model()
    calls = [Call(kwargs=entry.inputs(batch, seq)) for batch, seq in (*SIZES, SIZES[0])]
    expected = [_leaves(found) for found in run_model(model, calls)]
    _check_felt(expected[0], expected[-1])
    start = perf_counter()
    graph = capture(model, (), calls[0].kwargs, dynamic_shapes=entry.dynamic)
    seconds = perf_counter() - start
    plan = plan_stages(planned(graph, machine(STAGES), **SEARCH), machine(STAGES))
    if all(low == 1 for low, _ in plan.graph.ranges.values()):
        calls.append(Call(kwargs=entry.inputs(*ONE)))
        expected += [_leaves(found) for found in run_model(model, calls[-1:])]
    found = _run_stages(plan, model, calls, folder)
    return Result(
        name=name,
        nodes=len(graph.nodes),
        stages=len(plan.stages),
        cut_bytes=summarize(plan, name).cut_bytes,
        export_seconds=seconds,
        difference=max(map(_difference, expected, found)),
        sizes="; ".join(filter(None, (entry.fixed, _limits(graph)))),
    )


def _run_stages(plan: StagePlan, model: nn.Module, calls: Sequence[Call], folder: Path) -> list[list[torch.Tensor]]:
    weights: Mapping[str, torch.Tensor] = model.state_dict()
    name = type(model).__name__
    for _ in write_artifact(plan, folder, name, weights, Detail.stages, asdict(summarize(plan, name))):
        pass
    with Pipeline.load(folder, devices=["cpu"]) as pipe:
        return [_leaves(pipe(**call.kwargs)) for call in calls]


def _leaves(returned: Any) -> list[torch.Tensor]:
    return [leaf for leaf in flatten(returned)[0] if isinstance(leaf, torch.Tensor)]


def _check_felt(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Outputs that hardly depend on the inputs would make any two programs look equal."""
    if not all(x.isfinite().all() for x in some if x.is_floating_point()):
        raise ValueError("the model returns infinities; choose other weights")
    if not any(float((x - y).abs().max()) > FELT * float(x.abs().max()) for x, y in zip(some, others, strict=True)):
        raise ValueError("the outputs do not depend on the inputs; choose other weights")


def _difference(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """The largest of any element; infinite where outputs are missing or of another type."""
    pairs = list(zip(expected, found, strict=False))
    if len(expected) != len(found) or any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return float("inf")
    return max(0.0 if torch.equal(a, b) else float((a.double() - b.double()).abs().max()) for a, b in pairs)


def _limits(graph: Graph) -> str:
    """Ranges and conditions narrower than any size."""
    ranges = (
        f"{symbol} ≥ {low}" if high is None else f"{low} ≤ {symbol} ≤ {high}"
        for symbol, (low, high) in graph.ranges.items()
        if low > 1 or high is not None
    )
    return "; ".join([*ranges, *map(str, graph.guards)])
