"""Loops over a size that may change, recorded as scans of any length where a scan computes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ir.capture import capture
from ir.errors import CaptureError
from ir.graph import Call, Graph
from ir.operators.higher_order import higher_order_of, is_higher_order
from tests.support.checking import Call as Inputs
from tests.support.checking import assert_same, run_graph, run_model
from tests.support.models.functions import Function
from tests.support.models.model_cases import X
from tests.support.models.written import WIDTH, hidden

pytestmark = pytest.mark.slow


def scans(graph: Graph) -> list[Call]:
    return [n for n in graph.nodes if isinstance(n, Call) and is_higher_order(n) and higher_order_of(n).name == "scan"]


def agrees(model: nn.Module, graph: Graph, lengths: tuple[int, ...] = (1, 2, 3, 4, 9)) -> None:
    """The graph returns what the model does, bit for bit."""
    calls = [Inputs.of(torch.randn(batch, length, WIDTH)) for batch in (1, 3) for length in lengths]
    assert_same([*run_model(model, calls)], [*run_graph(graph, calls, model.state_dict())])


def joined(x: Tensor) -> Tensor:
    """A recurrence whose results are in a list."""
    state, outputs = x.new_zeros(x.shape[0], WIDTH), []
    for t in range(x.shape[1]):
        state = torch.sigmoid(x[:, t]) * state + x[:, t, :]
        outputs.append(torch.tanh(state))
    return torch.stack(outputs, dim=-1)


def filled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two states, one of which replaces the other, and results in a tensor that only its dtype is read of."""
    high, scale = torch.zeros_like(x[:, 0]) - 1e9, x.mean()
    total = torch.zeros_like(high)
    y = torch.zeros_like(x)
    for t in range(x.shape[1]):
        item = x[:, t].float()
        higher = torch.maximum(high, item * scale)
        total = total * torch.exp(high - higher) + torch.exp(item - higher)
        y[:, t] = total.to(y.dtype)
        high = higher
    return y, high


def half_filled(x: Tensor) -> Tensor:
    """The second half of a tensor that something else reads is filled."""
    y = torch.ones(x.shape[0], 2, x.shape[1], WIDTH)
    second = y[:, 1]
    state = x[..., 0, :]
    for t in range(x.shape[1]):
        state = state + x[..., t, :]
        second[:, t] = state
    return y


def of_two(x: Tensor) -> Tensor:
    """Two loops, one in the other's code, over a number of heads and over a size."""
    for head in range(2):
        state = x[:, 0] * head
        for t in range(x.shape[1]):
            state = torch.cos(state) + x[:, t]
        x = x + state[:, None]
    return x


def reads_the_last(x: Tensor) -> Tensor:
    """What the last turn made is read behind the loop."""
    state = item = x[:, 0]
    for t in range(x.shape[1]):
        item = torch.cos(x[:, t])
        state = state + item
    return state + item.sum()


def read_elsewhere(x: Tensor) -> Tensor:
    """What the last turn made is read by a function that is defined above the loop, and behind a `try`."""
    item = other = state = x[:, 0] * 1

    def last() -> Tensor:
        return item

    try:
        for t in range(x.shape[1]):
            item = torch.cos(x[:, t])
            other = torch.sin(item)
            state = state + item
    finally:
        state = state + other
    return state * last()


def scaled(scale: float) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        state = x[:, 0]
        for t in range(x.shape[1]):
            state = torch.sin(state) * scale + x[:, t]
        return state

    return run


twice = scaled(2.0)


@pytest.mark.parametrize("compute", [joined, filled, half_filled, of_two, reads_the_last, read_elsewhere])
def test_a_recurrence_takes_any_length(compute: Callable[[Tensor], Tensor]) -> None:
    model = Function(compute)
    graph = capture(model, (hidden(),), dynamic_shapes=X)
    assert scans(graph)
    assert not graph.notes
    agrees(model, graph)


def test_functions_of_one_code_are_scans_each() -> None:
    thrice = scaled(3.0)
    model = Function(lambda x: twice(x) + thrice(x))
    graph = capture(model, (hidden(),), dynamic_shapes=X)
    assert len(scans(graph)) == 2
    agrees(model, graph)


def test_a_loop_of_no_turns_at_1_takes_2_or_more() -> None:
    graph = capture(Function(but_one), (hidden(),), dynamic_shapes=X)
    [note] = graph.notes
    assert note.startswith("`seq` must be 2 or more: where it is 1 the model computes something else")
    agrees(Function(but_one), graph, (2, 3, 9))


def but_one(x: Tensor) -> Tensor:
    state = x[:, 0]
    for t in range(x.shape[1] - 1):
        state = torch.sin(state) + x[:, t]
    return state


