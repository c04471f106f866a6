"""What operators cost: exact for contractions, bytes for the rest, nothing for views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ir.capture import capture
from ir.cost import FREE, UNKNOWN, Arithmetic, Cost
from ir.decoding import Decoding
from ir.graph import Call, Graph
from ir.machine.cluster import Device
from ir.operators.higher_order import is_higher_order
from ir.sizes import at
from ir.sources.meta import with_values
from passes.annotate_cost import AnnotateCost
from passes.cost_models.predictions import Predictions
from passes.cost_models.roofline import Roofline
from passes.propagate_shapes import PropagateShapes
from tests.support.checking import captured_example, resized
from tests.support.models.graphs import aten, graph, relu, value
from tests.support.models.planning import DEVICE, machine


class Function(nn.Module):
    """A model that is one function of some tensors."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.compute(*tensors)


def costed(model: nn.Module, tensors: Sequence[torch.Tensor], dynamic: Any = None) -> Graph:
    graph = capture(model, tuple(tensors), dynamic_shapes=dynamic)
    return AnnotateCost().run(PropagateShapes().run(graph, machine(1)), machine(1))


def without_copies(graph: Graph) -> Graph:
    """The graph without the copies that make results the caller's own."""
    return replace(graph, nodes=tuple(n for n in graph.nodes if isinstance(n, Call) and n.op != aten.clone.default))


def total(graph: Graph, sizes: dict[str, int] | None = None) -> Cost:
    """Of all nodes, in numbers: at the example's sizes, or at others."""
    cost = sum((node.cost for node in graph.nodes), FREE)
    values = graph.hints if sizes is None else {s: sizes[str(s)] for s in graph.hints}
    return Cost(at(cost.flops, values), at(cost.bytes, values), cost.launches)


