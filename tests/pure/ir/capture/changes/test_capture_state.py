"""What forward changes, on the module and in its arguments: state where stages can keep it, else a message."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.export.graph_signature import OutputKind

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.program.reader import read_program
from ir.errors import CaptureError, InternalError
from tests.support.models.changes import WIDTH, Changes, check_calls, hidden

pytestmark = pytest.mark.slow


def unit(model: Changes, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        model.w.div_(model.w.norm(dim=1, keepdim=True) + 0.5)
    return x @ model.w


def clamped(model: Changes, x: torch.Tensor) -> torch.Tensor:
    model.w.data.mul_(1.5).clamp_(-0.5, 0.5)
    return x @ model.w


def clipped(model: Changes, x: torch.Tensor) -> torch.Tensor:
    model.w.data = (model.w.data * 1.5).clamp(-0.5, 0.5)
    return x @ model.w


def first_row(model: Changes, x: torch.Tensor) -> torch.Tensor:
    model.w.data[0] += 1
    return x @ model.w


def without_diagonal(model: Changes, x: torch.Tensor) -> torch.Tensor:
    model.w.data.fill_diagonal_(0)
    scores = model.w.expand(3, WIDTH, WIDTH) * 2
    scores[1].fill_diagonal_(-1e9)
    model.w.data = model.w.data * 0.99
    return x @ model.w + scores.sum(0)[0]


class Tied(nn.Module):
    """Two layers with one weight, which forward changes under its second name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.second.weight.data.mul_(0.5)
        return self.second(self.first(x))


def test_a_tied_parameter_that_forward_changes_is_state() -> None:
    assert check_calls(Tied()) == ["first.weight"]


@pytest.mark.parametrize("compute", [unit, clamped, clipped, first_row, without_diagonal])
def test_a_parameter_that_forward_changes_is_state(compute: Any) -> None:
    model = Changes(compute)
    before = model.w.detach().clone()
    assert check_calls(model) == ["w"]
    assert torch.equal(model.w, before)


def test_memory_that_forward_exchanges_is_refused() -> None:
    def exchanged(model: Changes, x: torch.Tensor) -> torch.Tensor:
        model.w.set_(model.w * 2)  # type: ignore[call-overload]
        return x @ model.w

    with pytest.raises(CaptureError, match="it gives a tensor the memory of another one"):
        capture(Changes(exchanged), (hidden(),))


def test_an_embedding_that_renormalises_its_weights_is_state() -> None:
    assert check_calls(Changes(lambda model, x: model.table(torch.arange(2)).sum() + x)) == ["table.weight"]


def test_an_output_of_an_unknown_kind_is_a_fault_of_ours() -> None:
    exported = torch.export.export(nn.ReLU(), (torch.ones(2),))
    exported.graph_signature.output_specs[0].kind = OutputKind.GRADIENT_TO_PARAMETER
    sizes = SimpleNamespace(hints={}, ranges={}, guards=(), read=lambda value: value)
    signature = capture(nn.ReLU(), (torch.ones(2),)).signature
    with pytest.raises(InternalError, match=r"torch\.export returns a gradient_to_parameter"):
        read_program(exported, nn.ReLU(), signature, cast("Any", sizes))


def collect(model: Changes, x: torch.Tensor, found: Any) -> torch.Tensor:
    found.append(x * 2)
    return x + 1


def register(model: Changes, x: torch.Tensor, found: Any) -> torch.Tensor:
    found["x"] = x * 2
    return x + 1


class Given(Changes):
    def forward(self, x: torch.Tensor, found: Any) -> torch.Tensor:  # type: ignore[override]
        return self.compute(self, x, found)


@pytest.mark.parametrize(("compute", "found"), [(collect, []), (register, {}), (register, {"x": torch.ones(1)})])
def test_a_list_or_dict_that_forward_changes_is_warned_of_at_the_users_line(compute: Any, found: Any) -> None:
    with pytest.warns(UserWarning, match="the model changes its input found in place; stages do not") as caught:
        capture(Given(compute), (hidden(), found))
    assert [Path(w.filename).name for w in caught] == [Path(__file__).name]


def test_a_dict_that_is_read_alone_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(Given(lambda model, x, found: x + found["y"]), (hidden(), {"y": torch.ones(1)}))


def test_a_tensor_that_forward_changes_is_called_as_the_user_calls_it() -> None:
    with pytest.warns(UserWarning, match=r"the model changes its input found\.y in place; stages do not"):
        capture(Given(lambda model, x, found: found["y"].add_(x)), (hidden(), {"y": torch.ones(3, WIDTH)}))


# ---- modules that forward converts


class Router(nn.Module):
    """A module whose forward converts another to float32, as routers of experts do."""

    def __init__(self, dtype: torch.dtype, decides: bool = False) -> None:
        super().__init__()
        self.classify = nn.Linear(WIDTH, WIDTH).to(dtype)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.decides = decides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.classify = self.classify.to(torch.float32)
        return self.classify(self.norm.float()(x)) * (2 if self.decides and x.sum() > 0 else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_module_that_forward_converts_is_recorded_as_it_is(dtype: torch.dtype) -> None:
    model = Router(dtype).eval()
    before = model.classify.weight
    assert check_calls(model) == []
    assert model.classify.weight is before
    assert before.dtype == dtype
    assert not capture(model, (hidden(),)).notes


def test_a_module_that_converts_may_be_kept_whole() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Router(torch.float32, decides=True)).eval()
    [note] = capture(model, (hidden(),)).notes
    assert note.startswith("1 is kept whole in one stage: it decides by the values of a tensor")


class Hooked(nn.Module):
    """A layer on which the first call of `forward` puts a hook, as those of transformers that collect outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.hooked = nn.Linear(4, 4), False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.hooked:
            self.layer.register_forward_hook(lambda module, args, output: output + 1)
            self.hooked = True
        return self.layer(x)


@pytest.mark.filterwarnings("ignore:forward changes hooked")
def test_hooks_of_a_first_call_are_not_left_on_the_model() -> None:
    model, x = Hooked().eval(), torch.randn(2, 4)
    graph = capture(model, (x,), dynamic_shapes={"x": {0: "batch"}})
    assert not model.layer._forward_hooks
    [found] = interpret(graph, [x], dict(model.state_dict())).outputs
    assert torch.equal(found, model(x))
    assert torch.equal(found, model(x))
