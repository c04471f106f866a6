"""Models, inputs and results that capture refuses or warns of."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ir.capture import capture
from ir.errors import CaptureError
from tests.support.models.functions import Function, function
from tests.support.models.written import WIDTH, hidden


class Inner(Function):
    """Puts the code two modules deep, and in this file."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.compute(x)


def deep(compute: Callable[[torch.Tensor], Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.ReLU(), Inner(compute)))


REFUSED: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "a branch on values": (lambda x: x if x.sum() > 0 else -x, "use torch.where, or decide from shapes alone"),
    "a size that depends on values": (lambda x: x[x > 0], "a mask of fixed size in place of indexing by nonzero"),
    "numpy": (lambda x: x * float(x.numpy().sum()), "the code leaves torch for numpy; write it with torch operators"),
    "numpy as a result": (lambda x: x.numpy(), "the code leaves torch for numpy; write it with torch operators"),
    "an error of its own": (lambda x: x @ x, "called with its example inputs, it raises RuntimeError: Expected size"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_is_refused(what: str) -> None:
    compute, advice = REFUSED[what]
    with pytest.raises(CaptureError, match=re.escape(advice)) as raised:
        capture(deep(compute), (hidden(),))
    assert "1.1 (tests/pure/ir/capture/test_capture_refusals.py:" in str(raised.value)


class Ring(nn.Module):
    """Writes to a place that a buffer says, which torch refuses while it traces copies of the modules."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ring", torch.zeros(4, WIDTH))
        self.register_buffer("place", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> Any:
        self.ring[self.place % 4] += x[0, 0]
        self.place += 1
        return x + self.ring.sum(0)


def test_a_line_that_fails_as_operators_are_recorded_is_named() -> None:
    with pytest.raises(CaptureError, match=r"\n  in 0 \(tests/.*\): self.ring\[self.place % 4\] \+= x\[0, 0\]\n"):
        capture(nn.Sequential(Ring()), (hidden(),))


@pytest.mark.parametrize(
    ("args", "dynamic", "message"),
    [
        ((), None, "the example inputs do not fit Function.forward(x): missing a required argument: 'x'"),
        ((1, 2), None, "the example inputs do not fit Function.forward(x): too many positional arguments"),
        (
            (hidden(),),
            {"y": {0: "batch"}},
            "dynamic shapes name `y`, which is no argument of the model; it takes ['x']",
        ),
        ((hidden(),), {"x": {3: "batch"}}, "dynamic dimension 3 of `x`: it has 3 dimensions"),
        ((hidden(),), {"x": {-4: "batch"}}, "dynamic dimension -4 of `x`: it has 3 dimensions"),
    ],
)
def test_inputs_that_do_not_fit(args: tuple[Any, ...], dynamic: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(message)):
        capture(Function(torch.relu), args, dynamic_shapes=dynamic)


def test_weights_and_inputs_that_are_sparse() -> None:
    model, sparse = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)), torch.eye(WIDTH).to_sparse()
    with pytest.raises(CaptureError, match=r"the example input `input` is a sparse tensor \(sparse_.*pass a dense"):
        capture(model, (sparse,))
    model[1].weight = nn.Parameter(sparse, requires_grad=False)
    with pytest.raises(CaptureError, match=r"1.weight is a sparse tensor \(sparse_.*make it dense first"):
        capture(model, (hidden(),))


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout()), "the module `1`, a Dropout, is"),
        (
            nn.Sequential(nn.Dropout(), nn.Linear(WIDTH, WIDTH), nn.Dropout()),
            "the module `0`, a Dropout, and 1 other are",
        ),
        (nn.Dropout(), "the model, a Dropout, is"),
    ],
)
def test_dropout_that_is_on_is_warned_of(model: nn.Module, named: str) -> None:
    with pytest.warns(UserWarning, match=rf"{named} in training mode; call model.eval\(\) first"):
        capture(model.train(), (hidden(),))


def test_training_mode_that_changes_nothing_is_not_warned_of() -> None:
    model = nn.Sequential(nn.Dropout(0), nn.InstanceNorm1d(4), nn.LSTM(WIDTH, WIDTH)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(model, (hidden(),))


def test_weights_of_an_lstm_that_is_not_run_are_not_said_to_change() -> None:
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("error")
        capture(nn.LSTM(WIDTH, WIDTH), (torch.zeros(2, 3, WIDTH, device="cpu"),))


def test_an_example_without_any_rows_is_refused() -> None:
    with pytest.raises(CaptureError, match="`batch` is 0 in the example `input`; give an example of the usual size"):
        capture(nn.ReLU(), (torch.zeros(0, WIDTH),), dynamic_shapes={"input": {0: "batch"}})


def test_a_changed_input_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="the model changes its input .* in place; stages do not"):
        function(lambda x: x.add_(1))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda x: (x + 1, x.sum().item()), "the model returns a number that values decide"),
        (lambda x: (y for y in [x + 1]), "Function returns no tensor (generator), so there is nothing to cut"),
        (lambda x: None, "Function returns no tensor (NoneType), so there is nothing to cut"),
        (lambda x: x.to_sparse(), "UnsupportedOperatorException: aten._to_sparse.default"),
    ],
)
def test_results_that_are_refused(compute: Callable[[torch.Tensor], Any], message: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(message)) as raised:
        function(compute)
    assert not re.search(r"\b(zu|u|s|zuf)\d+\b", str(raised.value))


def test_values_that_decide_may_be_fixed_by_name() -> None:
    def shortened(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return x if lengths.sum() > 3 else -x

    class Shortened(nn.Module):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return shortened(x, lengths)

    many = torch.ones(1024, dtype=torch.int64)  # more than are fixed without being asked
    with pytest.raises(CaptureError, match="or fix the values of `lengths` at those of the example: --fix lengths"):
        capture(Shortened(), (hidden(), many))
