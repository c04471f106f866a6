"""Whether what we made of a model computes what the model computes: the checks that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sympy
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from ir.analysis.arguments import as_number
from ir.analysis.interpret import Result, interpret
from ir.capture import DynamicShapes, capture
from ir.capture.kept.store import Kept, find, keep
from ir.graph import Graph, Transfer, Value, sizes_of
from ir.machine.cluster import Cluster
from ir.objects.signature import bind, flatten, forward_parameters
from ir.plan import StagePlan
from ir.sources import Source, read_source
from passes.compilation.api import compile_model
from passes.pipeline import PassResult
from runtime import Pipeline
from tests.support.models.planning import machine, steps

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_OTHERS = ("check", "diffusers_", "serve_")  # the names of those that are no model files begin so
MODEL_FILES = sorted(file.stem for file in EXAMPLES.glob("*.py") if not file.name.startswith(_OTHERS))


def captured_example(name: str) -> tuple[Source, Graph]:
    """A model file of examples/ and its graph, which is kept for the other tests of this run."""
    source = read_source(str(EXAMPLES / f"{name}.py"))
    with patch.dict(os.environ, STAGECUT_CACHE=os.environ["STAGECUT_CACHE"] + "-examples"):  # no other test drops it
        if (kept := find(name, Kept)) is None:
            graph = capture(source.model, source.args, source.kwargs, dynamic_shapes=source.dynamic_shapes)
            keep(name, kept := Kept(graph, ()))
    return source, kept.graph


@dataclass(frozen=True)
class Call:
    """One call of a model: `Call.of(x, flag=True)`."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, *args: Any, **kwargs: Any) -> Call:
        return cls(args, kwargs)


def check_every_pass(graph: Graph, model: nn.Module, calls: Sequence[Call], cluster: Cluster, **options: Any) -> None:
    """After every pass the graph returns what the model does, for calls in a row."""
    weights = {fqn: tensor.clone() for fqn, tensor in model.state_dict().items()}
    expected, checked = list(run_model(model, calls)), None
    for step in [PassResult("capture", graph, 0.0), *steps(graph, cluster, **options)]:
        if checked == (checked := computed(step.graph)):
            continue  # the pass wrote down what it found, and changed no node
        for i, (want, found) in enumerate(zip(expected, run_graph(step.graph, calls, weights), strict=True)):
            assert_same(want, found, f"after {step.name}, call {i}")


def computed(graph: Graph) -> tuple[Any, ...]:
    """All that `interpret` reads of a graph, with values by their names."""
    nodes = [(n.value,) if isinstance(n, Transfer) else (n.op, n.args, dict(n.kwargs)) for n in graph.nodes]
    made = [n.results for n in graph.nodes]
    values = (graph.inputs, graph.params, graph.states, graph.outputs, graph.updates, graph.kept, graph.leaves)
    return tuple(tree_leaves(tree_map(lambda a: a.name if isinstance(a, Value) else a, (nodes, made, values))))


def check_artifact(
    model: nn.Module, calls: Sequence[Call], out: Path, dynamic: DynamicShapes, stages: int | Cluster, **options: Any
) -> StagePlan:
    """Compiled to a folder, loaded and run, the model returns what it does uncut, for calls in a row."""
    options |= dict(cluster=machine(stages) if isinstance(stages, int) else stages, dynamic_shapes=dynamic)
    plan = compile_model(model, calls[0].args, calls[0].kwargs, out=out, **options)
    with Pipeline.load(out, devices=["cpu"]) as pipe:
        for i, (want, call) in enumerate(zip(run_model(model, calls), calls, strict=True)):
            assert_same(want, pipe(*call.args, **call.kwargs), f"call {i}")
    return plan


def resized(source: Source, sizes: Mapping[str, int]) -> Call:
    """The example inputs cut, or repeated, to other sizes."""
    arguments = bind(forward_parameters(source.model), source.args, source.kwargs)
    assert isinstance(source.dynamic_shapes, Mapping)
    for name, dims in source.dynamic_shapes.items():
        for dim, size in dims.items():
            arguments[name] = arguments[name].index_select(dim, torch.arange(sizes[size]) % arguments[name].shape[dim])
    return Call(kwargs=arguments)


def run_model(model: nn.Module, calls: Sequence[Call]) -> Iterator[Any]:
    """What the model returns, call after call; it may change what its arguments hold."""
    with torch.no_grad():
        for args, kwargs in deepcopy([(call.args, call.kwargs) for call in calls]):
            yield model(*args, **kwargs)


def run_graph(graph: Graph, calls: Sequence[Call], weights: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """What the interpreted graph returns, in the model's containers; each call goes on from the last one's state."""
    state: Mapping[str, torch.Tensor] = {}
    for call in calls:
        inputs = graph.signature.bind(call.args, call.kwargs)
        result = interpret(graph, inputs, weights, state)
        state = result.state
        yield returned(graph, inputs, result)


def returned(graph: Graph, inputs: Sequence[torch.Tensor], result: Result) -> Any:
    sizes = sizes_of(zip(graph.inputs, inputs, strict=True))
    tree = graph.signature.returns
    leaves = tuple(as_number(leaf, sizes) if isinstance(leaf, sympy.Basic) else leaf for leaf in tree.leaves)
    return replace(tree, leaves=leaves).fill(result.outputs)


def assert_same(expected: Any, found: Any, where: str = "") -> None:
    """Equal containers with bit for bit equal tensors of one type in them."""
    wanted, containers = flatten(expected)
    got, found_containers = flatten(found)
    assert str(found_containers) == str(containers), where
    for i, (a, b) in enumerate(zip(wanted, got, strict=True)):
        assert type(b) is type(a) or isinstance(a, torch.Tensor), f"{where}: leaf {i} is {b!r} in place of {a!r}"
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(
                b, a, rtol=0, atol=0, equal_nan=True, msg=lambda m, i=i: f"{where}, leaf {i}: {m}"
            )
        else:
            assert a == b, f"{where}: leaf {i}"
