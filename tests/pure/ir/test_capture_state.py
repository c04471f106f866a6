"""What forward changes, on the module and in its arguments: state where stages can keep it, else a message."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.export.graph_signature import OutputKind

from ir.capture import capture
from ir.capture.program.reader import read_program
from ir.errors import InternalError
from tests.support.checking import Call, run_graph, run_model

WIDTH = 4


def hidden(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, WIDTH)


class Changes(nn.Module):
    """A model whose forward is one function of itself and its input."""

    def __init__(self, compute: Callable[..., torch.Tensor], **attributes: Any) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.table = nn.Embedding(8, WIDTH, max_norm=0.5)
        self.compute = compute
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(self, x)


def check_calls(model: nn.Module, *rows: int) -> list[str]:
    """The graph returns what the model does, call after call; the names of its states."""
    calls = [Call.of(hidden(n)) for n in rows or (3, 3, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = capture(model, calls[0].args, dynamic_shapes={"x": {0: "batch"}})
    weights = {fqn: t.clone() for fqn, t in model.state_dict().items()}
    for want, got in zip(run_model(deepcopy(model), calls), run_graph(graph, calls, weights), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    return [state.fqns[0] for state in graph.states]


def unit(model: Changes, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        model.w.div_(model.w.norm(dim=1, keepdim=True) + 0.5)
    return x @ model.w


def clamped(model: Changes, x: torch.Tensor) -> torch.Tensor:
    model.w.data.mul_(1.5).clamp_(-0.5, 0.5)
    return x @ model.w


def clipped(model: Changes, x: torch.Tensor) -> torch.Tensor:
    model.w.data = (model.w.data * 1.5).clamp(-0.5, 0.5)
    return x @ model.w


def first_row(model: Changes, x: torch.Tensor) -> torch.Tensor:
    model.w.data[0] += 1
    return x @ model.w


@pytest.mark.parametrize("compute", [unit, clamped, clipped, first_row])
def test_a_parameter_that_forward_changes_is_state(compute: Any) -> None:
    model = Changes(compute)
    before = model.w.detach().clone()
    assert check_calls(model) == ["w"]
    assert torch.equal(model.w, before)


def test_an_embedding_that_renormalises_its_weights_is_state() -> None:
    assert check_calls(Changes(lambda model, x: model.table(torch.arange(2)).sum() + x)) == ["table.weight"]


def test_an_output_of_an_unknown_kind_is_a_fault_of_ours() -> None:
    exported = torch.export.export(nn.ReLU(), (torch.ones(2),))
    exported.graph_signature.output_specs[0].kind = OutputKind.GRADIENT_TO_PARAMETER
    sizes = SimpleNamespace(hints={}, ranges={}, guards=(), read=lambda value: value)
    signature = capture(nn.ReLU(), (torch.ones(2),)).signature
    with pytest.raises(InternalError, match=r"torch\.export returns a gradient_to_parameter"):
        read_program(exported, nn.ReLU(), signature, cast("Any", sizes))


def collect(model: Changes, x: torch.Tensor, found: Any) -> torch.Tensor:
    found.append(x * 2)
    return x + 1


def register(model: Changes, x: torch.Tensor, found: Any) -> torch.Tensor:
    found["x"] = x * 2
    return x + 1


class Given(Changes):
    def forward(self, x: torch.Tensor, found: Any) -> torch.Tensor:  # type: ignore[override]
        return self.compute(self, x, found)


@pytest.mark.parametrize(("compute", "found"), [(collect, []), (register, {}), (register, {"x": torch.ones(1)})])
def test_a_list_or_dict_that_forward_changes_is_warned_of_at_the_users_line(compute: Any, found: Any) -> None:
    with pytest.warns(UserWarning, match="the model changes its input found in place; stages do not") as caught:
        capture(Given(compute), (hidden(), found))
    assert [Path(w.filename).name for w in caught] == [Path(__file__).name]


def test_a_dict_that_is_read_alone_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(Given(lambda model, x, found: x + found["y"]), (hidden(), {"y": torch.ones(1)}))


def test_a_tensor_that_forward_changes_is_called_as_the_user_calls_it() -> None:
    with pytest.warns(UserWarning, match=r"the model changes its input found\.y in place; stages do not"):
        capture(Given(lambda model, x, found: found["y"].add_(x)), (hidden(), {"y": torch.ones(3, WIDTH)}))