class Recurrent(nn.Module):
    """A layer of a recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        gate, state, outputs = torch.sigmoid(self.gate(x)), x[:, 0], []
        for t in range(x.shape[1]):
            state = gate[:, t] * state + x[:, t]
            outputs.append(state)
        return x + torch.stack(outputs, 1)


def test_layers_of_recurrences_are_recorded_once_a_kind() -> None:
    model = nn.Sequential(*(Recurrent() for _ in range(5)))
    graph = capture(model, (hidden(),), dynamic_shapes={"input": X["x"]})
    assert len({str(scan.args[2]) for scan in scans(graph)}) == 1
    assert len(scans(graph)) == 5
    assert not graph.notes
    agrees(model, graph)


CHUNK = 4


def chunked(x: Tensor) -> Tensor:
    """A recurrence over chunks of what is padded to a multiple of these."""
    batch, seq, width = x.shape
    padded = nn.functional.pad(x, (0, 0, 0, (CHUNK - seq % CHUNK) % CHUNK))
    count = padded.shape[1] // CHUNK
    chunks = padded.reshape(batch, -1, CHUNK, width).transpose(1, 2)
    state, y = x.new_zeros(batch, width, width), torch.zeros_like(chunks)
    for i in range(count):
        y[:, :, i] = chunks[:, :, i] @ state
        state = state * 0.5 + chunks[:, :, i].transpose(-1, -2) @ chunks[:, :, i]
    return y.transpose(1, 2).reshape(batch, -1, width)[:, :seq]


@pytest.mark.parametrize("seq", [3, 4, 6, 8])
def test_a_recurrence_over_chunks_takes_any_length_from_any_example(seq: int) -> None:
    model = Function(chunked)
    graph = capture(model, (torch.randn(2, seq, WIDTH),), dynamic_shapes=X)
    assert not graph.guards
    assert graph.hints[next(s for s in graph.hints if str(s) == "seq")] == seq
    agrees(model, graph, (1, 3, 4, 5, 8, 11))


def ends_early(x: Tensor) -> Tensor:
    state = x[:, 0]
    for t in range(x.shape[1]):
        if t == 2:
            break
        state = state + x[:, t]
    return state


def counts(x: Tensor) -> Tensor:
    state = x[:, 0]
    for t in range(x.shape[1]):
        state = state * t + x[:, t]
    return state


def looks_back(x: Tensor) -> Tensor:
    outputs = [x[:, 0]]
    for t in range(x.shape[1]):
        outputs.append(outputs[-1] * 0.5 + x[:, t])
    return torch.stack(outputs, 1)


def overwrites(x: Tensor) -> Tensor:
    y, state = x.clone(), x[:, 0]
    z = y.transpose(0, 1)
    for t in range(x.shape[1]):
        state = state + z[t]
        y[:, t] = state
    return y


COUNTED = list[int]()


def _times_counted(x: Tensor) -> Tensor:
    COUNTED.append(1)
    return x * len(COUNTED)


def counts_elsewhere(x: Tensor) -> Tensor:
    """Each turn is another for what a function that it calls keeps."""
    COUNTED.clear()
    state = x[:, 0]
    for t in range(x.shape[1]):
        state = _times_counted(state) * 0.1 + x[:, t]
    return state


def changes_type(x: Tensor) -> Tensor:
    state = x[:, 0, :1]
    for t in range(x.shape[1]):
        state = torch.cat([state, x[:, t, :1]], -1)
    return state


def knows_its_length(x: Tensor) -> Tensor:
    state, outputs = x[:, 0], []
    for t in range(x.shape[1]):
        state = state + x[:, t]
        outputs.append(state)
    return torch.stack(outputs, 1).sum(1) / len(outputs)


def has_two_names(x: Tensor) -> Tensor:
    outputs = others = []
    state = x[:, 0]
    for t in range(x.shape[1]):
        state = torch.sin(state) + x[:, t]
        outputs.append(state)
        others.append(state * 2)
    return torch.cat([torch.stack(outputs, 1), torch.stack(others, 1)], 1)


def changed_behind(x: Tensor) -> Tensor:
    state, outputs = x[:, 0], []
    for t in range(x.shape[1]):
        state = state + x[:, t]
        outputs.append(state)
    state += 1  # and so the last of the list
    return torch.stack(outputs, 1)


def changed_by_another_name(x: Tensor) -> Tensor:
    state, outputs = x[:, 0], []
    for t in range(x.shape[1]):
        state = state + x[:, t]
        outputs.append(state)
    last = state
    last.mul_(2)
    return torch.stack(outputs, 1)


def fills_twice(x: Tensor) -> Tensor:
    y, state = x.new_zeros(x.shape[0], x.shape[1] + 1, WIDTH), x[:, 0]
    behind = y[:, 1:]
    for t in range(x.shape[1]):
        state = state + x[:, t]
        y[:, t] = state  # over what the turn before has written
        behind[:, t] = state * 2
    return y


def changes_items(x: Tensor) -> Tensor:
    y = x * 2
    state = y[:, 0]
    for t in range(x.shape[1]):
        state = state.add_(y[:, t])
    return y + state[:, None]


def makes_the_loop(x: Tensor) -> Tensor:
    def run(y: Tensor) -> Tensor:
        state = y[:, 0]
        for t in range(y.shape[1]):
            state = torch.sin(state) + y[:, t]
        return state

    return run(x)


@pytest.mark.parametrize(
    "compute",
    [
        *(
            ends_early,
            counts,
            looks_back,
            counts_elsewhere,
            overwrites,
            changes_type,
            knows_its_length,
            has_two_names,
            changed_behind,
        ),
        *(changed_by_another_name, fills_twice, changes_items, makes_the_loop),
    ],
)
def test_other_loops_stay_as_they_are(compute: Callable[[Tensor], Tensor]) -> None:
    """Their size is that of the example."""
    model = Function(compute)
    with pytest.raises(CaptureError, match="cannot be dynamic"):
        capture(model, (hidden(),), dynamic_shapes=X)
    graph = capture(model, (hidden(),), dynamic_shapes={"x": {0: "batch"}})
    assert not scans(graph)
    agrees(model, graph, (hidden().shape[1],))


def test_a_model_is_as_before_afterwards() -> None:
    code = joined.__code__
    capture(Function(joined), (hidden(),), dynamic_shapes=X)
    assert joined.__code__ is code
    assert "__scan_of_turns" not in joined.__globals__
