"""Higher-order operators: one node each, whose functions are read, run, costed, checked and printed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._higher_order_ops.while_loop import while_loop

from ir.capture import capture
from ir.cost import Cost
from ir.errors import CaptureError, VerifyError
from ir.graph import Call, Graph
from ir.operators.higher_order import Body, higher_order_of, is_higher_order, with_bodies
from ir.sizes import TensorType
from ir.text.printer import print_graph
from passes.annotate_cost import AnnotateCost
from passes.propagate_shapes import PropagateShapes
from tests.support.checking import Call as Inputs
from tests.support.checking import assert_same, run_graph, run_model
from tests.support.models.hard_models import RUNS_FUNCTIONS, WIDTH, Either, Layers
from tests.support.models.planning import machine
from tests.support.seeds import made_once

pytestmark = pytest.mark.slow

SIZES = {"x": {0: "batch", 1: "seq"}}


def hidden() -> torch.Tensor:
    return torch.randn(2, 4, WIDTH)


def runs_functions(graph: Graph) -> list[Call]:
    return [n for n in graph.nodes if isinstance(n, Call) and is_higher_order(n)]


def costed(graph: Graph) -> Graph:
    return AnnotateCost().run(PropagateShapes().run(graph, machine(2)), machine(2))


ELEMENTS = 2 * 4 * WIDTH  # of the result
FLOPS = {"while_loop": 3 * 2 * WIDTH * ELEMENTS, "scan": 2 * WIDTH * ELEMENTS, "map": 2 * WIDTH * ELEMENTS}
FLOPS |= {"flex_attention": 2 * (2 * 2 * 4 * 4) * 2 * (WIDTH // 2)}  # batch, heads, queries, keys; Q Kᵀ and times V


@pytest.mark.parametrize("name", RUNS_FUNCTIONS)
def test_at_the_models_own_level_it_is_one_node(name: str) -> None:
    model, calls = RUNS_FUNCTIONS[name]().eval(), [Inputs.of(hidden())]
    graph = costed(capture(model, calls[0].args))
    assert not graph.whole
    [call] = runs_functions(graph)
    assert higher_order_of(call).name == name
    assert call.cost.flops == FLOPS[name]
    [want], [found] = run_model(model, calls), run_graph(graph, calls, model.state_dict())
    assert_same(want, found)


@made_once
def branching() -> Graph:
    return capture(Layers(Either, 2).eval(), (hidden(),), dynamic_shapes=SIZES)


def test_the_dump_shows_the_functions() -> None:
    graph = branching()
    assert DUMP in print_graph(graph)
    first, second = runs_functions(graph)
    assert first.args[1:] == second.args[1:]  # equal functions are one


DUMP = """
      true_fn(layer_norm: float32[batch, seq, 8], left_bias: float32[8], left_weight: float32[8, 8], \
right_bias: float32[8], right_weight: float32[8, 8]):
        linear: float32[batch, seq, 8] = aten.linear(layer_norm, left_weight, left_bias)
        return linear
      false_fn(layer_norm: float32[batch, seq, 8], left_bias: float32[8], left_weight: float32[8, 8], \
right_bias: float32[8], right_weight: float32[8, 8]):
        linear: float32[batch, seq, 8] = aten.linear(layer_norm, right_weight, right_bias)
        relu: float32[batch, seq, 8] = aten.relu(linear)
        mul: float32[batch, seq, 8] = aten.mul.Tensor(relu, batch)
        return mul
"""


def test_the_dearer_branch_is_the_cost() -> None:
    graph = costed(branching())
    [cost, _] = [n.cost for n in runs_functions(graph)]
    batch, seq = sorted(graph.hints, key=str)
    rows, weights = 4 * WIDTH * batch * seq, 4 * WIDTH * (WIDTH + 1)
    assert cost == Cost(2 * WIDTH * WIDTH * batch * seq, 6 * rows + weights, launches=3, arithmetic=cost.arithmetic)


def test_a_type_in_a_function_is_checked() -> None:
    graph = branching()
    first, _ = runs_functions(graph)

    def widened(body: Body) -> Body:
        *before, last = body.nodes
        [result] = last.results
        wrong = replace(result, type=TensorType((*result.type.shape[:-1], WIDTH + 1), result.type.dtype))
        return replace(body, nodes=(*before, replace(last, results=(wrong,))), outputs=(wrong,))

    broken = graph.map(lambda n: with_bodies(first, widened) if n is first else n)
    with pytest.raises(VerifyError, match=r"linear was float32\[batch, seq, 9\], but .* make it float32\[2, 4, 8\]"):
        PropagateShapes().run(broken, machine(2))


class UntilSmall(nn.Module):
    """A loop that ends when values are small."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.while_loop(lambda x: x.norm() > 0.1, lambda x: (x * 0.5,), (x,))[0]


def test_a_loop_that_values_end_is_noted() -> None:
    graph = costed(capture(UntilSmall(), (hidden(),)))
    [note] = graph.notes
    assert note.startswith("values decide how often while_loop runs in the model (")


class Stopped(nn.Module):
    """One branch of a gradient ends inside a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin().detach() + x, lambda x: x.cos(), (x,))


def test_gradients_end_inside_a_function_where_the_model_says() -> None:
    [call] = runs_functions(capture(Stopped(), (hidden(),)))
    first, second = higher_order_of(call).bodies
    assert [str(n.op) for n in first.nodes] == ["aten.sin.default", "aten.detach.default", "aten.add.Tensor"]
    assert [str(n.op) for n in second.nodes] == ["aten.cos.default"]


class Windowed(nn.Module):
    """A loop that adds one column after the other, each as a slice that is broadcast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def column(i: int, y: torch.Tensor) -> tuple[int, torch.Tensor]:
            return i + 1, y + x[:, i : i + 1]

        return while_loop(lambda i, y: i < 3, column, (0, x))[1]


def test_a_slice_that_moves_with_a_counter_is_refused_in_words() -> None:
    message = r"a size inside of a function hangs on values, and torch takes it to be 4(.|\n)*select one element"
    with pytest.raises(CaptureError, match=message):
        capture(Windowed(), (torch.randn(3, 4),))


class Printing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.sin()
        return y * (1 + len(f"{y}"[:1]))


def test_a_tensor_in_a_text_ends_no_gradients() -> None:
    """To print one, torch turns gradients off and on again."""
    graph = capture(Printing(), (torch.ones(2, 3),))
    assert [str(node.op) for node in graph.nodes if isinstance(node, Call)] == ["aten.sin.default", "aten.mul.Tensor"]
