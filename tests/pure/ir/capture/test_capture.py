"""What capture records of a model, and what it refuses.

That the recorded graph computes what the model does is in tests/e2e/test_every_pass.py.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import cast_symbool_to_symint_guardless
from torch.utils._sympy.functions import FloorDiv, Mod

from ir.analysis.arguments import as_number
from ir.capture import capture
from ir.capture.export.example import Example
from ir.capture.export.recording import Recording
from ir.capture.fallbacks.ways import Way, record_somehow
from ir.capture.program.no_ops import is_checked_alone
from ir.capture.sizes.dynamic import FixedSizes, parse_dynamic
from ir.errors import CaptureError
from ir.graph import THIS_DEVICE, Call, Graph
from ir.sizes import hold
from ir.text.printer import op_name, print_graph
from tests.support.graphs import captured
from tests.support.model_cases import CASES, X
from tests.support.models import WIDTH, Cache, Constants, InPlace, Regions, RunningMean, Tied, hidden, tokens

HIDDEN = X["x"]
batch, seq = (sympy.Symbol(name, integer=True, positive=True) for name in ("batch", "seq"))


class Function(nn.Module):
    """A model that is one expression."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: torch.Tensor) -> Any:
        return self.compute(x)


def function(compute: Callable[[torch.Tensor], Any], x: torch.Tensor | None = None, dynamic: Any = X) -> Graph:
    return capture(Function(compute), (hidden() if x is None else x,), dynamic_shapes=dynamic)


def operators(graph: Graph) -> list[str]:
    return [op_name(node).removeprefix("aten.") for node in graph.nodes if isinstance(node, Call)]


# ---- what stands before the first node


def test_a_tied_weight_is_one_param_with_all_its_names() -> None:
    graph = capture(Tied(), (tokens(),))
    assert graph.params[0].fqns == ("embedding.weight", "head.weight")
    assert [p.name for p in graph.params].count("embedding_weight") == 1
    assert [op_name(n) for n in graph.users[graph.params[0]]] == ["aten.embedding", "aten.linear"]


def test_views_of_one_memory_are_not_one_param() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    both = torch.randn(8, 4)
    model[0].weight, model[1].weight = nn.Parameter(both[:4]), nn.Parameter(both[4:])
    assert [p.fqns for p in capture(model, (torch.ones(1, 4),)).params] == [("0.weight",), ("1.weight",)]


def test_params_and_buffers_come_from_the_checkpoint() -> None:
    graph = captured("batch normalisation")
    stored = {p.fqns[0]: p.buffer for p in graph.params}
    assert stored["blocks.0.norm.running_mean"]
    assert not stored["blocks.0.norm.weight"]
    assert not graph.constants
    assert "blocks.0.norm.num_batches_tracked" not in stored


def test_what_is_in_no_checkpoint_brings_its_value() -> None:
    model = Constants()
    graph = capture(model, (hidden(),))
    found = {c.fqn: c.data for c in graph.constants}
    assert torch.equal(found["attribute"], model.attribute)
    assert torch.equal(found["left_out"], model.left_out)
    assert torch.equal(found["layers.1.left_out"], model.layers[1].left_out)
    inline = [c.data for c in graph.constants if c.fqn not in ("attribute", "left_out", "layers.1.left_out")]
    assert [t.tolist() for t in inline] == [[0.5, 2.0]]


def test_a_constant_is_not_the_models_own_tensor() -> None:
    model = Constants()
    graph = capture(model, (hidden(),))
    model.attribute.zero_()
    assert next(c.data for c in graph.constants if c.fqn == "attribute").any()


def test_what_a_run_changes_is_state() -> None:
    graph = captured("a cache that calls fill")
    assert [(s.fqns, s.data is None) for s in graph.states] == [
        (("layers.0.keys",), True),
        (("layers.0.seen",), False),
        (("layers.1.keys",), True),
        (("layers.1.seen",), False),
    ]
    assert [state for state, _ in graph.updates] == list(graph.states)
    assert all(op_name(graph.producer[new]).startswith(("aten.index_copy", "aten.add")) for _, new in graph.updates)


@pytest.mark.parametrize("make", [Cache, RunningMean, InPlace])
def test_the_model_is_as_it_was(make: type[nn.Module]) -> None:
    model, x = make().eval(), hidden()
    before, x_before = deepcopy(dict(model.state_dict())), x.clone()
    capture(model, (x,), dynamic_shapes={"x": {1: "seq"}})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(type(p) is nn.Parameter for p in model.parameters())
    assert torch.equal(x, x_before)