def counted(model: nn.Module, tensors: Sequence[torch.Tensor], **kwargs: Any) -> int:
    """By torch, which knows no flash attention on the CPU."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(*tensors, **kwargs)
    return counter.get_total_flops()


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


MODULES: dict[str, tuple[nn.Module, list[torch.Tensor]]] = {
    "linear": (nn.Linear(6, 5), [ones(2, 3, 6)]),
    "a linear of a vector": (nn.Linear(6, 5), [ones(6)]),
    "a product of matrices": (Function(torch.matmul), [ones(4, 5), ones(5, 6)]),
    "a product of batches": (Function(torch.matmul), [ones(2, 1, 4, 5), ones(3, 5, 6)]),
    "a vector times a matrix": (Function(torch.matmul), [ones(5), ones(5, 6)]),
    "addmm": (Function(torch.addmm), [ones(6), ones(4, 5), ones(5, 6)]),
    "bmm": (Function(torch.bmm), [ones(2, 4, 5), ones(2, 5, 6)]),
    "baddbmm": (Function(torch.baddbmm), [ones(2, 4, 6), ones(2, 4, 5), ones(2, 5, 6)]),
    "a convolution": (nn.Conv2d(3, 8, 3, stride=2, padding=1), [ones(2, 3, 9, 7)]),
    "a convolution in groups": (nn.Conv2d(6, 12, 3, groups=3), [ones(2, 6, 9, 7)]),
    "a convolution of each channel": (nn.Conv1d(6, 6, 4, groups=6, dilation=2), [ones(2, 6, 19)]),
    "a convolution in three dimensions": (nn.Conv3d(2, 3, 2), [ones(1, 2, 4, 5, 6)]),
    "a convolution without a batch": (nn.Conv2d(3, 8, 3), [ones(3, 9, 7)]),
    "a convolution padded to the same size": (nn.Conv1d(3, 8, 3, padding="same"), [ones(2, 3, 9)]),
    "a transposed convolution": (nn.ConvTranspose2d(3, 8, 3, stride=2), [ones(2, 3, 9, 7)]),
    "a transposed convolution in groups": (nn.ConvTranspose1d(6, 12, 3, groups=3), [ones(2, 6, 9)]),
    "attention": (Function(F.scaled_dot_product_attention), [ones(2, 4, 5, 8), ones(2, 4, 7, 8), ones(2, 4, 7, 6)]),
    "norms and activations": (nn.Sequential(nn.LayerNorm(6), nn.GELU(), nn.Softmax(-1)), [ones(2, 6)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MODULES)
def test_flops_are_what_torch_counts(what: str) -> None:
    model, tensors = MODULES[what]
    assert total(costed(model.eval(), tensors)).flops == counted(model, tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tensors", "flops"),
    [
        (Function(lambda a, b: torch.einsum("bij,bjk->bik", a, b)), [ones(2, 3, 4), ones(2, 4, 5)], 2 * 2 * 3 * 4 * 5),
        (Function(lambda a, b: torch.einsum("i , j -> ij", a, b)), [ones(3), ones(4)], 2 * 3 * 4),
        (Function(lambda a: torch.einsum("ij->ji", a)), [ones(3, 4)], 0),
        (
            Function(lambda a, b: torch.einsum("...ij,jk->...ik", a, b)),
            [ones(7, 2, 3, 4), ones(4, 5)],
            2 * 7 * 2 * 3 * 4 * 5,
        ),
        (Function(lambda a, b: torch.einsum("...i,...i->...", a, b)), [ones(7, 1, 3), ones(2, 3)], 2 * 7 * 2 * 3),
        (Function(lambda a, b: torch.tensordot(a, b, dims=2)), [ones(2, 3, 4), ones(3, 4, 5)], 2 * 2 * 3 * 4 * 5),
        (Function(torch.inner), [ones(2, 4), ones(3, 4)], 2 * 2 * 3 * 4),
        (Function(torch.cdist), [ones(2, 4), ones(3, 4)], 2 * 2 * 3 * 4),
        (nn.Bilinear(3, 4, 5), [ones(2, 3), ones(2, 4)], 2 * 2 * 5 * 4 * (3 + 1)),
        (nn.GRUCell(6, 5), [ones(2, 6)], 2 * 2 * 3 * 5 * (6 + 5)),
        (nn.LSTM(6, 5, num_layers=2), [ones(7, 2, 6)], 2 * 7 * 2 * 4 * 5 * (6 + 5 + 5 + 5)),
        (nn.LSTM(6, 5, bidirectional=True), [ones(7, 2, 6)], 2 * 7 * 2 * 2 * 4 * 5 * (6 + 5)),
        (nn.GRU(6, 5), [ones(7, 2, 6)], 2 * 7 * 2 * 3 * 5 * (6 + 5)),
        (nn.RNN(6, 5), [ones(7, 2, 6)], 2 * 7 * 2 * 5 * (6 + 5)),
        (Function(torch.dot), [ones(9), ones(9)], 2 * 9),
        (Function(torch.matmul), [ones(4, 5), ones(5)], 2 * 4 * 5),
    ],
)
def test_flops_that_torch_does_not_count(model: nn.Module, tensors: list[torch.Tensor], flops: int) -> None:
    assert total(costed(model.eval(), tensors)).flops == flops


class Deciding(nn.Module):
    """A layer that torch.export does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if x.sum() > 0 else self.linear(-x)


def test_a_module_kept_whole_costs_what_it_was_seen_to_do() -> None:
    graph = costed(nn.Sequential(nn.Linear(6, 6), Deciding()).eval(), [ones(4, 6)], {"input": {0: "batch"}})
    assert total(graph, {"batch": 5}).flops == 2 * 2 * 5 * 6 * 6


