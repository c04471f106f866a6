"""A graph, run node by node."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sympy
import torch

from ir.analysis.arguments import as_number
from ir.analysis.interpret import interpret, lookup
from ir.graph import THIS_DEVICE, Call, Constant, State, Transfer
from tests.support.models.graphs import add, aten, graph, linear, param, relu, state, typed, value

batch, seq = (sympy.Symbol(name, integer=True, positive=True) for name in ("batch", "seq"))
X = torch.tensor([[1.0, -2.0, 3.0, -4.0]] * 2)
x = value("x")


def test_a_chain_with_a_weight() -> None:
    weight = param("w")
    first = relu(x, "a")
    second = linear(first.results[0], weight, "b")
    w = torch.randn(4, 4)
    [b] = interpret(graph([x], [first, second], second.results), [X], {"w": w}).outputs
    assert torch.equal(b, X.relu() @ w.T)


def test_a_transfer_is_the_identity() -> None:
    moved = Transfer(value=x, src=0, stage=1, results=(value("x_on1"),))
    last = relu(moved.results[0], "a", stage=1)
    assert torch.equal(interpret(graph([x], [moved, last], last.results), [X], {}).outputs[0], X.relu())


def test_several_results_one_of_them_unread() -> None:
    halves = value("low", 2, 2), value("high", 2, 2)
    split = Call(op=aten.split.Tensor, args=(x, 2, -1), results=halves)
    [high] = interpret(graph([x], [split], [halves[1]]), [X], {}).outputs
    assert torch.equal(high, X[:, 2:])


def test_a_value_that_is_read_later_is_kept_until_then() -> None:
    first = relu(x, "a")
    second = relu(first.results[0], "b")
    third = add(first.results[0], second.results[0], "c")
    [c] = interpret(graph([x], [first, second, third], third.results), [X], {}).outputs
    assert torch.equal(c, 2 * X.relu())


def test_sizes_and_the_device_among_the_arguments() -> None:
    ids = value("ids", batch, seq)
    made = Call(
        op=aten.full.default, args=([batch, 2 * seq], seq / 2), kwargs={"device": THIS_DEVICE}, results=(value("m"),)
    )
    [m] = interpret(graph([ids], [made], made.results), [torch.zeros(3, 5)], {}).outputs
    assert torch.equal(m, torch.full((3, 10), 2.5))


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (batch * seq + 1, 13),
        (sympy.floor(seq / 3), 1),
        (batch / seq, 0.75),
        (sympy.Mod(seq, 3), 1),
        (sympy.Max(batch, seq), 4),
        (seq > batch, True),
        (sympy.Eq(seq, batch), False),
    ],
)
def test_a_size_becomes_a_python_number(expr: sympy.Basic, expected: float) -> None:
    found = as_number(expr, {batch: 3, seq: 4})
    assert (type(found), found) == (type(expected), expected)


def stateful() -> tuple[State, Call]:
    count = state("count")
    return count, add(x, count, "y")


def test_state_starts_with_its_first_value_and_goes_on_from_the_last() -> None:
    count, node = stateful()
    counting = graph([x], [node], node.results, updates=((count, node.results[0]),))
    first = interpret(counting, [X], {})
    second = interpret(counting, [X], {}, first.state)
    assert torch.equal(first.outputs[0], X)
    assert torch.equal(second.outputs[0], 2 * X)
    assert set(second.state) == {"count"}


def test_the_first_state_may_be_in_the_checkpoint() -> None:
    count, _ = stateful()
    count = replace(count, data=None)
    node = add(x, count, "y")
    counting = graph([x], [node], node.results, updates=((count, node.results[0]),))
    assert torch.equal(interpret(counting, [X], {"count": X}).outputs[0], 2 * X)


def test_a_constant_brings_its_value() -> None:
    table = Constant("table", typed(2, 4), "table", torch.ones(2, 4))
    node = add(x, table, "y")
    assert torch.equal(interpret(graph([x], [node], node.results), [X], {}).outputs[0], X + 1)


def test_a_tied_weight_is_found_by_any_name() -> None:
    assert lookup({"b": torch.ones(1)}, ("a", "b")) == 1
    with pytest.raises(KeyError, match="a"):
        lookup({"c": torch.ones(1)}, ("a", "b"))


def test_no_gradients_are_recorded() -> None:
    node = relu(x, "a")
    [a] = interpret(graph([x], [node], node.results), [X.clone().requires_grad_()], {}).outputs
    assert not a.requires_grad
