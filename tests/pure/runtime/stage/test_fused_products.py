"""Products of compiled steps of one row with what is before and behind them, in torch's place of the kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch.fx import GraphModule
from torch.nn import functional as F

from runtime.stage import speed
from runtime.stage.linear import few_rows
from runtime.stage.linear.few_rows import FEW_ROWS, linear_of_few_rows, parts_of_few_rows
from runtime.stage.linear.fused_products import fuse_products, fused_products
from runtime.stage.linear.one_row import ONE_ROW
from tests.pure.runtime.stage.test_one_row import in_torch

WIDTH, INNER = 8, 6
OPTION = "post_grad_custom_pre_pass"


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch in place of the kernels."""

    def few_rows_in_torch(x: Tensor, weight: Tensor, added: Tensor | None = None) -> Tensor:
        return (x @ weight.T + (0 if added is None else added)).unsqueeze(0)

    operators: dict[Any, Callable[..., Tensor]] = {FEW_ROWS: few_rows_in_torch, ONE_ROW: in_torch}
    kept = {one: one._init_fn for one in operators}
    for one, run in operators.items():
        one.register_kernel("cpu")(run)
    monkeypatch.setattr(few_rows, "splits_of", lambda rows, weight: 1)
    yield
    for one, run in kept.items():
        one.register_kernel("cpu")(run)


def silu_in_older_torch(x: Tensor) -> Tensor:
    wide = x.float()
    return (wide * wide.sigmoid()).type_as(x)


class Norm(nn.Module):
    """A norm as models write it: if there is `more`, 1 is added to its weight, as in Gemma."""

    def __init__(self, more: bool) -> None:
        super().__init__()
        self.weight, self.more = nn.Parameter(torch.randn(WIDTH).bfloat16()), more

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (normed * (1.0 + self.weight.float())).type_as(x) if self.more else self.weight * normed.type_as(x)


class Layer(nn.Module):
    """Products as a decoder's layer has them."""

    def __init__(self, more: bool, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm(more) for _ in range(2))
        weights = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (2 * INNER, WIDTH), (WIDTH, INNER))
        self.weights = nn.ParameterList((torch.randn(*shape) / 4).bfloat16() for shape in weights)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        first, out, inner, down = self.weights
        query, key, value = parts_of_few_rows(self.norms[0](x), first, None, [WIDTH] * 3)
        x = x + linear_of_few_rows(query.tanh() * key + value, out, None)
        gate, up = parts_of_few_rows(self.norms[1](x), inner, None, [INNER] * 2)
        return x + linear_of_few_rows(self.gate(gate) * up, down, None)


def compiled(layer: nn.Module, found: Counter[str]) -> Any:
    """The layer under torch.compile but for its kernels, of which the operators are counted."""

    def compile_graph(module: GraphModule, example: list[Tensor]) -> Any:
        fuse_products(module.graph)
        module.graph.lint()
        module.recompile()
        found.update(str(node.target).removesuffix(".default") for node in module.graph.nodes)
        return module

    return torch.compile(
        layer, backend=aot_autograd(fw_compiler=compile_graph, decompositions=select_decomp_table()), dynamic=True
    )


@torch.no_grad()
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("gate", [F.silu, silu_in_older_torch, F.gelu])
@pytest.mark.usefixtures("kernels")
def test_a_step_of_one_row_has_products_and_little_else(more: bool, gate: Callable[[Tensor], Tensor]) -> None:
    layer, found = Layer(more, gate), Counter[str]()
    x = torch.randn(1, 1, WIDTH).bfloat16()
    torch.testing.assert_close(compiled(layer, found)(x), layer(x), atol=0.05, rtol=0.05)
    assert (found["stagecut.one_row"], found["stagecut.few_rows"]) == (4, 0)
    assert not found["aten.rsqrt"]
    assert not found["aten.exp"]
    assert not found["aten.sigmoid"]


@torch.no_grad()
@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.usefixtures("kernels")
def test_products_of_several_rows_take_what_is_added_to_them(monkeypatch: pytest.MonkeyPatch, joins: bool) -> None:
    monkeypatch.setattr(few_rows, "ADDS_UP", joins)
    monkeypatch.setattr(few_rows, "splits_of", lambda rows, weight: 1 if joins else 2)
    layer, found = Layer(False, F.silu), Counter[str]()
    step = compiled(layer, found)
    if not joins:
        FEW_ROWS.register_kernel("cpu")(lambda x, weight: torch.stack([(x @ weight.T).float() / 2] * 2))
    for rows in (3, 5):
        x = torch.randn(rows, 1, WIDTH).bfloat16()
        torch.testing.assert_close(step(x), layer(x), atol=0.05, rtol=0.05)
    assert (found["stagecut.one_row"], found["stagecut.few_rows"]) == (0, 4)  # compiled once
    assert found["aten.add.Tensor"] - found["aten.rsqrt"] == (2 if joins else 4)


class Elsewhere(Layer):
    """A layer that returns, or reads twice, what is before and behind its products."""

    def forward(self, x: Tensor) -> Any:
        first, out, inner, down = self.weights
        normed = self.norms[0](x)
        made = linear_of_few_rows(normed, out, None)
        gate, up = parts_of_few_rows(x + made + made, inner, None, [INNER] * 2)
        silu = self.gate(gate)
        return (
            normed,
            made,
            linear_of_few_rows(silu * up, down, None),
            silu,
            x + linear_of_few_rows(x, first, None)[..., :1],
        )


@torch.no_grad()
@pytest.mark.usefixtures("kernels")
def test_what_others_read_stays() -> None:
    layer, found = Elsewhere(False, F.silu), Counter[str]()
    x = torch.randn(1, 1, WIDTH).bfloat16()
    torch.testing.assert_close(compiled(layer, found)(x), layer(x), atol=0.05, rtol=0.05)
    assert (found["stagecut.one_row"], found["stagecut.few_rows"]) == (0, 4)


def test_decoders_with_the_kernel_are_compiled_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "takes", lambda weight: True)
    layers = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    decoder: Any = SimpleNamespace(pools=("keys",), module=layers)
    assert OPTION not in speed._compile_options(decoder, torch.device("cuda"))["options"]
    few_rows.use_few_rows([layers])
    options = speed._compile_options(decoder, torch.device("cuda"))["options"]
    assert options[OPTION] is fused_products()
    torch.compile(layers, options=options)  # torch knows them