def test_parameters_may_be_without_memory() -> None:
    """On the meta device, as for a model larger than this host; the graph is the same."""
    case = CASES["tied weights"]
    with torch.device("meta"):
        model = case.model().eval()
    graph = capture(model, case.calls()[0].args, dynamic_shapes=case.dynamic)
    assert print_graph(graph) == print_graph(captured("tied weights"))
    assert all(p.is_meta for p in model.parameters())


# ---- sizes


def test_sizes_are_expressions_and_no_node_computes_them() -> None:
    graph = function(lambda x: torch.cat([x, x], 1).reshape(x.shape[0], x.shape[1], -1)[:, : x.shape[1] // 2])
    assert [str(v.type) for n in graph.nodes for v in n.results] == [
        "float32[batch, 2*seq, 8]",
        "float32[batch, seq, 16]",
        "float32[batch, (seq//2), 16]",
    ]
    assert graph.hints == {batch: 2, seq: 4}
    assert graph.ranges == {batch: (1, None), seq: (1, None)}


def test_numbers_made_of_sizes_are_returned_as_what_they_are() -> None:
    def compute(x: torch.Tensor) -> Any:
        return x * 2, x.shape[0] / 2, x.shape[0] > 2

    _, half, above = function(compute).signature.returns.leaves
    assert [as_number(half, {batch: 5}), as_number(above, {batch: 5})] == [2.5, True]


def test_sizes_that_are_returned_are_no_outputs() -> None:
    graph = captured("outputs that nothing computes")
    assert [leaf for leaf in graph.signature.returns.leaves if isinstance(leaf, sympy.Basic)] == [seq, 2 * batch + 1]
    assert len(graph.outputs) == 5


def test_inputs_that_share_a_name_share_a_symbol() -> None:
    graph = captured("sizes shared by several inputs")
    assert [v.type.shape for v in graph.inputs] == [(batch, seq), (batch, seq), (batch, seq), (batch,)]


@pytest.mark.parametrize(
    "dynamic",
    [
        {"x": {0: "batch", 1: "seq"}},
        {"x": {-3: "batch", -2: "seq"}},
        {"x": ("batch", "seq", None)},
        [{0: "batch", 1: "seq"}],
        {"x": {0: Dim("batch"), 1: Dim("seq")}},
    ],
)
def test_ways_to_name_sizes(dynamic: Any) -> None:
    [x] = function(torch.relu, dynamic=dynamic).inputs
    assert x.type.shape == (batch, seq, WIDTH)


def test_sizes_without_names_are_named_by_their_place() -> None:
    [x] = function(torch.relu, dynamic={"x": {0: Dim.AUTO, 1: Dim.DYNAMIC}}).inputs
    assert list(map(str, x.type.shape)) == ["x_0", "x_1", "8"]


def test_a_size_of_1_that_the_model_treats_otherwise_is_noted() -> None:
    graph = capture(Function(lambda x: x * 2 if x.shape[0] == 1 else x + 1), (hidden(),), dynamic_shapes=X)
    assert graph.ranges == {batch: (2, None), seq: (1, None)}
    [note] = graph.notes
    place = re.escape("(at tests/pure/ir/capture/test_capture.py:") + r"\d+\)"
    assert re.match(f"`batch` must be 2 or more: where it is 1 the model computes something else {place}; for 1", note)


@pytest.mark.parametrize("drop", [torch.squeeze, lambda x: x.squeeze(0), lambda x: x[:, :2].squeeze((0, 2))])
def test_a_size_of_1_that_is_squeezed_away_is_noted(drop: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph = capture(Function(lambda x: drop(x) + 1), (hidden(),), dynamic_shapes={"x": {0: "batch"}})
    assert graph.ranges == {batch: (2, None)}
    [note] = graph.notes
    assert note.startswith(
        "`batch` must be 2 or more: where it is 1 the model computes something else (at tests/pure/ir/"
    )


def test_a_squeezed_shape_alone_is_looked_at() -> None:
    graph = capture(Function(lambda x: torch.zeros(x.squeeze(0).shape) + 1), (hidden(),), dynamic_shapes=X)
    assert graph.ranges == {batch: (2, None), seq: (1, None)}


def test_other_sizes_of_1_may_be_squeezed_away() -> None:
    graph = capture(Function(lambda x: x.unsqueeze(1).squeeze(1) + 1), (hidden(),), dynamic_shapes=X)
    assert graph.ranges == {batch: (1, None), seq: (1, None)}


def test_a_size_of_1_that_a_condition_excludes_needs_no_note() -> None:
    graph = capture(Function(lambda x: x * 2 if x.shape[1] % 2 else x + 1), (hidden(),), dynamic_shapes=X)
    assert not hold(graph.guards, {batch: 2, seq: 1})
    assert not [note for note in graph.notes if "where it is 1" in note]


def test_ranges_are_those_that_were_declared() -> None:
    graph = function(torch.relu, dynamic={"x": {0: Dim("batch", min=2, max=16), 1: "seq"}})
    assert graph.ranges == {batch: (2, 16), seq: (1, None)}


def test_what_the_code_assumes_of_sizes_is_a_guard() -> None:
    guards = captured("a length that must be even").guards
    fits = {length: all(guard.subs({seq: length}) == sympy.true for guard in guards) for length in range(1, 9)}
    assert fits == {length: length % 2 == 0 for length in range(1, 9)}


def test_a_size_of_one_stays_dynamic() -> None:
    graph = captured("captured at batch 1 and length 1")
    assert graph.inputs[0].type.shape == (batch, seq, WIDTH)
    assert graph.hints == {batch: 1, seq: 1}


def test_sizes_of_nested_arguments() -> None:
    assert [str(v.type) for v in captured("a dict").inputs] == ["float32[batch, seq, 8]"] * 3


# ---- nodes


def test_composite_operators_are_kept() -> None:
    def compute(x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x, (WIDTH,))
        return F.gelu(F.scaled_dot_product_attention(x, x, x, is_causal=True))

    assert operators(function(compute)) == ["layer_norm", "scaled_dot_product_attention", "gelu"]


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.to(torch.float32).float().to("cpu").type_as(x),
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: F.dropout(x, 0.0),
        lambda x: x[:, :],
        lambda x: (torch._assert(x.shape[1] > 0, "empty"), x)[1],
        lambda x: x.contiguous() if x.dim() == 2 else x,
    ],
)
def test_what_says_nothing_is_no_node(compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert operators(function(lambda x: compute(x).relu())) == ["relu"]


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda x: x.to(torch.float64), ["to.dtype"]),
        (lambda x: x.to(torch.float32, copy=True), ["to.dtype"]),
        (lambda x: x[:, 1:] + 1, ["slice.Tensor", "add.Tensor"]),
        (lambda x: F.dropout(x, 0.5, training=True), ["dropout"]),
    ],
)
def test_what_looks_like_nothing_and_is_something(
    compute: Callable[[torch.Tensor], torch.Tensor], expected: list[str]
) -> None:
    assert operators(function(compute)) == expected


