"""Types are what the operators make of the inputs' types; views are known; sizes can be bound.

That types and views are those of a run is in tests/e2e/models/test_every_pass.py, over many models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from ir.analysis.bind import bind_sizes
from ir.capture import capture
from ir.errors import CompileError, VerifyError
from ir.graph import Call, Graph
from ir.text.printer import print_graph
from passes import propagate_shapes
from passes.annotate_cost import AnnotateCost
from passes.propagate_shapes import PropagateShapes
from tests.support import checking
from tests.support.checking import assert_same, run_graph, run_model
from tests.support.models.functions import function
from tests.support.models.graphs import aten, captured, graph, linear, param, relu, typed, value
from tests.support.models.model_cases import CASES
from tests.support.models.planning import machine

x = value("x")


def propagated(graph: Graph, **sizes: int) -> Graph:
    return PropagateShapes(sizes).run(graph, machine(1))


def test_a_type_that_its_operands_do_not_make() -> None:
    node = relu(x, "a")
    wrong = replace(node, results=(replace(node.results[0], type=typed(2, 5)),))
    message = "a was float32[2, 5], but its operands make it float32[2, 4]\n  at the model"
    with pytest.raises(VerifyError, match=re.escape(message)):
        propagated(graph([x], [wrong], wrong.results))


def test_a_dtype_that_its_operands_do_not_make() -> None:
    node = relu(x, "a")
    wrong = replace(node, results=(replace(node.results[0], type=typed(2, 4, dtype=torch.float64)),))
    with pytest.raises(VerifyError, match=r"a was float64\[2, 4\], but its operands make it float32\[2, 4\]"):
        propagated(graph([x], [wrong], wrong.results))


def test_what_nobody_reads_may_have_another_type() -> None:
    """torch's own rule for embedding_bag(include_last_offset=True) gives the bag sizes one element too few."""
    ids, offsets = value("ids", 12, dtype=torch.int64), value("offsets", 4, dtype=torch.int64)
    types = {"bags": typed(3, 4), "map": typed(12), "sizes": typed(3), "most": typed(3)}
    made = [
        replace(value(name), type=t if name == "bags" else replace(t, dtype=torch.int64)) for name, t in types.items()
    ]
    args = (param("w", shape=(30, 4)), ids, offsets, False, 1, False, None, True, None)
    node = Call(op=aten.embedding_bag.padding_idx, args=args, results=tuple(made))
    propagated(graph([ids, offsets], [node], made[:1]))
    with pytest.raises(VerifyError, match=r"sizes was int64\[3\], but its operands make it int64\[4\]"):
        propagated(graph([ids, offsets], [node], made))


def test_operands_that_an_operator_does_not_take() -> None:
    node = linear(x, param("w", shape=(3, 5)), "a")
    with pytest.raises(VerifyError, match=r"a = aten.linear.default does not take these types: "):
        propagated(graph([x], [node], node.results))


def test_equal_operators_on_equal_tensors_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types and strides are what counts: the third relu has other strides, of the same shape."""
    runs: list[tuple[int, ...]] = []
    rule = {aten.relu.default: lambda t: (runs.append(t.stride()), torch.relu(t))[1]}
    monkeypatch.setattr(propagate_shapes, "_RULES", rule)
    square = value("x", 3, 3)
    a = relu(square, "a")
    b = relu(a.results[0], "b")
    turn = Call(op=aten.t.default, args=b.results, results=(value("t", 3, 3),))
    c = relu(turn.results[0], "c")
    done = propagated(graph([square], [a, b, turn, c], c.results))
    assert runs == [(3, 1), (1, 3)]
    assert [n.view for n in done.nodes] == [False, False, True, False]


class Mapped(nn.Module):
    """Two layers that run the same function over weights of the same types."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.ones(3, 4, 4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            (doubled,) = torch.ops.higher_order.map_impl(lambda w: (w * 2,), (weight,), ())
            x = x @ doubled.sum(0)
        return x


def test_weights_of_a_type_are_one_tensor_and_equal_functions_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []
    empty = propagate_shapes._Run.empty
    monkeypatch.setattr(propagate_shapes._Run, "empty", lambda run, v: made.append(v.type.shape) or empty(run, v))
    propagated(capture(Mapped(), (torch.ones(4, 4),)))
    assert sorted(made, key=len) == [(4, 4), (4, 4), (3, 4, 4)]  # the input, what the function takes, and the weights


