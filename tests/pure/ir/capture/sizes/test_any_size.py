"""Operators over sizes that may change where torch's own export fixes them: recurrent layers, linspace and its like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ir.capture import capture
from tests.support.checking import Call, assert_same, run_graph, run_model
from tests.support.models.functions import Function
from tests.support.models.model_cases import X
from tests.support.models.written import WIDTH, hidden


def agrees(model: nn.Module, *shapes: tuple[int, int], name: str = "x") -> None:
    """The graph has no note, and returns what the model does at other sizes, bit for bit."""
    graph = capture(model.eval(), (hidden(),), dynamic_shapes={name: X["x"]})
    assert [str(symbol) for symbol in graph.hints] == ["batch", "seq"]
    assert graph.notes == ()
    calls = [Call.of(torch.randn(*shape, WIDTH)) for shape in shapes]
    weights = dict(model.named_parameters())  # torch has a kernel of its own for those that take no gradients
    assert_same([*run_model(model, calls)], [*run_graph(graph, calls, weights)])


LAYERS = {
    "LSTM": lambda: nn.LSTM(WIDTH, 6, 2, batch_first=True, bidirectional=True),
    "LSTM of projections": lambda: nn.LSTM(WIDTH, 6, proj_size=4),
    "GRU": lambda: nn.GRU(WIDTH, 6, batch_first=True),
    "RNN": lambda: nn.RNN(WIDTH, 6, 2, nonlinearity="relu", bias=False),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", LAYERS)
def test_a_recurrent_layer_takes_any_number_of_steps(name: str) -> None:
    agrees(LAYERS[name](), (2, 4), (3, 7), (1, 1), name="input")


def heard(x: Tensor, **how: Any) -> Tensor:
    """Sound, as it is heard again from its spectrum."""
    window = torch.hann_window(8)
    sound = x.flatten(1).repeat(1, 4)
    return torch.istft(torch.stft(sound, 8, 2, window=window, return_complex=True), 8, 2, window=window, **how)


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "linspace": lambda x: x + torch.linspace(0.5, x.shape[1] - 0.5, x.shape[1])[:, None],
    "logspace": lambda x: x * torch.logspace(-1, 1, steps=x.shape[1], dtype=x.dtype, device=x.device)[:, None],
    "tril_indices": lambda x: [torch.tril_indices(x.shape[1], x.shape[1] + 1, k) for k in (-1, 0, 2)],
    "triu_indices": lambda x: [torch.triu_indices(x.shape[1] + 1, x.shape[1], k) for k in (-1, 0, 2)],
    "fftfreq": lambda x: torch.fft.fftfreq(x.shape[1], 1 / x.shape[1]),
    "rfftfreq": lambda x: torch.fft.rfft(x, dim=1) * torch.fft.rfftfreq(x.shape[1])[:, None],
    "one_hot": lambda x: F.one_hot(x.argmax(1), x.shape[1]),
    "istft": lambda x: heard(x, length=4 * WIDTH * x.shape[1] - 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operator_that_takes_sizes_as_ints_takes_any(name: str) -> None:
    agrees(Function(FUNCTIONS[name]), (2, 4), (3, 7), (2, 2))


def test_an_operator_over_ints_alone_is_recorded_as_it_is() -> None:
    agrees(Function(lambda x: x + torch.linspace(0, 1, steps=WIDTH)), (2, 4), (3, 5))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_may_be_alone_and_hold_a_single_index(mode: str) -> None:
    """Results that nobody reads, as the bag of each index, have shapes of their own."""
    model = nn.EmbeddingBag(9, WIDTH, mode=mode).eval()
    sizes = {"input": {0: "indices"}, "offsets": {0: "bags"}}
    graph = capture(model, (torch.arange(6), torch.tensor([0, 2, 5])), dynamic_shapes=sizes)
    assert graph.notes == ()
    calls = [Call.of(torch.tensor([3]), torch.tensor([0])), Call.of(torch.arange(8), torch.tensor([0, 0]))]
    assert_same([*run_model(model, calls)], [*run_graph(graph, calls, dict(model.named_parameters()))])