def test_regions_are_inlined() -> None:
    found = operators(capture(Regions(), (hidden(),)))
    assert not [name for name in found if "autocast" in name or "grad" in name]
    assert found.count("linear") == 4


def test_what_is_changed_in_place_is_a_new_value() -> None:
    graph = captured("changes in place")
    assert not [n for n in graph.nodes if isinstance(n, Call) and n.op._schema.is_mutable]


def test_private_changes_keep_the_operator() -> None:
    assert operators(function(lambda x: (x + 1).relu_().mul_(2))) == ["add.Tensor", "relu", "mul.Tensor"]


def test_devices_in_the_code_become_the_stages_own() -> None:
    graph = captured("device literals")
    devices = [n.kwargs["device"] for n in graph.nodes if isinstance(n, Call) and "device" in n.kwargs]
    assert devices == [THIS_DEVICE] * len(devices)
    assert len(devices) >= 3
    assert "cpu" not in print_graph(graph)


def test_what_nothing_depends_on_is_left_out() -> None:
    graph = captured("what nothing depends on")
    assert [p.fqns[0].split(".")[0] for p in graph.params] == ["layers"] * 4
    assert [v.name for v in graph.inputs] == ["ignored", "x"]  # the caller passes it all the same


def test_every_output_is_made_by_a_node() -> None:
    graph = captured("outputs that nothing computes")
    assert all(v in graph.producer for v in graph.outputs)
    assert [v.name for v in graph.outputs] == ["linear", "x_out", "layer_weight_out", "table_out", "linear"]


def test_every_node_knows_its_module_and_line() -> None:
    graph = captured("a module called twice")
    places = [(n.where.module, n.where.code) for n in graph.nodes if isinstance(n, Call)]
    assert [module for module, _ in places] == [
        *("shared.0", "shared.1", "middle.0", "", "middle.1", "", "shared.0", "shared.1"),
    ]
    assert places[3][1] == "x = layer(x).tanh()"
    assert {n.where.file for n in graph.nodes} == {"tests/support/models.py"}
    assert graph.modules["shared"] == "Sequential"
    assert graph.modules["middle.1"] == "Linear"


# ---- what is refused


