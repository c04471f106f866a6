"""The pass over graphs of compiled steps: when it runs, and what becomes of sorts, products and long rows."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch.fx import GraphModule

from runtime.generation.scheduling.padding import with_few_widths
from runtime.manifest.manifest import Generation
from runtime.stage import speed
from runtime.stage.compiling.step_graphs import fewer_kernels

pytestmark = pytest.mark.slow

ATEN = torch.ops.aten
REDUCTIONS = ATEN.amax.default, ATEN.argmax.default, ATEN.sum.dim_IntList


def test_decoders_are_compiled_with_it() -> None:
    layers = nn.Sequential(nn.Linear(8, 8))
    decoder: Any = SimpleNamespace(pools=("keys",), module=layers)
    options = speed._compile_options(decoder, torch.device("cuda"))["options"]
    assert options["post_grad_custom_pre_pass"] is fewer_kernels()
    torch.compile(layers, options=options)  # torch knows them


Graphs = list[torch.fx.Graph]


def compiled(call: Callable[..., Any]) -> tuple[Callable[..., Any], Graphs]:
    """A function under torch.compile, whose graphs run as the pass leaves them, and these."""
    graphs: Graphs = []

    def compile_graph(module: GraphModule, example: list[Tensor]) -> Any:
        fewer_kernels()(module.graph)
        module.graph.lint()
        module.recompile()
        graphs.append(module.graph)
        return module

    backend = aot_autograd(fw_compiler=compile_graph, decompositions=select_decomp_table())
    return torch.no_grad()(torch.compile(call, backend=backend, dynamic=True)), graphs


def calls(graphs: Graphs, *targets: Any) -> list[Any]:
    return [node for graph in graphs for node in graph.nodes if node.target in targets]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("largest", [True, False])
def test_the_first_of_an_order_is_a_maximum(count: int, largest: bool) -> None:
    def ordered(x: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
        values, places = x.topk(ranks.shape[0], largest=largest)
        return values + 1, places

    x, ranks = torch.randn(2, 50), torch.arange(count)
    faster, graphs = compiled(ordered)
    assert all(torch.equal(*pair) for pair in zip(faster(x, ranks), ordered(x, ranks), strict=True))
    assert bool(calls(graphs, ATEN.topk.default)) == (count > 1 or not largest)


def test_greedy_texts_are_not_sorted() -> None:
    generation = Generation(page=4, max_length=16, vocabulary=100)
    given = {"input_ids": torch.zeros(1, 1), "ranks": torch.arange(1)}
    assert len(with_few_widths(given, generation)["ranks"]) == 1


@pytest.mark.parametrize("rows", [1, 3])
def test_products_that_sum_up_one_number_are_plain(rows: int) -> None:
    def angles(frequencies: Tensor, positions: Tensor) -> Tensor:
        return frequencies[None, :, None].expand(len(positions), -1, 1) @ positions[:, None, :].float()

    frequencies, positions = torch.randn(8), torch.arange(5 * rows).view(rows, 5)
    faster, graphs = compiled(angles)
    assert torch.equal(faster(frequencies, positions), angles(frequencies, positions))
    assert not calls(graphs, ATEN.mm.default, ATEN.bmm.default)


class Reduced(nn.Module):
    """All that is reduced of some of the rows that it holds, whose width is known."""

    def __init__(self, held: Tensor, reduce: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.held, self.reduce = nn.Buffer(held), reduce

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.reduce(self.held[rows])


def usual(x: Tensor) -> tuple[Tensor, ...]:
    return x.amax(-1), x.amax(-1, True), x.argmax(-1), x.argmax(-1, True), x.logsumexp(-1), x.logsumexp(-1, True)


def unusual(x: Tensor) -> tuple[Tensor, ...]:
    """Sums of powers, each with something that the sum from parts does not have."""
    top, half = x.amax(-1, True), x.bfloat16()
    ones = x - x.max(), x - 9.0, 1 - x, torch.sub(x, top, alpha=2), half - top
    wider = [
        (half - half.amax(-1, True)).exp().sum(-1, dtype=torch.float32),
        (x - top).exp().sum(-1, dtype=torch.double),
    ]
    return *[one.exp().sum(-1) for one in ones], *wider


def compare(held: Tensor, rows: int, reduce: Callable[[Tensor], tuple[Tensor, ...]] = usual) -> list[int]:
    """Compare what is reduced; the widths of what was."""
    model, which = Reduced(held, reduce), torch.arange(rows)
    faster, graphs = compiled(model)
    for made, wanted in zip(faster(which), model(which), strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-6, atol=0)
    return [node.args[0].meta["val"].shape[-1] for node in calls(graphs, *REDUCTIONS)]


@pytest.mark.parametrize("width", [20_000, 20_480])
@pytest.mark.parametrize("rows", [1, 4])
def test_long_rows_are_reduced_by_parts(width: int, rows: int) -> None:
    held = torch.randn(4, width).mul_(9)
    held[rows - 1, 1000:4000] = -torch.inf  # a whole part
    held[0, [777, 5000, 5001]] = 100.0  # the first one counts
    assert {*compare(held, rows)} == {1024, 20}


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinite_numbers_of_long_rows(value: float) -> None:
    held = torch.full((2, 20_000), value)
    held[0, :9] = 0.0
    compare(held, 2)


def test_sums_of_long_rows_by_other_rules_stay_whole() -> None:
    assert compare(torch.randn(4, 20_000), 3, unusual).count(20_000) == 7


def test_short_rows_stay_whole() -> None:
    assert {*compare(torch.randn(2, 4000), 2)} == {4000}
