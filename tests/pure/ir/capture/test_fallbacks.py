"""How models are recorded that torch.export does not take, and what is refused all the same."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import MixtralConfig, MixtralForCausalLM

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.export.example import slotted
from ir.capture.fallbacks.made_up import made_up
from ir.capture.fallbacks.probe import ProbeRun, fitted
from ir.errors import CaptureError
from ir.graph import Call, Graph, is_whole, opaque_of
from ir.objects.recipe import recipe
from ir.objects.signature import flatten
from tests.support.checking import Call as Inputs
from tests.support.checking import check_every_pass, run_graph, run_model
from tests.support.models.hard_models import HARD, WIDTH, Branching, Gradient, Layers, Numpy, RunsFunctions, UsesSeveral
from tests.support.models.planning import machine

SIZES = {"x": {0: "batch", 1: "seq"}}


def hidden(batch: int = 2, seq: int = 4) -> Tensor:
    return torch.randn(batch, seq, WIDTH)


def recorded(model: nn.Module) -> Graph:
    sizes = SIZES if isinstance(model, (Layers, UsesSeveral, RunsFunctions)) else None
    return capture(model.eval(), (hidden(),), dynamic_shapes=sizes)


def kept(graph: Graph) -> list[str]:
    return [opaque_of(n).path for n in graph.nodes if isinstance(n, Call) and is_whole(n)]


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_after_every_pass_a_hard_model_computes_the_same(name: str) -> None:
    model = HARD[name].make().eval()
    graph = recorded(model)
    path = HARD[name].kept
    assert kept(graph) == list(dict.fromkeys(path.format(i) for i in range(3) if path))
    calls = [Inputs.of(hidden(batch, seq)) for batch, seq in ((2, 4), (3, 5), (1, 8))]
    check_every_pass(graph, model, calls, machine(2))


def test_what_is_kept_whole_is_noted_with_its_reason() -> None:
    [note] = recorded(Layers(Branching)).notes
    start = "layers.0.hard and 2 more Branching are kept whole, each in one stage: it decides by the values of a tensor"
    assert note.startswith(f"{start}, in layers.0.hard (tests/support/models/hard_models.py:")
    assert note.endswith(": if x.sum() > self.threshold:")


BRANCHES = """from torch import nn
class Branches(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x
"""


def test_a_model_in_a_folder_named_torch_is_not_taken_for_torch_itself(tmp_path: Path) -> None:
    file = tmp_path / "torch/branches.py"
    file.parent.mkdir()
    file.write_text(BRANCHES)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), runpy.run_path(str(file))["Branches"]())
    with pytest.raises(CaptureError, match=r"\n  in 1 \(branches.py:4\): return x \* 2 if x.sum\(\) > 0 else x\n"):
        capture(model.eval(), (hidden(),))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "how"), [(Numpy, "by reading the model's bytecode"), (Gradient, "after autograd")])
def test_another_recording_is_noted(make: type[nn.Module], how: str) -> None:
    graph = recorded(Layers(make))
    assert how in graph.notes[0]
    assert {n.where.module for n in graph.nodes} >= {"layers.0.norm", "layers.2.hard"}


@pytest.mark.slow
def test_what_dynamo_derives_itself_without_values_is_recorded_otherwise() -> None:
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        assert "after autograd" in recorded(Layers(Gradient)).notes[0]


class Curved(nn.Module):
    """Second derivatives of each row."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.hessian(lambda v: v.pow(3).sum()))(x[0])


class Dual(nn.Module):
    """A derivative in forward mode."""

    def forward(self, x: Tensor) -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(forward_ad.make_dual(x, x).sin()).tangent  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("make", [Curved, Dual])
def test_derivatives_that_forward_takes_are_recorded(make: type[nn.Module]) -> None:
    """TorchDynamo, which fails at these, leaves torch inside of their transforms."""
    graph, x = capture(make().eval(), (hidden(),)), hidden()
    place = r"\(tests/pure/ir/capture/test_fallbacks.py:\d+\)"
    how = rf"after autograd, .*: it takes derivatives itself, in the model {place}: "
    assert all(re.search(how, note) for note in graph.notes)
    assert torch.equal(interpret(graph, [x], {}).outputs[0], make()(x))


def test_what_a_kept_module_holds_belongs_to_the_graph() -> None:
    graph = recorded(UsesSeveral())
    [call] = [n for n in graph.nodes if isinstance(n, Call) and is_whole(n)]
    assert [v.name for v in call.args[1]] == ["several_shift", "several_left_out", "several_scale"]
    assert [str(v.type) for v in call.results] == ["float32[batch, seq, 8]", "float32[batch, seq - 1]"]
    assert [c.fqn for c in graph.constants] == ["several.left_out", "several.scale"]


@pytest.mark.slow
def test_without_memory_for_weights_the_recording_is_the_same() -> None:
    with torch.device("meta"):
        model = Layers(Branching).eval()
    graph = capture(model, (hidden(),), dynamic_shapes=SIZES)
    assert kept(graph) == ["layers.0.hard", "layers.1.hard", "layers.2.hard"]
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.slow
def test_a_module_is_as_it_was() -> None:
    model = Layers(Branching).eval()
    before = [dict(vars(m)) for m in model.modules()]
    recorded(model)
    assert [dict(vars(m)) for m in model.modules()] == before


def test_lengths_and_packed_sequences_are_made_up_so_that_they_fit() -> None:
    packed = pack_padded_sequence(torch.ones(3, 5, 2), torch.tensor([2, 5, 3]), batch_first=True, enforce_sorted=False)
    leaves, spec = flatten((packed, torch.ones(3, dtype=torch.int64)))
    tree = slotted(leaves, spec)
    types = [(list(leaf.shape), leaf.dtype) for leaf in leaves]
    (made, lengths) = tree.fill(made_up(tree, types, seed=0, least=1))
    assert int(lengths.min()) >= 1
    padded, at = pad_packed_sequence(made, batch_first=True)
    assert (padded.shape, int(at.sum())) == ((3, 5, 2), 10)
    with pytest.raises(CaptureError, match="there are no 3 sequences of at most 2 steps with 10 in all"):
        made_up(tree, [([10, 2], torch.float32), ([2], torch.int64), *types[2:]], seed=0, least=1)


# ---- what is refused


class Shrinking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x.sum(-1) > 0]