class Inner(Function):
    """Puts the code two modules deep."""


def deep(compute: Callable[[torch.Tensor], Any]) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.ReLU(), Inner(compute)))


REFUSED: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "a branch on values": (lambda x: x if x.sum() > 0 else -x, "use torch.where, or decide from shapes alone"),
    "a size that depends on values": (lambda x: x[x > 0], "a mask of fixed size in place of indexing by nonzero"),
    "numpy": (lambda x: x * float(x.numpy().sum()), "the code leaves torch for numpy; write it with torch operators"),
    "a type error": (lambda x: x @ x, "run the model on its example inputs first"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_is_refused(what: str) -> None:
    compute, advice = REFUSED[what]
    with pytest.raises(CaptureError, match=re.escape(advice)) as raised:
        capture(deep(compute), (hidden(),))
    assert "1.1 (tests/pure/ir/capture/test_capture.py:" in str(raised.value)


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
    "compute",
    [
        lambda x: x @ torch.ones(WIDTH, 4) + x.sum(-1).reshape(2, 4, 1),  # fixed by a literal
        lambda x: sum(x[:, i] for i in range(x.shape[1])),  # fixed by a loop
    ],
)
def test_a_size_that_the_code_fixes(compute: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(CaptureError, match=r"leave (it|that size) out of the dynamic shapes") as raised:
        function(compute)
    assert "`seq` (dimension 1 of `x`)" in str(raised.value)


def test_dropout_that_is_on_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"1 is in training mode; call model.eval\(\) first"):
        capture(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout()).train(), (hidden(),))


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
    ("text", "parsed"),
    [
        ("ids:0=batch,1=seq", ("ids", {0: "batch", 1: "seq"})),
        ("x : -1=width", ("x", {-1: "width"})),
        ("args.0:2=a_b", ("args.0", {2: "a_b"})),
    ],
)
def test_sizes_of_the_command_line(text: str, parsed: Any) -> None:
    assert parse_dynamic(text) == parsed


@pytest.mark.parametrize("text", ["", "ids", "ids:", "ids:0", "ids:a=b", ":0=a", "ids:0=1st", "ids:0=a=b", "ids:0=a,,"])
def test_what_names_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="does not read as INPUT:DIM=NAME"):
        parse_dynamic(text)


# ---- sizes that need not be dynamic