def test_attention_of_grouped_heads_counts_the_heads_of_the_query() -> None:
    model = Function(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    assert total(costed(model, [ones(2, 8, 5, 4), ones(2, 2, 7, 4), ones(2, 2, 7, 4)])).flops == 2 * 2 * 8 * 5 * 7 * (
        4 + 4
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2", "resnet50"])
def test_the_flops_of_an_example_are_what_torch_counts(name: str) -> None:
    source, graph = captured_example(name)
    graph = AnnotateCost().run(PropagateShapes().run(graph, machine(1)), machine(1))
    for batch, seq in ((2, 32), (3, 17)):
        sizes = {"batch": batch, "seq": seq}
        with with_values(source.model, source.weights):
            expected = counted(source.model, (), **resized(source, sizes).kwargs)
        assert total(graph, sizes).flops == pytest.approx(expected, rel=1e-3)


FLOAT, INDEX = 4, 8

BYTES: dict[str, tuple[Callable[..., Any], list[torch.Tensor], int]] = {
    "every tensor once": (torch.add, [ones(3, 4), ones(4)], FLOAT * (12 + 4 + 12)),
    "an operand read twice": (lambda x: x * x, [ones(3, 4)], FLOAT * (12 + 12)),
    "what is made of a shape alone": (torch.zeros_like, [ones(3, 4)], FLOAT * 12),
    "a cast": (lambda x: x.to(torch.bfloat16), [ones(3, 4)], FLOAT * 12 + 2 * 12),
    "an expanded operand": (lambda x, y: x.expand(5, 3, 4) + y, [ones(3, 4), ones(5, 3, 4)], FLOAT * (12 + 60 + 60)),
    "a slice of an operand": (lambda x: x[:, :2].relu(), [ones(3, 4)], FLOAT * (6 + 6)),
    "a linear": (lambda x, w: F.linear(x, w), [ones(3, 4), ones(5, 4)], FLOAT * (12 + 20 + 15)),
    "an embedding": (
        lambda i, w: F.embedding(i.long(), w),
        [ones(6), ones(1000, 4)],
        (FLOAT + INDEX) * 6 + 2 * FLOAT * 24 + INDEX * 6,
    ),
    "rows": (
        lambda x, i: x.index_select(0, i.long()),
        [ones(1000, 4), ones(6)],
        (FLOAT + INDEX) * 6 + 2 * FLOAT * 24 + INDEX * 6,
    ),
    "an index": (lambda x, i: x[i.long()], [ones(1000, 4), ones(6)], (FLOAT + INDEX) * 6 + 2 * FLOAT * 24 + INDEX * 6),
    "attention": (F.scaled_dot_product_attention, [ones(1, 2, 100, 4)] * 3, FLOAT * 4 * 800),
    "attention of shared heads": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
        [ones(1, 6, 100, 4), ones(1, 2, 100, 4)],
        FLOAT * (2 * 2400 + 800),
    ),
    "concatenation": (lambda x, y: torch.cat([x, y]), [ones(3, 4), ones(2, 4)], 2 * FLOAT * 20),
}


@pytest.mark.parametrize("what", BYTES)
def test_bytes_to_and_from_memory(what: str) -> None:
    compute, tensors, nbytes = BYTES[what]
    assert total(costed(Function(compute), [t.clone() for t in tensors])).bytes == nbytes


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.view(4, 3),
        lambda x: x.reshape(12),
        lambda x: x.t(),
        lambda x: x[1:, ::2],
        lambda x: x.expand(7, 3, 4),
        lambda x: x.chunk(2, -1),
        lambda x: x.unsqueeze(0).contiguous(),
        lambda x: x.unbind(),
        lambda x: x.unflatten(1, (2, 2)).permute(2, 0, 1),
    ],
)
def test_views_are_free(compute: Callable[[torch.Tensor], Any]) -> None:
    assert total(without_copies(costed(Function(compute), [ones(3, 4)]))) == FREE


def test_a_reshape_that_copies_is_not_free() -> None:
    graph = without_copies(costed(Function(lambda x: x.t().reshape(12)), [ones(3, 4)]))
    assert total(graph) == Cost(0, 2 * FLOAT * 12, 1)


def test_costs_are_expressions_over_the_dynamic_sizes() -> None:
    """Those at a size are what the model costs captured at that size."""
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Unflatten(1, (3, 2)), nn.Flatten(), nn.Linear(6, 4))
    graph = costed(model, [ones(2, 4)], {"input": {0: "batch"}})
    batch = sympy.Symbol("batch", integer=True, positive=True)
    unaligned = Arithmetic("unaligned_product")
    assert graph.nodes[0].cost == Cost(48 * batch, FLOAT * (4 * batch + 6 * batch + 30), 1, unaligned)
    for size in (2, 5):
        assert total(graph, {"batch": size}) == total(costed(model, [ones(size, 4)]))