class Summing(nn.Module):
    """What comes out of the hard part has a size that depends on values; what comes out of this one has not."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = Shrinking()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(x).sum()


class Remembering(nn.Module):
    """It changes a buffer for some values alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > WIDTH * WIDTH:
            self.total += 1
        return x


class Aliasing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))
        self.weights = [self.weight]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights[0] if x.sum() > 0 else x


class Holding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = np.ones(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x * float(np.median(x.numpy() * self.table))


@pytest.mark.slow
def test_a_buffer_that_a_trial_changes_is_put_back() -> None:
    model = Layers(Remembering)
    with pytest.raises(CaptureError):
        recorded(model)
    assert not any(b.any() for b in model.buffers())


@pytest.mark.slow
def test_the_module_around_is_kept_where_the_innermost_cannot_be() -> None:
    graph = recorded(Layers(Summing))
    assert kept(graph) == [f"layers.{i}.hard" for i in range(3)]


class Halving(nn.Module):
    """A loop that values end, and the number of its turns as a Python number."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        turns = 0
        while x.norm() > 0.5:
            x, turns = x / 2, turns + 1
        return x, turns


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.halving = Halving()

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        x, turns = self.halving(x)
        return x + 1, turns


class Packing(nn.Module):
    """A size that is made of the values of an input, outside of any module that could be kept whole."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(pack_padded_sequence(x, x[0].sum(-1).long().abs() % 2 + 1, enforce_sorted=False))[1]


class Choosing(nn.Module):
    """A module that can be kept whole, and a size of values around it."""

    def __init__(self) -> None:
        super().__init__()
        self.hard = Branching()

    def forward(self, x: Tensor) -> Tensor:
        x = self.hard(x)
        return x[x > 0]


class Lending(nn.Module):
    """A module that is kept whole, and returns what the model returns."""

    def __init__(self) -> None:
        super().__init__()
        self.hard = Branching()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.hard(x)
        return x, x + 1


def test_a_copy_of_what_a_kept_module_returns_is_made_outside_of_it() -> None:
    """Operators of the module would be a class of the stage file, in place of the module."""
    _, *others = recorded(Lending()).nodes
    assert [n.where.module for n in others] == ["", ""]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Choosing, r"a size depends on the values of a tensor.*\n  in the model .*: return x\[x > 0\]\n"),
        (Counting, "halving cannot be kept whole: what it returns besides tensors depends on values"),
        (Packing, "it makes a size of the values of a tensor"),
        (
            Branching,
            r"decides by the values of a tensor\n  in the model \(tests/support/models/hard_models.py:\d+\): if x.sum",
        ),
        (lambda: Layers(Remembering), r"layers.0.hard cannot be kept whole: it changes a buffer"),
        (lambda: Layers(Aliasing), r"layers.0.hard.weights\[0\] is a tensor inside a container"),
        (lambda: Layers(Holding), r"layers.0.hard.table is a numpy.ndarray, which cannot be written down"),
        (
            lambda: nn.Sequential(nn.ReLU(), Shrinking()),
            "1 cannot be kept whole: the size of a result",
        ),
    ],
)
def test_where_nothing_helps_the_message_says_why(make: type[nn.Module], message: str) -> None:
    with pytest.raises(CaptureError) as raised:
        recorded(make())
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "what usually helps: " in str(raised.value)