class Recurrent(nn.Module):
    """Its code fixes the length, in words of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0]


@pytest.mark.parametrize(
    ("model", "free", "fixed"),
    [
        (Recurrent().eval(), "batch", "`seq` (dimension 1 of `x`)"),
        (Function(lambda x: sum(x[:, i] for i in range(x.shape[1]))), "batch", "`seq` (dimension 1 of `x`)"),
        (Function(lambda x: x.reshape(2, -1, WIDTH // 2).sum(1)), "seq", "`batch` (dimension 0 of `x`)"),
    ],
)
def test_a_soft_size_that_the_model_fixes_stays_as_it_is(model: nn.Module, free: str, fixed: str) -> None:
    graph = capture(model, (hidden(),), dynamic_shapes=X, soft=True)
    assert [str(symbol) for symbol in graph.hints] == [free]
    [note] = graph.notes
    assert note.startswith(f"{fixed} cannot be dynamic: the model's code works for")
    assert re.search(r"\(at tests/pure/ir/capture/test_capture.py:\d+\); it stays at that$", note)


def test_a_size_that_is_free_leaves_no_note() -> None:
    assert capture(Function(torch.relu), (hidden(),), dynamic_shapes=X, soft=True).notes == ()


# ---- what a recording freezes


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.seen: list[int] = []
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.seen.append(x.dim())
        self.kept = x  # prepared by the first run
        return x * self.count


def test_a_changed_attribute_is_warned_of_and_put_back() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Counter())
    with pytest.warns(UserWarning, match="forward changes") as caught:
        capture(model, (hidden(),))
    assert sorted(str(w.message) for w in caught) == [
        "forward changes 1.count; stages keep to the value that it had at first",
        "forward changes 1.seen; stages keep to the value that it had at first",
    ]
    assert model[1].count == 0
    assert model[1].kept is None


# ---- unusual tensors


class Unusual(nn.Module):
    """Complex and 8-bit weights, and tensors in lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.waves = nn.Parameter(torch.randn(WIDTH, dtype=torch.complex64))
        self.small = nn.Parameter(torch.randn(WIDTH, WIDTH).to(torch.float8_e4m3fn), requires_grad=False)
        self.listed = [torch.full((WIDTH,), float(i)) for i in range(1, 3)]
        self.named = {"a": torch.ones(WIDTH)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (torch.fft.fft(x) * self.waves).real @ self.small.to(x.dtype)
        for t in self.listed:
            x = x * t
        return x + self.named["a"]


def test_unusual_tensors_are_recorded() -> None:
    graph = capture(Unusual(), (hidden(),), dynamic_shapes=X)
    assert [p.type.dtype for p in graph.params] == [torch.complex64, torch.float8_e4m3fn]
    assert sorted(c.data.mean().item() for c in graph.constants) == [1.0, 1.0, 2.0]


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


def test_a_condition_that_is_undefined_for_small_sizes_does_not_hold_of_them() -> None:
    size = sympy.Symbol("size", integer=True, positive=True)
    condition = sympy.Eq(Mod(FloorDiv(size, 2) - 3, 5), 0)
    assert [n for n in range(2, 12) if hold([condition], {size: n})] == [6, 7]


def test_a_condition_that_the_example_does_not_meet_fixes_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    seq = sympy.Symbol("seq", integer=True, positive=True)

    def with_condition(example: Example, soft: bool) -> tuple[Example, Recording, Way]:
        example, recording, way = record_somehow(example, soft)
        free = seq in recording.graph.hints
        made_up = replace(recording.graph, guards=(*recording.graph.guards, *[sympy.Eq(sympy.Mod(seq, 4), 0)] * free))
        return example, replace(recording, graph=made_up), way

    monkeypatch.setattr("ir.capture.model.record_somehow", with_condition)
    model, x = nn.Linear(4, 4), torch.ones(2, 3, 4)
    with pytest.raises(FixedSizes, match=r"`seq` cannot be dynamic: .* meet Eq\(Mod\(seq, 4\), 0\), which 3 does not"):
        capture(model, (x,), dynamic_shapes={"input": {0: "batch", 1: "seq"}})
    graph = capture(model, (x,), dynamic_shapes={"input": {0: "batch", 1: "seq"}}, soft=True)
    assert [str(symbol) for symbol in graph.hints] == ["batch"]
    assert len(graph.notes) == 1


def test_a_table_by_size_names_the_sizes_to_fix() -> None:
    with pytest.raises(CaptureError, match="looks up a size that may change in a table") as raised:
        function(lambda x: x + {4: 1}.get(x.shape[1], 0))
    assert "fix that size: leave it out of the dynamic sizes `batch`, `seq`" in str(raised.value)


def test_an_operator_of_fixed_sizes_names_the_sizes_to_fix() -> None:
    with pytest.raises(CaptureError, match="it calls what torch computes for fixed sizes alone") as raised:
        function(lambda x: x.flatten(0, 1)[:, :2].clone().fill_diagonal_(0, wrap=True))
    assert "fix that size: leave it out of the dynamic sizes `batch`, `seq`" in str(raised.value)
    assert "frame #" not in str(raised.value)


def test_values_that_decide_may_be_fixed_by_name() -> None:
    def shortened(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return x if lengths.sum() > 3 else -x

    class Shortened(nn.Module):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return shortened(x, lengths)

    many = torch.ones(1024, dtype=torch.int64)  # more than are fixed without being asked
    with pytest.raises(CaptureError, match="or fix the values of `lengths` at those of the example: --fix lengths"):
        capture(Shortened(), (hidden(), many))


class Conditions(nn.Module):
    """Masks as transformers combines them, one returned as it is and one read further."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        everywhere = x.new_ones((), dtype=torch.bool)
        return everywhere & (x > 0), (everywhere & (x < 1)).float() + (x.new_ones(2, dtype=torch.bool) & (x > 2))


def test_a_mask_that_is_combined_with_one_true_is_the_mask() -> None:
    """What is returned has memory of its own; what is combined with more than one value stays."""
    graph = capture(Conditions(), (torch.rand(3, 2),))
    ops = [node.op.name() for node in graph.nodes if isinstance(node, Call)]
    assert [op for op in ops if "and" in op or "ones" in op] == ["aten::new_ones", "aten::__and__.Tensor"]


def test_a_condition_as_a_number_that_an_assertion_reads_is_no_node() -> None:
    """So torch 2.11 records torch._check on values; it leaves the number's value out."""
    recorded = torch.fx.Graph()
    count = recorded.placeholder("count")
    condition = recorded.call_function(operator.eq, (count, 4))
    number = recorded.call_function(cast_symbool_to_symint_guardless, (condition,))
    recorded.call_function(torch.ops.aten._assert_scalar.default, (number, "as many images as tokens"))
    assert is_checked_alone(condition)
    assert is_checked_alone(number)
    assert not is_checked_alone(count)
