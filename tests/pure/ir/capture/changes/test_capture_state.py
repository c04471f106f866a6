"""What forward changes, on the module and in its arguments: state where stages can keep it, else a message."""

from __future__ import annotations

import warnings
from collections import UserDict
from collections.abc import Callable
from copy import deepcopy
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
from tests.support.checking import Call, run_graph, run_model

WIDTH = 4


def hidden(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, WIDTH)


class Changes(nn.Module):
    """A model whose forward is one function of itself and its input."""

    def __init__(self, compute: Callable[..., torch.Tensor], **attributes: Any) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.table = nn.Embedding(8, WIDTH, max_norm=0.5)
        self.compute = compute
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(self, x)


def check_calls(model: nn.Module, *rows: int) -> list[str]:
    """The graph returns what the model does, call after call; the names of its states."""
    calls = [Call.of(hidden(n)) for n in rows or (3, 3, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = capture(model, calls[0].args, dynamic_shapes={"x": {0: "batch"}})
    weights = {fqn: t.clone() for fqn, t in model.state_dict().items()}
    for want, got in zip(run_model(deepcopy(model), calls), run_graph(graph, calls, weights), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    return [state.fqns[0] for state in graph.states]


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


# ---- what is kept in attributes


def assigned(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.mean = 0.9 * model.mean + 0.1 * x.mean(0)
    return x - model.mean


def in_place(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.mean.lerp_(x.mean(0), 0.1)
    return x - model.mean


def none_at_first(model: Any, x: torch.Tensor) -> torch.Tensor:
    if model.mean is None:
        model.mean = torch.zeros(WIDTH)
    return assigned(model, x)


def missing_at_first(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.seen = getattr(model, "seen", 0) + x.sum(0)
    return x * model.seen


def in_a_list(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.kept[1] = model.kept[1] + x.mean(0)
    return x - model.kept[1]


def in_a_tuple(model: Any, x: torch.Tensor) -> torch.Tensor:
    h, c = model.kept
    model.kept = (c + x.mean(0), h)
    return x - h


def in_a_dict(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.kept["deep"]["mean"] = model.kept["deep"].get("mean", torch.zeros(WIDTH)) + x.mean(0)
    return x - model.kept["deep"]["mean"]


def in_an_object(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.kept.mean += x.mean(0)
    return x - model.kept.mean


class Box:
    def __init__(self) -> None:
        self.mean = torch.zeros(WIDTH)


@pytest.mark.parametrize(
    ("compute", "attributes", "states"),
    [
        (assigned, lambda: {"mean": torch.ones(WIDTH)}, ["mean"]),
        (in_place, lambda: {"mean": torch.ones(WIDTH)}, ["mean"]),
        (none_at_first, lambda: {"mean": None}, ["mean"]),
        (missing_at_first, dict, ["seen"]),
        (in_a_list, lambda: {"kept": [torch.zeros(1), torch.ones(WIDTH)]}, ["kept_1"]),
        (in_a_tuple, lambda: {"kept": (torch.zeros(WIDTH), torch.ones(WIDTH))}, ["kept_0", "kept_1"]),
        (in_a_dict, lambda: {"kept": {"deep": {}}}, ["kept_deep_mean"]),
        (in_an_object, lambda: {"kept": Box()}, ["kept_mean"]),
    ],
)
def test_a_tensor_that_forward_keeps_anywhere_is_state(compute: Any, attributes: Any, states: list[str]) -> None:
    model = Changes(compute, **attributes())
    before = deepcopy(model)
    assert check_calls(model) == states
    assert str(vars(model).get("kept", 0)) == str(vars(before).get("kept", 0)) or compute is in_an_object
    assert dict(model.named_buffers()).keys() == dict(before.named_buffers()).keys()


def counter(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.calls = getattr(model, "calls", 0) + 1
    return x * model.calls


def number_in_a_list(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.calls[0] += 1
    return x * model.calls[0]


def number_in_a_dict(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.calls["a"]["n"] += 1
    return x * model.calls["a"]["n"]


def first_call(model: Any, x: torch.Tensor) -> torch.Tensor:
    was, model.started = model.started, True
    return x if was else x * 2


def first_values(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.mean = x.mean(0) if model.mean is None else model.mean.lerp(x.mean(0), 0.1)
    return x - model.mean


def grows(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.past.append(x)
    return sum(model.past)  # type: ignore[return-value]


def as_large_as_the_batch(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.last = x if model.last is None or model.last.shape != x.shape else model.last * 0.5 + x
    return model.last * 2


@pytest.mark.parametrize(
    ("compute", "attributes", "name"),
    [
        (counter, {}, "calls"),
        (number_in_a_list, {"calls": [0]}, r"calls\[0\]"),
        (number_in_a_dict, {"calls": {"a": {"n": 0}}}, r"calls\['a'\]\['n'\]"),
        (first_call, {"started": False}, "started"),
        (first_values, {"mean": None}, "mean"),
        (grows, {"past": []}, "past"),
        (as_large_as_the_batch, {"last": None}, "last"),
    ],
)
def test_what_stages_cannot_keep_is_named(compute: Any, attributes: dict[str, Any], name: str) -> None:
    model = nn.Sequential(Changes(compute, **attributes))
    message = rf"^forward changes 0\.{name}; stages keep to the value that it had at first$"
    with pytest.warns(UserWarning, match=message) as caught:
        graph = capture(model, (hidden(),), dynamic_shapes={"input": {0: "batch"}})
    assert [Path(w.filename).name for w in caught] == [Path(__file__).name]
    assert not graph.states
    assert all(getattr(model[0], key) == value for key, value in attributes.items())


def keeps_its_activations(model: Any, x: torch.Tensor) -> torch.Tensor:
    setattr(model, model.where, x.relu())
    model.count = model.count + 1
    return x.relu() * model.count


@pytest.mark.parametrize("register", [True, False])
def test_a_state_that_no_call_reads_may_follow_the_batch(register: bool) -> None:
    model = Changes(keeps_its_activations, count=torch.zeros(()), where="last")
    if register:
        model.register_buffer("last", torch.zeros(3, WIDTH))
    else:
        model.last = torch.zeros(3, WIDTH)
    with pytest.warns(UserWarning, match=r"^forward changes last; stages keep to the value that it had at first$"):
        graph = capture(model, (hidden(),), dynamic_shapes={"x": {0: "batch"}})
    assert [state.fqns for state in graph.states] == [("count",)]
    assert set(dict(model.named_buffers())) == ({"last"} if register else set())
    calls = [Call.of(hidden(n)) for n in (3, 5, 3)]
    wanted = run_model(model, calls)
    for want, got in zip(wanted, run_graph(graph, calls, {}), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def reads_its_activations(model: Any, x: torch.Tensor) -> torch.Tensor:
    last, model.last = model.last, x
    return x + last.sum()


def test_a_state_that_is_read_and_follows_the_batch_is_refused() -> None:
    model = Changes(reads_its_activations)
    model.register_buffer("last", torch.zeros(3, WIDTH))
    with pytest.raises(CaptureError, match=r"`batch` \(dimension 0 of `x`\) cannot be dynamic: .* for 3 alone\n"):
        capture(model, (hidden(),), dynamic_shapes={"x": {0: "batch"}})


def goes_on_alone(model: Any, x: torch.Tensor) -> torch.Tensor:
    if model.last is None and model.started:
        raise RuntimeError("it was taken away")
    was, model.last, model.started = model.last, x, True
    return x if was is None else x + was.sum()


def test_a_state_without_which_a_later_call_fails_is_read() -> None:
    model = Changes(goes_on_alone, last=None, started=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graph = capture(model, (hidden(),), dynamic_shapes={"x": {0: "batch"}})
    kept = "stages keep to the value that it had at first"
    assert [str(w.message) for w in caught] == [f"forward changes {name}; {kept}" for name in ("last", "started")]
    assert not graph.states


def looked_at(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.attention = x.softmax(-1)
    return model.attention @ model.w


def made_once(model: Any, x: torch.Tensor) -> torch.Tensor:
    if "ones" not in model.tables:
        model.tables["ones"] = torch.ones(WIDTH)
    model.longest = max(model.longest, WIDTH)
    return x + model.tables["ones"]


def listed(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.activations = [x.relu(), x]
    return x


@pytest.mark.parametrize(
    ("compute", "attributes"),
    [(looked_at, {"attention": None}), (looked_at, {}), (listed, {}), (made_once, {"tables": {}, "longest": 0})],
)
def test_what_a_first_run_prepares_is_neither(compute: Any, attributes: dict[str, Any]) -> None:
    assert check_calls(Changes(compute, **attributes)) == []


def whole_numbers(model: Any, x: torch.Tensor) -> torch.Tensor:
    torch._assert_async((x == x.round()).all())
    return none_at_first(model, x)


def test_a_model_that_takes_no_other_values_is_run_on_its_example_alone() -> None:
    graph = capture(Changes(whole_numbers, mean=None), (hidden().round(),))
    assert [state.fqns for state in graph.states] == [("mean",)]


def test_what_a_first_call_sets_is_noted_where_the_model_is_not_run() -> None:
    with torch.device("meta"):
        model = Changes(first_values, mean=None)
    reason = "its weights are not in memory"
    note = f"the first call sets mean, whether later calls read it was not looked at: {reason}"
    assert capture(model, (hidden(),)).notes == (note,)


def raises(model: Any, x: torch.Tensor) -> torch.Tensor:
    if not torch.compiler.is_exporting():
        raise RuntimeError("not\nhere")
    return first_values(model, x)


def test_a_model_that_cannot_be_run_by_itself_is_said_to_be_so() -> None:
    [note] = capture(Changes(raises, mean=None), (hidden(),)).notes
    assert note.endswith("was not looked at: run by itself it raises RuntimeError: not")


class Lazy(UserDict[str, Any]):
    """A mapping whose items cannot be read, as that of offloaded weights is."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(f"nothing is read of {key}")


def test_a_mapping_of_the_users_is_not_read() -> None:
    lazy = Lazy()
    lazy.data["a"] = 1
    assert check_calls(Changes(assigned, mean=torch.ones(WIDTH), lazy=lazy)) == ["mean"]


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