# ---- sizes of results

a, b = sympy.symbols("a b", integer=True)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda x, y: (7,), (7,)),
        (lambda x, y: (y, x), (b, a)),
        (lambda x, y: (2 * x + 1,), (2 * a + 1,)),
        (lambda x, y: (x * y, 4 * x * y), (a * b, 4 * a * b)),
    ],
)
def test_sizes_of_results_are_found(result: object, expected: tuple[object, ...]) -> None:
    runs = [ProbeRun([x, y], torch.empty(result(x, y)), 0.0) for x, y in ((2, 4), (4, 12), (6, 8))]  # type: ignore[operator]
    assert fitted(runs, [a, b])[0].shape == expected


def test_a_size_that_follows_from_nothing_is_refused() -> None:
    runs = [ProbeRun([x], torch.empty(n), 0.0) for x, n in ((2, 5), (4, 6), (6, 1))]
    with pytest.raises(CaptureError, match="the size of a result depends on values, or on the sizes of its inputs"):
        fitted(runs, [a])


class Grows(nn.Module):
    """A scale that is made anew for longer texts, by the values of positions, as transformers' dynamic rope does."""

    def __init__(self) -> None:
        super().__init__()
        self.longest, self.calls = 6, 0
        self.register_buffer("scale", torch.ones(WIDTH), persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        if (length := int(positions.max()) + 1) > self.longest:
            self.longest = length
            self.register_buffer("scale", torch.full((WIDTH,), length / 6), persistent=False)
        return x * self.scale  # type: ignore[operator]


class Counts(Grows):
    """A module that computes something else in each call."""

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x, positions) * self.calls


class Rotated(nn.Module):
    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.layer, self.rope = nn.Linear(WIDTH, WIDTH), rope

    def forward(self, x: Tensor) -> Tensor:
        return self.rope(self.layer(x), torch.arange(x.shape[1]))


def test_a_module_that_grows_with_the_sequence_is_kept_whole() -> None:
    rope = Grows()
    model = Rotated(rope)
    graph = capture(model, (hidden(),), dynamic_shapes=SIZES)
    assert kept(graph) == ["rope"]
    assert rope.longest == 6
    longer = hidden(seq=9)
    [found] = run_graph(graph, [Inputs.of(longer)], dict(model.state_dict()))
    torch.testing.assert_close(found, model.layer(longer) * 1.5, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:forward changes")
def test_a_module_that_computes_something_else_in_each_call_is_not_kept_whole() -> None:
    with pytest.raises(CaptureError, match="rope cannot be kept whole: on a second input the stages would compute"):
        capture(Rotated(Counts()), (hidden(),), dynamic_shapes=SIZES)


@pytest.mark.slow
def test_experts_that_loop_over_values_are_kept_whole() -> None:
    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=32,
        num_local_experts=4,
        experts_implementation="eager",  # type: ignore[call-arg]
    )
    model = MixtralForCausalLM(config).eval()
    inputs = [Inputs.of(input_ids=torch.randint(3, 32, shape), use_cache=False) for shape in ((2, 8), (3, 5))]
    shapes = {"input_ids": {0: "batch", 1: "seq"}}
    graph = capture(model, (), inputs[0].kwargs, dynamic_shapes=shapes)
    assert kept(graph) == ["model.layers.0.mlp.experts"]
    assert [str(s) for s in graph.hints] == ["batch", "seq"]
    weights = model.state_dict()
    for wanted, found in zip(run_model(model, inputs), run_graph(graph, inputs, weights), strict=True):
        assert torch.equal(wanted.logits, found.logits)


def test_a_module_whose_forward_was_replaced_is_not_kept_whole() -> None:
    model = Layers(Branching, 1).eval()
    hard: Any = model.layers[0].hard
    hard.forward = hard.forward
    with pytest.raises(CaptureError, match="hard cannot be kept whole: its forward was replaced by another function"):
        capture(model, (hidden(),))


def test_an_object_that_refers_to_itself_has_no_recipe() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(CaptureError, match=r"^table\[0\] refers to itself$"):
        recipe(value, "table")