def test_an_unknown_cost_poisons_the_sum() -> None:
    assert (FREE + UNKNOWN).flops is sympy.nan
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6, 2)


def seconds(cost: Cost, device: Device = DEVICE) -> float:
    return Roofline().time(relu(value("x"), "y"), cost, device).device


def test_a_kernel_takes_its_start_and_about_the_slower_of_arithmetic_and_memory() -> None:
    assert seconds(Cost(2 * 10**11, 0)) == pytest.approx(2 + DEVICE.launch)
    assert seconds(Cost(0, 6 * 10**10)) == pytest.approx(3 + DEVICE.launch)
    assert seconds(Cost(2 * 10**11, 6 * 10**10, 4)) == pytest.approx((2**4 + 3**4) ** 0.25 + 4 * DEVICE.launch)
    assert seconds(Cost(10**11, 2 * 10**12)) == pytest.approx(100, rel=1e-5)  # far from the edge, the slower alone
    assert seconds(FREE) == 0


def test_arithmetic_has_the_rate_of_its_unit_and_dtype() -> None:
    gpu = Device(
        "cuda:0",
        flops=(("float32", 5e13), ("bfloat16", 8e14)),
        convolution=(("float32", 3e14),),
        bandwidth=4e12,
        memory=1 << 40,
        fill=1.0,
    )
    single, half = torch.float32, torch.float16
    assert seconds(Cost(10**14, 0, 0, Arithmetic("product", single)), gpu) == pytest.approx(1 + 2)
    assert seconds(Cost(8 * 10**14, 0, 0, Arithmetic("product", half)), gpu) == pytest.approx(1 + 1)  # as bfloat16
    assert seconds(Cost(10**14, 0, 0, Arithmetic("product", torch.float64)), gpu) == pytest.approx(1 + 2)  # the least
    assert seconds(Cost(3 * 10**14, 0, 0, Arithmetic("convolution", single)), gpu) == pytest.approx(1 + 1)
    assert seconds(Cost(8 * 10**14, 0, 0, Arithmetic("attention", half)), gpu) == pytest.approx(1 + 1)  # as products


def test_what_has_room_in_the_cache_comes_from_it() -> None:
    device = replace(DEVICE, cache=1e6, cache_bandwidth=1e11, launch=0.0)
    assert seconds(Cost(0, 10**6), device) == pytest.approx(1e-5)
    assert seconds(Cost(0, 2 * 10**6), device) == pytest.approx(1e-4)


def test_a_kernel_that_does_not_stream_takes_its_elements_one_by_one() -> None:
    device = replace(DEVICE, bandwidth=1e10, elements=1e9, launch=0.0)
    assert seconds(Cost(0, 10**10), device) == pytest.approx(1)
    assert seconds(Cost(0, 10**10, elements=2 * 10**9), device) == pytest.approx(2, rel=0.02)
    assert seconds(Cost(0, 10**10, elements=2 * 10**8), device) == pytest.approx(1, rel=0.001)
    assert (Cost(0, 1, elements=3) + Cost(0, 1)).elements == 3


@pytest.mark.parametrize(
    ("compute", "elements"),
    [
        (lambda x: x + 1, 0),
        (lambda x: x * x.tanh(), 0),
        (lambda x: x * torch.tensor(2.0), 0),
        (lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)), 512),
        (lambda x: x.bfloat16(), 512),
        (lambda x: x.mean(-1), 512),
        (lambda x: x * torch.arange(8.0), 512),
        (lambda x: x + x[:1].expand(2, 4, 8, 8), 512),
        (lambda x: torch.cat([x, x]), 1024),
        (lambda x: F.embedding(x.long()[0, 0], torch.ones(1000, 2)), 128),
    ],
)
def test_a_kernel_streams_where_all_tensors_are_alike(compute: Callable[..., Any], elements: int) -> None:
    assert costed(Function(compute), (torch.ones(2, 4, 8, 8),)).nodes[-1].cost.elements == elements


