"""fuse-elementwise: which nodes are one kernel, what it costs, and that nothing is computed otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.graph import Call, Graph
from ir.machine.named import read_cluster
from passes.annotate_cost import AnnotateCost
from passes.cost_models.kernels import kernels_of
from passes.fusing.fuse_elementwise import FuseElementwise
from passes.options.options import CostSource
from passes.propagate_shapes import PropagateShapes
from tests.support.models.planning import machine

GPU = read_cluster("h200x2")


class Model(nn.Module):
    """A model of one function, with a layer for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function, self.layer = function, nn.Linear(256, 256)

    def forward(self, x: Tensor) -> Any:
        return self.function(self.layer, x)


def marked(model: nn.Module, *given: Any) -> Graph:
    """The graph of a model after the pass, which computes what the model does."""
    graph = FuseElementwise().run(capture(model.eval(), given), GPU)
    wanted = model(*given)
    made = interpret(graph, given, model.state_dict()).outputs
    assert all(map(torch.equal, made, wanted if isinstance(wanted, tuple) else [wanted]))
    return graph


def operators(function: Callable[..., Any], x: Tensor | None = None) -> list[str]:
    """The operators of each kernel."""
    graph = marked(Model(function), torch.randn(2, 3, 256) if x is None else x)
    return [" ".join(n.op._opname for n in nodes) for nodes in kernels_of(graph).values()]


def llama() -> tuple[nn.Module, Tensor]:
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 100}
    heads: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, **heads, use_cache=False)
    return LlamaForCausalLM(config).eval().bfloat16(), torch.arange(12).view(2, 6)


def test_a_layer_of_a_llama_model() -> None:
    model, ids = llama()
    graph = FuseElementwise().run(capture(model, (), {"input_ids": ids}), GPU)
    found = {nodes[0].where.module: [] for nodes in kernels_of(graph).values()}
    for nodes in kernels_of(graph).values():
        found[nodes[0].where.module].append(" ".join(n.op._opname for n in nodes))
    norm = "to pow mean add rsqrt mul to mul"
    assert found["model.layers.1.input_layernorm"] == found["model.norm"] == [norm]
    assert found["model.layers.1.self_attn"] == ["mul slice slice neg cat mul add"] * 2
    assert found["model.layers.1.mlp.act_fn"] == ["silu mul"]
    costed = AnnotateCost().run(PropagateShapes().run(graph, GPU), GPU)
    layer = [n for n in costed.nodes if n.where.module.startswith("model.layers.1.")]
    assert sum(n.cost.launches for n in layer) == 17 - 2  # the two sums are the layer's own
    assert sum(n.cost.launches for n in costed.nodes if n.where.module == "model.layers.1") == 2


def test_on_cpus_and_on_mixed_machines_nothing_is_fused() -> None:
    model = Model(lambda layer, x: F.silu(layer(x)) * x)
    graph = capture(model, (torch.ones(2, 256),))
    assert FuseElementwise().run(graph, machine(2)) is graph


def test_a_kernel_costs_what_it_reads_and_writes() -> None:
    graph = marked(Model(lambda layer, x: F.silu(layer(x)) * x + 1), torch.ones(2, 256))
    costed = AnnotateCost().run(PropagateShapes().run(graph, GPU), GPU)
    fused = [n for n in costed.nodes if n.kernel]
    assert [n.cost.bytes for n in fused] == [2048, 2048, 2048]
    assert [n.cost.launches for n in fused] == [0, 0, 1]
    alone = AnnotateCost().run(PropagateShapes().run(graph.map(lambda n: replace(n, kernel="")), GPU), GPU)
    assert [n.cost.bytes for n in alone.nodes][-3:] == [4096, 6144, 4096]


def test_profiled_kernels_take_the_share_of_the_bytes_that_they_move() -> None:
    graph = marked(Model(lambda layer, x: F.silu(layer(x)) * x + 1), torch.ones(2, 256))
    costed = AnnotateCost(cost=CostSource.profiled).run(PropagateShapes().run(graph, machine(1)), machine(1))
    apart = AnnotateCost(cost=CostSource.profiled)
    alone = apart.run(PropagateShapes().run(graph.map(lambda n: replace(n, kernel="")), machine(1)), machine(1))
    in_kernel = [n.measured[0] for n in costed.nodes if n.kernel]
    assert [m.cost.launches for m in in_kernel] == [0, 0, 1]
    assert all(m.time.device > 0 for m in in_kernel)
    assert sum(m.time.device for m in in_kernel) < 2 * sum(n.measured[0].time.device for n in alone.nodes[-3:])


