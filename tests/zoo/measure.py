"""One model of the zoo cut in three and run: does it return what the uncut model does, and at what price?"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch
import transformers
from torch import nn

from codegen.artifact.folder import new_folder
from codegen.picture.detail import Detail
from ir.errors import CompileError
from ir.graph import Graph
from ir.objects.signature import flatten
from ir.sources import Source
from passes.compilation.compiler import Compiler
from passes.defaults import default_passes
from passes.pipeline import PassPipeline
from runtime import Pipeline as Stages
from runtime.errors import InputError
from tests.support.checking import Call, run_model
from tests.support.models.planning import machine
from tests.zoo.entry import Entry

STAGES = 3
SEARCH = {"time_limit": 5.0, "size_limit": 1.0}  # seconds: what is measured here is coverage, not the cut
EXAMPLE = (2, 18)  # batch and length that are captured
OTHERS = ((3, 22), (3, 18), (2, 22))  # the first that the stages take: a model may fix one of the two, or both
ONES = ((1, 10), (1, 18))
FELT = 0.01  # least change of an output, relative to its size, that other inputs must make

Sizes: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Result:
    """A row of the table; of one that fails only the reason."""

    name: str
    nodes: int = 0
    stages: int = 0
    cut_bytes: int = 0  # over all cuts, for the example's sizes
    export_seconds: float = 0.0
    difference: float = 0.0  # the largest of any element, from the uncut model
    ran: str = ""  # batches and lengths
    notes: str = ""  # what is fixed or was kept whole, and why
    failure: str = ""
    known: str = ""  # why it fails or differs, where that lies in the model's own code
    versions: str = ""  # of torch and transformers, which it ran with

    @property
    def good(self) -> bool:
        return not self.failure and self.difference == 0


def measure(name: str, entry: Entry) -> Result:
    """Never raises: what goes wrong with a model is its result."""
    versions = f"torch {torch.__version__.partition('+')[0]}, transformers {transformers.__version__}"
    return replace(_tried(name, entry), known=entry.known, versions=versions)


def _tried(name: str, entry: Entry) -> Result:
    try:
        with TemporaryDirectory() as folder:
            return _measure(name, entry, Path(folder) / "out")
    except CompileError as e:
        return Result(name, failure=f"{type(e).__name__}: {e}")
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        return Result(name, failure=f"{type(e).__name__}: {e} (at {Path(last.filename).name}:{last.lineno})")


def _measure(name: str, entry: Entry, out: Path) -> Result:
    model = entry.model()
    example = Call(kwargs=entry.inputs(*EXAMPLE))
    _check_felt(*map(_leaves, run_model(model, [example, Call(kwargs=entry.inputs(*EXAMPLE))])))
    compiler = Compiler(PassPipeline(default_passes(**SEARCH)), machine(STAGES), detail=Detail.stages)
    source = _source(entry, model, example)
    with new_folder(out) as folder:
        compiled = compiler.write(source, tuple(compiler.steps(source)), folder)
    with Stages.load(out, devices=["cpu"]) as pipe:
        graph = compiled.plan.graph
        left_out = any("are left out" in note for note in graph.notes)
        ran = dict([(EXAMPLE, _differs(model, pipe, example, left_out)), *_others(entry, model, pipe, left_out)])
    return Result(
        name=name,
        nodes=len(compiled.steps[0].graph.nodes),
        stages=len(compiled.plan.stages),
        cut_bytes=compiled.summary.cut_bytes,
        export_seconds=compiled.steps[0].seconds,
        difference=max(ran.values()),
        ran=", ".join(f"{batch}×{seq}" for batch, seq in ran),
        notes="; ".join([*graph.notes, *_limits(graph)]),
    )


def _source(entry: Entry, model: nn.Module, example: Call) -> Source:
    name = type(model).__name__
    return Source(name, model, (), example.kwargs, entry.dynamic, model.state_dict(), soft=True)


def _others(entry: Entry, model: nn.Module, pipe: Stages, left_out: bool) -> Iterator[tuple[Sizes, float]]:
    """What the differences are at other sizes, and at a batch of one, as far as the stages take them."""
    for candidates in (OTHERS, ONES):
        for sizes in candidates:
            with suppress(InputError):
                yield sizes, _differs(model, pipe, Call(kwargs=entry.inputs(*sizes)), left_out)
                break


def _differs(model: nn.Module, pipe: Stages, call: Call, left_out: bool) -> float:
    """How far the stages are from the model: the largest difference of any element, for the same random numbers.

    `left_out`: whether a note says that some results are, which are passed over.
    """
    torch.manual_seed(0)
    found = pipe(**deepcopy(dict(call.kwargs)))
    torch.manual_seed(0)
    [expected] = run_model(model, [call])
    if left_out:
        expected = {name: value for name, value in expected.items() if found.get(name) is not None}
    return _difference(_leaves(expected), _leaves(found))


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


def _limits(graph: Graph) -> Iterator[str]:
    """Ranges and conditions narrower than any size."""
    yield from (
        f"{symbol} ≥ {low}" if high is None else f"{low} ≤ {symbol} ≤ {high}"
        for symbol, (low, high) in graph.ranges.items()
        if low > 1 or high is not None
    )
    yield from map(str, graph.guards)