def test_the_cost_of_a_contraction_names_its_unit_and_dtype() -> None:
    def arithmetic(compute: Callable[..., Any], *tensors: torch.Tensor) -> Arithmetic:
        return costed(Function(compute), tensors).nodes[-1].cost.arithmetic

    x = torch.ones(2, 4, 8, 8)
    assert arithmetic(F.linear, x[0, 0].bfloat16(), x[0, 1].bfloat16()) == Arithmetic("product", torch.bfloat16)
    assert arithmetic(F.conv2d, x, x[:, :, :3, :3]) == Arithmetic("convolution", torch.float32)
    assert arithmetic(F.scaled_dot_product_attention, *[x.half()] * 3) == Arithmetic("attention", torch.float16)
    assert (FREE + Cost(1, 1, 1, Arithmetic("attention"))).arithmetic.unit == "attention"


def test_sizes_that_tensor_cores_do_not_take_and_biases_have_units_of_their_own() -> None:
    def unit(compute: Callable[..., Any], *tensors: torch.Tensor) -> str:
        return costed(Function(compute), tensors).nodes[-1].cost.arithmetic.unit

    half = torch.ones(2, 8, 16, dtype=torch.bfloat16)
    assert unit(F.linear, half, half[0, :7]) == "unaligned_product"
    assert unit(F.linear, half[..., :12], half[0, :, :12]) == "unaligned_product"
    assert unit(torch.matmul, half, half.mT) == "product"
    x = torch.ones(2, 4, 8, 8)
    assert unit(F.linear, x, x[0, 0, :4]) == "product"  # 4 floats are 16 bytes
    assert unit(F.conv2d, x[:, :3], x[:, :3, :3, :3]) == "unaligned_convolution"
    assert unit(lambda x, mask: F.scaled_dot_product_attention(x, x, x, mask), x, x) == "biased_attention"
    assert unit(lambda x, mask: F.scaled_dot_product_attention(x, x, x, mask), x, x[:, :1]) == "attention"


def test_the_host_starts_kernels_while_the_device_works() -> None:
    """The stage takes the longer of both; to the time of each node the shorter does not count."""
    slow_host = replace(DEVICE, launch=0.5, dispatch=3.0)
    x = value("x")
    nodes = [relu(x, "y", cost=Cost(0, 0)), relu(x, "z", cost=Cost(0, 80_000_000_000))]
    predicted = Predictions(graph([x], nodes, [x]))
    assert predicted.seconds(nodes, slow_host) == pytest.approx(6)
    assert predicted.shares(nodes, slow_host) == pytest.approx((3, 3))
    assert predicted.seconds(nodes, replace(slow_host, dispatch=2.0)) == pytest.approx(5)
    assert predicted.shares(nodes, replace(slow_host, dispatch=2.0)) == pytest.approx((0.5, 4.5))
    decoder = Predictions(replace(graph([x], nodes, [x]), decoding=Decoding(page=4, max_length=8)))
    assert decoder.seconds(nodes, replace(slow_host, name="cuda:1")) == pytest.approx(5)  # by one launch for all
    assert decoder.seconds(nodes, replace(slow_host, name="xpu")) == pytest.approx(6)


def test_a_cast_in_a_function_costs_what_it_does_outside() -> None:
    def scaled(w: torch.Tensor) -> torch.Tensor:
        return w.to(torch.float32).view(2, 8) * 2

    weights = torch.ones(3, 4, 4, dtype=torch.bfloat16)
    mapped = costed(
        Function(lambda w: torch.ops.higher_order.map_impl(lambda one: (scaled(one),), (w,), ())[0]), [weights]
    )
    alone = total(without_copies(costed(Function(scaled), [weights[0]])))
    (found,) = (node.cost for node in mapped.nodes if isinstance(node, Call) and is_higher_order(node))
    assert (found.bytes, found.launches) == (3 * alone.bytes, 3 * alone.launches)