def test_profiled_nodes_without_numbers_take_no_time_of_a_kernel() -> None:
    graph = marked(Model(lambda layer, x: torch.cat([x * 3, x[..., 256:]], -1) + 1), torch.ones(2, 256))
    costed = AnnotateCost(cost=CostSource.profiled).run(PropagateShapes().run(graph, machine(1)), machine(1))
    times = {n.op._opname: n.measured[0].time.device for n in costed.nodes if isinstance(n, Call) and n.kernel}
    assert times.keys() == {"mul", "slice", "cat", "add"}
    assert times["slice"] == 0


def test_what_others_read_is_written() -> None:
    def function(layer: nn.Module, x: Tensor) -> Tensor:
        y = x * 2
        return layer(y) + (y + 1) * 3

    assert operators(function) == ["mul add mul"]


def test_no_kernel_runs_before_and_after_another_node() -> None:
    def function(layer: nn.Module, x: Tensor) -> Tensor:
        y = x * 2
        return (layer(y) + y) * 3

    assert operators(function) == ["add mul"]


def test_two_kernels_do_not_wait_for_each_other() -> None:
    def function(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.flatten(0, 1) * 2, x * 3
        a = a + b.flatten(0, 1)  # a is behind b
        b = b + a.view(2, 3, 256)  # and this, b behind a
        return a * 2, b * 2

    assert operators(function) == ["mul add mul", "add mul"]


def test_results_of_one_kernel_have_one_shape() -> None:
    def function(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(-1, keepdim=True) + 1
        return x * mean, mean

    assert operators(function) == []


def test_a_slice_that_others_read_is_a_view_of_what_a_kernel_writes() -> None:
    assert operators(lambda layer, x: (x * 2 + 1)[..., :128]) == ["mul add"]
    assert operators(lambda layer, x: (x * 2 + 1)[..., 2:][..., :128]) == ["mul add"]
    assert operators(lambda layer, x: (x * 2)[..., :128]) == []


def test_a_column_of_several_is_read_from_outside() -> None:
    assert operators(lambda layer, x: x[..., 1:2] * x + 1) == ["mul add"]


@pytest.mark.parametrize("columns", [64, 254, 1 << 17])
def test_a_mean_in_an_unknown_order_stays_between_two_kernels(columns: int) -> None:
    def function(layer: nn.Module, x: Tensor) -> Tensor:
        return x * ((x**2 * 2).mean(-1, keepdim=True) + 1).rsqrt()

    assert operators(function, torch.ones(2, columns)) == ["pow mul", "add rsqrt mul"]


def test_sums_along_other_dimensions_stay() -> None:
    assert operators(lambda layer, x: (x * 2 + 1).mean(1, keepdim=True) * 2) == ["mul add"]
    assert operators(lambda layer, x: (x * 2 + 1).mean(-1) * 2) == ["mul add"]


OTHERS: dict[str, Callable[..., Any]] = {
    "other dtypes": lambda layer, x: (x.double() * 2 + 1) * 3,
    "integers": lambda layer, x: (x.long() + 1) * 2,
    "one by itself": lambda layer, x: torch.cos(x * 2) + torch.sin(x * 3),
    "numbers of no dimension": lambda layer, x: (x.sum() * 2 + 1) * 3,
    "what has other bits": lambda layer, x: F.gelu(x**3).tanh(),
    "random numbers": lambda layer, x: F.dropout(x, 0.5, False),
    "infinity": lambda layer, x: (x + float("inf")).clamp(max=1.0) * 2,
    "a copy": lambda layer, x: x.to(torch.float32, copy=True).cos() * 2,
    "steps": lambda layer, x: x[..., ::2] * 2,
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_fused(what: str) -> None:
    assert operators(OTHERS[what]) == []


def test_a_kernel_stays_in_its_module() -> None:
    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * ((x**2).mean(-1, keepdim=True) + 1).rsqrt()

    norm = Norm()
    model = nn.Sequential(nn.Linear(256, 256), norm, nn.Linear(256, 256), norm)
    graph = marked(model, torch.randn(2, 256))
    assert [len(nodes) for nodes in kernels_of(graph).values()] == [5, 5]

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.act = norm, nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.act(x + 1) * 2)

    assert [len(nodes) for nodes in kernels_of(marked(Around(), torch.randn(2, 256))).values()] == [3, 5]


def test_sizes_in_arguments_stay_outside() -> None:
    graph = FuseElementwise().run(
        capture(Model(lambda layer, x: (x * x.shape[0] + 1) * 2), (torch.ones(3, 256),), dynamic_shapes=({0: "rows"},)),
        GPU,
    )
    assert [[n.op._opname for n in nodes] for nodes in kernels_of(graph).values()] == [["add", "mul"]]
    assert all(isinstance(n, Call) for n in graph.nodes)
