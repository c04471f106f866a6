"""`interpret(step.graph) == model(x)`, exactly, after every pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from ir.signature import bind, forward_parameters
from ir.sources import Source, read_source
from tests.checking import Call, check_artifact, check_every_pass
from tests.models import CASES
from tests.planning import slow_machine
from tests.random_models import Recipe, recipes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS = sorted(file.stem for file in EXAMPLES.glob("*.py") if file.name != "check.py")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_an_example_at_three_sizes(name: str) -> None:
    source = read_source(str(EXAMPLES / f"{name}.py"))
    sizes = {size for dims in source.dynamic_shapes.values() for size in dims.values()}
    others = [dict.fromkeys(sizes, 1), {size: 3 if size == "batch" else 17 for size in sizes}]
    calls = [Call(source.args, source.kwargs), *(resized(source, size) for size in others)]
    check_every_pass(source.model, calls, source.dynamic_shapes, stages=3)


def resized(source: Source, sizes: Mapping[str, int]) -> Call:
    """The example inputs cut, or repeated, to other sizes."""
    arguments = bind(forward_parameters(source.model), source.args, source.kwargs)
    for name, dims in source.dynamic_shapes.items():
        for dim, size in dims.items():
            arguments[name] = arguments[name].index_select(dim, torch.arange(sizes[size]) % arguments[name].shape[dim])
    return Call(kwargs=arguments)


@pytest.mark.parametrize("name", CASES)
def test_a_model_written_for_the_purpose(name: str) -> None:
    case = CASES[name]
    check_every_pass(case.build(), case.calls(), case.dynamic, slow_machine(case.stages))


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=recipes)
def test_a_random_model(recipe: Recipe, tmp_path: Path) -> None:
    model, calls = recipe.build(), [recipe.call(2, 4), recipe.call(3, 7), recipe.call(1, 1)]
    check_every_pass(model, calls, recipe.dynamic, slow_machine(recipe.stages))
    check_artifact(model, calls, tmp_path / "out", recipe.dynamic, slow_machine(recipe.stages))
