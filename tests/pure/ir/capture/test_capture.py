"""What capture records of a model.

That the recorded graph computes what the model does is in tests/e2e/models/test_every_pass.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.symbolic_shapes import cast_symbool_to_symint_guardless

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.program.no_ops import is_checked_alone
from ir.graph import THIS_DEVICE, Call
from ir.text.printer import op_name, print_graph
from tests.support.models.functions import function, operators
from tests.support.models.graphs import captured
from tests.support.models.model_cases import CASES, X
from tests.support.models.written import WIDTH, Cache, Constants, InPlace, Regions, RunningMean, Tied, hidden, tokens

HIDDEN = X["x"]


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


@pytest.mark.slow
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


# ---- nodes


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert {n.where.file for n in graph.nodes} == {"tests/support/models/written.py"}
    assert graph.modules["shared"] == "Sequential"
    assert graph.modules["middle.1"] == "Linear"


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


def test_a_number_inside_a_vmap_is_a_tensor_of_it() -> None:
    graph = function(torch.vmap(lambda row: row / (1 + row.abs().max())))
    x = torch.randn(3, 5, WIDTH)
    assert torch.equal(interpret(graph, [x], {}).outputs[0], x / (1 + x.abs().amax((1, 2), keepdim=True)))
