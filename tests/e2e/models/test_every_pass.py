"""`interpret(step.graph) == model(x)`, exactly, after every pass; types are those of what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.graph import Graph, Value, sizes_of
from ir.sizes import TensorType, at
from ir.sources.meta import with_values
from passes.propagate_shapes import PropagateShapes
from tests.support.checking import MODEL_FILES, Call, captured_example, check_artifact, check_every_pass, resized
from tests.support.models.graphs import captured
from tests.support.models.model_cases import CASES
from tests.support.models.planning import machine, slow_machine
from tests.support.models.random_models import Recipe, recipes


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_FILES)
def test_an_example_at_three_sizes(name: str) -> None:
    source, graph = captured_example(name)
    sizes = {size for dims in dict(source.dynamic_shapes or {}).values() for size in dims.values()}
    others = [dict.fromkeys(sizes, 1), {size: 3 if size == "batch" else 5 for size in sizes}]
    calls = [Call(source.args, source.kwargs), *(resized(source, size) for size in others)]
    with with_values(source.model, source.weights):
        check_every_pass(graph, source.model, calls, machine(3), time_limit=2.0, size_limit=2.0)  # any cut will do


@pytest.mark.parametrize("name", CASES)
def test_a_model_written_for_the_purpose(name: str) -> None:
    case = CASES[name]
    check_every_pass(captured(name), case.build(), case.calls(), slow_machine(case.stages))


def all_values(name: str, graph: Graph) -> Iterator[tuple[dict[Value, torch.Tensor], dict[Value, TensorType]]]:
    """For each call of a case the tensor of every value, and the types of those made, with numbers for sizes."""
    made = [v for node in graph.nodes for v in node.results]
    case = CASES[name]
    weights = case.build().state_dict()
    stored = {p: weights[p.fqns[0]] for p in graph.params} | {c: c.data for c in graph.constants}
    for call in case.calls():
        inputs = graph.signature.bind(call.args, call.kwargs)
        sizes = sizes_of(zip(graph.inputs, inputs, strict=True))
        found = interpret(replace(graph, outputs=tuple(made)), inputs, weights).outputs
        types = {v: TensorType(tuple(at(d, sizes) for d in v.type.shape), v.type.dtype) for v in made}
        yield stored | dict(zip((*graph.inputs, *made), (*inputs, *found), strict=True)), types


@pytest.mark.parametrize("name", CASES)
def test_types_and_views_are_those_of_a_run(name: str) -> None:
    """What copies as captured may be a view at other sizes (a reshape of one row), and not the other way round."""
    graph = PropagateShapes().run(captured(name), machine(1))
    for i, (tensors, types) in enumerate(all_values(name, graph)):
        for made, type_ in types.items():
            tensor = tensors[made]
            assert (tuple(tensor.shape), tensor.dtype) == (type_.shape, type_.dtype), made.name
        memory = {v: tensor.untyped_storage().data_ptr() for v, tensor in tensors.items()}
        for node in graph.nodes:
            behind = {memory[v] for v in node.operands if v in memory}
            for made in node.results:
                assert (memory[made] in behind) == node.view or (i > 0 and not node.view), made.name


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(recipe=recipes)
def test_a_random_model(recipe: Recipe, tmp_path: Path) -> None:
    model, calls = recipe.build(), [recipe.call(2, 4), recipe.call(3, 7), recipe.call(1, 1)]
    graph = capture(model, calls[0].args, dynamic_shapes=recipe.dynamic)
    check_every_pass(graph, model, calls, slow_machine(recipe.stages))
    check_artifact(model, calls, tmp_path / "out", recipe.dynamic, slow_machine(recipe.stages))
