"""Hooks on gradients: no stage has them, and a note says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import graph
from torch.utils.checkpoint import checkpoint

from ir.capture import capture


class Layer(nn.Module):
    def __init__(self, between: Callable[[nn.Module, torch.Tensor], Any] = lambda layer, h: h) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        self.between(self, h)
        return self.second(h)


def notes(between: Callable[[nn.Module, torch.Tensor], Any]) -> tuple[str, ...]:
    return capture(Layer(between).eval(), (torch.randn(2, 4),)).notes


def where_there_is_a_gradient(layer: nn.Module, h: torch.Tensor) -> None:
    if h.requires_grad:
        h.register_hook(lambda gradient: gradient * 2)


def packed(layer: nn.Module, h: torch.Tensor) -> None:
    with graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        h.relu()


@pytest.mark.parametrize(
    ("between", "name"),
    [
        (lambda layer, h: h.register_hook(print), "register_hook"),
        (lambda layer, h: layer.first.weight.register_hook(print), "register_hook"),
        (lambda layer, h: h.retain_grad(), "retain_grad"),
        (lambda layer, h: layer.second.register_full_backward_hook(print), "register_full_backward_hook"),
        (lambda layer, h: graph.register_multi_grad_hook([h], print), "register_multi_grad_hook"),
        (where_there_is_a_gradient, "register_hook"),
        (packed, "saved_tensors_hooks"),
    ],
)
def test_a_hook_that_forward_registers_is_noted_once(between: Any, name: str) -> None:
    [note] = notes(between)
    assert note.startswith(f"forward calls {name}() at ")
    assert note.endswith(", which acts on gradients: those of the stages are without it")


def test_hooks_of_torch_itself_are_not_noted() -> None:
    assert notes(lambda layer, h: checkpoint(torch.relu, h, use_reentrant=False)) == ()


def test_hooks_that_a_model_has_already_are_noted() -> None:
    layer = Layer()
    layer.second.register_full_backward_hook(lambda *_: None)
    layer.first.weight.register_hook(lambda gradient: gradient)
    said = capture(layer.eval(), (torch.randn(2, 4),)).notes
    assert said == ("second and 1 more: hooks on gradients are there; those of the stages are without them",)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda: torch.is_grad_enabled(), "is_grad_enabled() at tests/.*: stages compute .* without gradients"),
        (lambda: torch.get_num_threads(), "get_num_threads() at tests/.* with as many threads as torch has here"),
    ],
)
def test_a_question_about_the_ambient_state_is_noted(ask: Callable[[], object], answer: str) -> None:
    [note] = notes(lambda layer, h: ask())
    assert re.search(answer.replace("()", r"\(\)"), note)
