"""--verify: calls in a row, with other values and sizes, beside those of the uncut model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from ir.errors import CaptureError, StateError, VerifyError
from passes import compile_model


class Model(nn.Module):
    def __init__(self, last: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(2)))
        self.last = last
        self.calls, self.mean = 0, torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self, self.layers(x))


def mean(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.mean = 0.9 * model.mean + 0.1 * x.mean(0)
    return x - model.mean


def counter(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.calls += 1
    return x * model.calls


SEEN = {"calls": 0}


def outside(model: Model, x: torch.Tensor) -> torch.Tensor:
    SEEN["calls"] += 1
    return x * SEEN["calls"]


def cycles(model: Model, x: torch.Tensor) -> torch.Tensor:
    return x * next(NUMBERS)


NUMBERS = count()


def asks(model: Model, x: torch.Tensor) -> torch.Tensor:
    return x if isinstance(x, FakeTensor) else x / 2


def by_batch(model: Model, x: torch.Tensor) -> torch.Tensor:
    return x / x.shape[0] if not torch.compiler.is_compiling() else x / 2


def seeds(model: Model, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    return x + torch.randn(4)


def rewinds(model: Model, x: torch.Tensor) -> torch.Tensor:
    with torch.random.fork_rng([]):
        return x + torch.randn(4)


def hooks(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.layers[0].register_forward_hook(lambda module, given, made: made * 2)
    return model.layers(x)


def hooked(model: Model, x: torch.Tensor) -> torch.Tensor:
    x.register_hook(lambda gradient: gradient * 2)
    return x


def verified(last: Any, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    model = Model(last).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compile_model(model, (torch.randn(2, 4),), out=out, stages=2, dynamic_shapes={"x": {0: "n"}}, verify=True)
    assert model.calls == 0
    assert not model.mean.any()
    return capsys.readouterr().err


def test_state_in_an_attribute_is_verified_call_after_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = verified(mean, tmp_path / "out", capsys)
    assert "verify: the stages return what the uncut model returns, bit for bit, in 3 calls" in said


KEPT = r"the example again by at most .*: the model keeps calls from call to call, the stages do not"


@pytest.mark.parametrize(
    ("last", "error", "when"),
    [
        (counter, StateError, KEPT),
        (outside, StateError, KEPT.replace("calls from", r"SEEN\['calls'\] from")),
        (hooks, StateError, KEPT.replace("calls from", r"layers.0._forward_hooks from")),
        (
            rewinds,
            StateError,
            "the example again by at most .*: the model draws random numbers that it seeds itself, or",
        ),
        (by_batch, VerifyError, "other values of the example's kind by"),
    ],
)
def test_a_later_call_that_differs_is_found(
    last: Any, error: type[Exception], when: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match=f"output 0 of the stages differs from the model's, called with {when}"):
        verified(last, tmp_path / "out", capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("last", "error", "message"),
    [
        (cycles, StateError, "the model returns something else when it is called again with the same inputs"),
        (seeds, StateError, "output 0 .*: the model draws random numbers that it seeds itself, or sets torch's back"),
        (asks, CaptureError, "output 0 .* while it is exported, forward computes something else"),
    ],
)
def test_a_first_call_that_differs_is_explained(
    last: Any, error: type[Exception], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match=message):
        verified(last, tmp_path / "out", capsys)


def test_a_hook_on_a_gradient_that_forward_registers_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = verified(hooked, tmp_path / "out", capsys)
    assert "note: forward calls register_hook() at " in said
    assert "bit for bit, in 3 calls" in said


def in_place(model: Model, x: torch.Tensor) -> torch.Tensor:
    return x.mul_(2) + 1


def test_a_call_that_changes_its_input_is_made_again_with_what_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model(in_place).eval()
    model.layers = nn.Sequential()
    with pytest.warns(UserWarning, match="the model changes its input x in place"):
        compile_model(model, (torch.randn(2, 4),), out=tmp_path / "out", stages=1, verify=True)
    assert "bit for bit, in 3 calls" in capsys.readouterr().err


class Dtypes(nn.Module):
    """Takes and returns dtypes for which torch has few operators."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.register_buffer("scale", torch.ones(4).to(torch.float8_e4m3fn))

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.layers(x.float() + ids.long()) * self.scale.float()
        return y.to(torch.float8_e5m2), y.abs().to(torch.uint16), ids.clone()


def test_dtypes_of_few_operators_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = torch.randn(2, 4).to(torch.float8_e4m3fn), torch.tensor([[1], [2]], dtype=torch.uint32)
    sizes = {"x": {0: "n"}, "ids": {0: "n"}}
    compile_model(Dtypes().eval(), given, out=tmp_path / "out", stages=2, dynamic_shapes=sizes, verify=True)
    assert "bit for bit, in 3 calls" in capsys.readouterr().err