def test_elements_at_a_mask_are_as_many_as_stated() -> None:
    x, mask = value("x", 4, 2), value("mask", 4, dtype=torch.bool)
    chosen = Call(op=aten.index.Tensor, args=(x, [mask]), results=(value("chosen", 3, 2),))
    node = relu(chosen.results[0], "a")
    assert not any(n.view for n in propagated(graph([x, mask], [chosen, node], node.results)).nodes)


@pytest.mark.parametrize(
    ("op", "args", "shape", "view"),
    [
        (aten.view.default, [[8]], (8,), True),
        (aten.transpose.int, [0, 1], (4, 2), True),
        (aten.expand.default, [[3, 2, 4]], (3, 2, 4), True),
        (aten.select.int, [1, 0], (2,), True),
        (aten.reshape.default, [[8]], (8,), True),
        (aten.contiguous.default, [], (2, 4), True),
        (aten.clone.default, [], (2, 4), False),
        (aten.neg.default, [], (2, 4), False),
        (aten.index_select.default, [0, value("where", 5, dtype=torch.int64)], (5, 4), False),
    ],
)
def test_views(op: torch._ops.OpOverload, args: Sequence[object], shape: tuple[int, ...], view: bool) -> None:
    node = Call(op=op, args=(x, *args), results=(value("y", *shape),))
    [found] = propagated(graph(list(node.operands), [node], node.results)).nodes
    assert found.view == view


# ---- sizes that are bound


def test_a_bound_size_is_a_number_everywhere() -> None:
    graph = propagated(captured("a size in a later stage"), seq=6)
    assert "seq" not in print_graph(graph).replace("# seq", "")
    assert [str(s) for s in graph.hints] == ["batch"]
    assert [str(v.type) for v in graph.outputs] == ["float32[batch, 6, 8]"]


@pytest.mark.parametrize("name", ["a size in a later stage", "outputs that nothing computes", "running statistics"])
def test_a_graph_of_bound_sizes_computes_the_same(name: str) -> None:
    case = CASES[name]
    model = case.build()
    calls = [case.calls()[1]] * 2
    batch, seq = calls[0].args[0].shape[:2]
    bound = bind_sizes(captured(name), {"batch": batch, "seq": seq})
    weights = {fqn: tensor.clone() for fqn, tensor in model.state_dict().items()}
    for want, found in zip(run_model(model, calls), run_graph(bound, calls, weights), strict=True):
        assert_same(want, found)


def test_a_size_that_is_not_there() -> None:
    with pytest.raises(CompileError, match="no dynamic size is named 'width'; there are batch, seq"):
        bind_sizes(captured("long skips"), {"width": 3})
    with pytest.raises(CompileError, match="no dynamic size is named 'width'; there are none"):
        bind_sizes(graph([x], [relu(x, "a")], []), {"width": 3})


@pytest.mark.parametrize(("center", "samples"), [(True, 16), (False, 24)])
def test_sound_of_a_spectrum(center: bool, samples: int) -> None:
    """torch's own rule asks for the values of the window."""
    spectrum = torch.randn(2, 5, 9, dtype=torch.complex64)
    window = torch.ones(8)
    found = function(lambda x: torch.istft(x, 8, 2, window=window, center=center), spectrum, None)
    [*_, sound] = [v for n in propagated(found).nodes for v in n.results]
    assert sound.type == typed(2, samples)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_over_packed_sequences(layer: type[nn.RNNBase]) -> None:
    """torch's own rule asks for the values of the lengths; the rows of the sequences cannot be told apart."""
    model = layer(4, 3, bidirectional=True).eval()  # type: ignore[call-arg]
    packed = pack_padded_sequence(torch.randn(5, 2, 4), torch.tensor([5, 3]))
    found = AnnotateCost().run(propagated(capture(model, (packed,))), machine(1))
    calls = [checking.Call.of(packed)]
    assert_same([*run_model(model, calls)], [*run_graph(found, calls, model.state_dict())])
    multiplied = [n.cost.flops for n in found.nodes if isinstance(n, Call) and n.cost.flops]
    assert multiplied == [2 * 8 * sum(w.numel() for w in model.parameters() if w.dim() == 2)]
