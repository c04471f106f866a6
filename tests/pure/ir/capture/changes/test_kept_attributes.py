"""Tensors and numbers that forward keeps in attributes: state, what a first run prepares, or named."""

from __future__ import annotations

import warnings
from collections import UserDict
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ir.capture import capture
from ir.errors import CaptureError
from tests.support.checking import Call, run_graph, run_model
from tests.support.models.changes import WIDTH, Changes, check_calls, hidden

pytestmark = pytest.mark.slow


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
    assert note.endswith("was not looked at: run by itself it raises RuntimeError: not here")


class Lazy(UserDict[str, Any]):
    """A mapping whose items cannot be read, as that of offloaded weights is."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(f"nothing is read of {key}")


def test_a_mapping_of_the_users_is_not_read() -> None:
    lazy = Lazy()
    lazy.data["a"] = 1
    assert check_calls(Changes(assigned, mean=torch.ones(WIDTH), lazy=lazy)) == ["mean"]
