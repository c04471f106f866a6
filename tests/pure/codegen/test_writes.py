"""Writes into parts of tensors: how they read in a stage file, and that they change nothing that is read later."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor, nn

from codegen.text.stage_source import StageFile, emit
from ir.capture import capture
from ir.graph import Constant
from ir.plan import plan_stages
from passes.insert_transfers import InsertTransfers
from tests.support.checking import Call, assert_same, run_model
from tests.support.models.planning import cut, machine

Function: TypeAlias = Callable[[Tensor], object]


class Written(nn.Module):
    """A function as a model."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.ring = nn.Buffer(torch.zeros(4, 6))

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def staged(model: nn.Module, x: Tensor) -> tuple[str, nn.Module]:
    """The lines of the only stage's `forward`, from its first write on, and the stage."""
    graph = capture(model, (x,), dynamic_shapes={"x": {0: "batch"}})
    plan = plan_stages(InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1)), machine(1))
    file = StageFile(plan, plan.stages[0], "m")
    source = emit(file).source
    scope: dict[str, object] = {}
    exec(source, scope)
    stage: nn.Module = scope["Stage0"]()  # type: ignore[operator]
    for value, name in file.fqns.items():
        if isinstance(value, Constant):
            stage.get_buffer(name).copy_(value.data)
    body = source.partition("    def forward(self, x):\n")[2].partition("    @classmethod")[0]
    return textwrap.dedent(body).strip(), stage


def check(function: Function) -> str:
    """Run a stage and the model on inputs of two sizes; return the lines of the stage."""
    torch.manual_seed(0)
    model = Written(function)
    text, stage = staged(model, torch.randn(3, 4, 6))
    for batch in (3, 5):
        x = torch.randn(batch, 4, 6)
        before = x.clone()
        [expected] = run_model(model, [Call.of(x)])
        with torch.no_grad():
            found = stage(x)
        wanted = expected if isinstance(expected, tuple) else (expected,)
        assert_same(tuple(wanted), found)
        assert torch.equal(x, before)  # the caller's own
        try:
            wanted_gradient = gradient(model, x)
        except RuntimeError:  # of a model that writes over what its gradients need
            continue
        assert torch.equal(gradient(stage, x), wanted_gradient)
    return text


def gradient(module: nn.Module, x: Tensor) -> Tensor:
    """The gradient of all results by the input, each number of which weighs otherwise."""
    x = x.clone().requires_grad_()
    made = module(x)
    made = made if isinstance(made, tuple) else (made,)
    sum((one * torch.arange(one.numel()).view(one.shape)).sum() for one in made).backward()  # type: ignore[union-attr]
    assert x.grad is not None
    return x.grad


def shifted(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1:] = x[:, :-1]
    y[:, :2] += 1.0
    y[..., 0] = 0
    y[:, ::2, 3:5] *= x[:, ::2, 3:5]
    return y


def test_writes_read_as_the_model_has_them() -> None:
    assert check(shifted).splitlines()[1:] == [
        "y = x.clone()",
        "y[:, 1:] = x[:, :-1]",
        "y[:, :2] += 1.0",
        "y[..., 0] = 0.0",
        "y[:, ::2, 3:5] *= x[:, ::2, 3:5]",
        "return (y,)",
    ]


def masks(x: Tensor) -> Tensor:
    mask = torch.zeros(4, 6)
    for n, part in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
        mask[:, part] = n
    mask[torch.arange(4), torch.arange(4)] = 7
    return x * mask


def test_masks_are_filled_by_slices() -> None:
    lines = check(masks).splitlines()
    assert [line for line in lines if "] = " in line] == [
        "mask[:, :-4] = 0.0",
        "mask[:, -4:-2] = 1.0",
        "mask[:, -2:] = 2.0",
        "mask[torch.arange(4, device=device), torch.arange(4, device=device)] = self.constant_0",
    ]


def diagonals(x: Tensor) -> Tensor:
    y = x[:, :4, :4] + 1
    y.diagonal(dim1=1, dim2=2).fill_(7)
    y.transpose(1, 2)[:, 2] += 1
    return y


def test_a_part_without_a_subscript_is_filled_by_its_method() -> None:
    assert "y.diagonal(dim1=1, dim2=2).fill_(7)" in check(diagonals)


# ---- what is read later


