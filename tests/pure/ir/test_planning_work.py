"""Work that planning leaves out, as it takes long and makes no difference."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ir.capture.repeats.template import Template
from ir.sources.meta import parameters_on_meta
from tests.support.models.repeats import exported

LAYERS = 8


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x).relu()


def test_a_template_takes_no_search_of_all_objects_and_no_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    made, misses, of = list[Template](), list[int](), Template.of

    def counted(*args: Any) -> Template:
        before = FakeTensorMode.cache_info().misses
        made.append(of(*args))
        misses.append(FakeTensorMode.cache_info().misses - before)
        return made[-1]

    monkeypatch.setattr(Template, "of", counted)
    monkeypatch.setattr(gc, "get_referrers", None)
    stack = nn.Sequential(*(Layer() for _ in range(LAYERS)))
    assert exported(stack, (torch.randn(3, 4),), fewest=4).left_out == LAYERS - 2
    assert misses == [0] * len(made) != []


def test_parameters_on_meta_are_filled_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "normal_", lambda tensor, *_, **__: filled.append(tensor))
    with parameters_on_meta():
        model, own = nn.Linear(2, 2), torch.zeros(2)
        for tensor in (model.weight, own):
            nn.init.normal_(tensor)
        nn.init.ones_(own)
    assert [t is own for t in filled] == [True]
    assert torch.equal(own, torch.ones(2))