def an_input(x: Tensor) -> tuple[Tensor, ...]:
    y = x.view(-1, 24).clone()
    z = x[:, 0].clone()
    z[:, 0] = 1
    return y, z


def kept_before(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    before = y.clone()
    before[:, 0] = 3
    y[:, 1] = before[:, 0]
    return y, before


def overlapping(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 1:] = y[:, :-1].clone()
    return y


def changed_by_what_is_beside(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 1:] = y[:, 1:] * y[:, :-1]  # y[:, 1:] *= y[:, :-1] reads what it has written
    y[:, :, :2] = y[:, :, :2] - y[:, :, 1:3]
    return y


def kept_for_gradients(x: Tensor) -> Tensor:
    y = x + 1
    squares = y * y
    z = torch.slice_scatter(y, x[:, :1], 1, 0, 1)
    part = z[:, 1:] * x[:, 1:]
    return squares + torch.slice_scatter(z, part.sigmoid(), 1, 1, 4)


def circular(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], 4, 8)
    y[..., 1:7] = x
    y[..., :1] = y[..., 6:7]
    y[..., 7:] = y[..., 1:2]
    return y


def test_a_part_of_the_tensor_itself_is_copied_first() -> None:
    assert [line for line in check(circular).splitlines() if "y[" in line] == [
        "y[..., 1:7] = x",
        "y[..., :1] = y[..., 6:7].clone()",
        "y[..., 7:] = y[..., 1:2].clone()",
    ]


def view_read_later(x: Tensor) -> Tensor:
    y = x + 1
    copied = y[:, 0] * 1
    y[:, 0] = 0
    return y + copied.unsqueeze(1)


def two_versions(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x + 1
    a, b = y.clone(), y.clone()
    a[:, 0] = 1
    b[:, 1] = 2
    return a + b, y


def through_views(x: Tensor) -> Tensor:
    y = (x + 1).view(-1, 2, 12)
    y[:, 0, :3] = 5
    first, second = y.chunk(2, -1)
    first.mul_(2)
    second[:, 1] = first[:, 0]
    return y.transpose(1, 2)


def expanded(x: Tensor) -> Tensor:
    y = x[:1].expand_as(x).clone()
    y[:, 1] = 2
    return y


def by_rows(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    order = torch.arange(x.shape[0] - 1, -1, -1)
    y[order] = x
    y[order[:1], 2:] += 1
    y[:, torch.tensor([True, False, True, False])] = 0
    return y


def same_zeros(x: Tensor) -> Tensor:
    a, b = torch.zeros(4), torch.zeros(4)
    a[1] = 1
    b[2] = 2
    return x[..., :4] * a + b


@pytest.mark.parametrize(
    "function",
    [
        an_input,
        kept_before,
        overlapping,
        changed_by_what_is_beside,
        kept_for_gradients,
        view_read_later,
        two_versions,
        through_views,
        expanded,
        by_rows,
        same_zeros,
    ],
)
def test_what_is_read_later_is_as_it_was(function: Function) -> None:
    assert "scatter" not in check(function)


class Ring(nn.Module):
    """A buffer that keeps the last rows."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = nn.Buffer(torch.zeros(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        self.ring[:-1] = self.ring[1:].clone()
        self.ring[-1] = x.mean((0, 1))
        return x + self.ring.mean(0)


def test_a_buffer_is_changed_at_the_end() -> None:
    torch.manual_seed(0)
    model, calls = Ring(), [Call.of(torch.randn(3, 4, 6)) for _ in range(3)]
    text, stage = staged(Ring(), torch.randn(3, 4, 6))
    stage.load_state_dict(model.state_dict())
    for expected, call in zip(run_model(model, calls), calls, strict=True):
        assert_same((expected,), stage(*call.args))
    assert [line for line in text.splitlines() if "ring" in line][-3:] == [
        "ring[-1] = x.mean([0, 1])",
        "total = x + ring.mean(0)",
        "self.ring.copy_(ring)",
    ]


def test_gradients_go_through_writes() -> None:
    model = Written(shifted)
    _, stage = staged(model, torch.randn(3, 4, 6))
    found, expected = (torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    for run, x in ((stage, found), (model, expected)):
        out = run(x.requires_grad_())
        (out[0] if isinstance(out, tuple) else out).sin().sum().backward()
    assert torch.equal(found.grad, expected.grad)  # type: ignore[arg-type]
