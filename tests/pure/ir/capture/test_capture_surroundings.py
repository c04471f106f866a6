"""What forward keeps around its modules, or where attributes do not show it: named, and put back after the capture."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.module import register_module_forward_hook
from transformers.utils.import_utils import is_tracing

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.errors import CaptureError
from tests.support.checking import Call, run_graph, run_model

pytestmark = pytest.mark.slow

WIDTH = 4
CALLS: dict[str, Any] = {"n": 0, "last": None}


class Model(nn.Module):
    """A layer, and a number that one function of the model makes."""

    calls = 0

    def __init__(self, scale: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.scale = scale
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.scale(self, x)


def of_class(model: Model, x: torch.Tensor) -> int:
    type(model).calls += 1
    return type(model).calls


def of_globals(model: Model, x: torch.Tensor) -> int:
    CALLS["n"] += 1
    return CALLS["n"]


def tensor_of_globals(model: Model, x: torch.Tensor) -> torch.Tensor:
    before, CALLS["last"] = CALLS["last"], x.mean(0)
    return x if before is None else before


def of_function(model: Model, x: torch.Tensor) -> int:
    of_function.n = getattr(of_function, "n", 0) + 1  # type: ignore[attr-defined]
    return of_function.n  # type: ignore[attr-defined]


def of_default(model: Model, x: torch.Tensor, seen: list[int] = []) -> int:  # noqa: B006
    seen.append(1)
    return len(seen)


def closing_over(seen: list[int]) -> Callable[..., int]:
    def scale(model: Model, x: torch.Tensor) -> int:
        seen[0] += 1
        return seen[0]

    return scale


class Counting:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> int:
        self.n += 1
        return self.n


def of_slots(model: Any, x: torch.Tensor) -> int:
    return model.count()


def of_array(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.kept *= 2
    return torch.from_numpy(model.kept)


def of_mode(model: Model, x: torch.Tensor) -> int:
    model.training = not model.training
    return 1 if model.training else 2


@pytest.mark.parametrize(
    ("scale", "attributes", "name"),
    [
        (of_class, {}, "Model.calls"),
        (of_globals, {}, r"CALLS\['n'\]"),
        (tensor_of_globals, {}, r"CALLS\['last'\]"),
        (of_function, {}, "scale.n"),
        (of_default, {}, r"the default of an argument of scale"),
        (closing_over([0]), {}, r"seen\[0\]"),
        (of_slots, {"count": Counting()}, "count.n"),
        (of_array, {"kept": torch.ones(WIDTH).numpy()}, "kept"),
        (of_mode, {}, "training"),
    ],
)
def test_what_forward_keeps_is_named_and_put_back(scale: Any, attributes: dict[str, Any], name: str) -> None:
    model, x = Model(scale, **attributes).eval(), torch.randn(3, WIDTH)
    before = deepcopy((Model.calls, CALLS, scale.__defaults__, vars(scale)))
    with pytest.warns(UserWarning, match=rf"^forward changes {name}; stages keep to the value that it had at first$"):
        capture(model, (x,))
    assert (Model.calls, CALLS, scale.__defaults__, vars(scale)) == before
    assert not model.training
    assert getattr(model, "kept", torch.ones(1).numpy()).max() == 1


def of_iterator(model: Any, x: torch.Tensor) -> int:
    return next(model.numbers)


def numbers() -> Iterator[int]:
    yield from range(100)


def drawn(model: Any, x: torch.Tensor) -> float:
    return random.random()


@pytest.mark.parametrize(
    ("scale", "attributes"),
    [(of_iterator, {"numbers": itertools.count()}), (of_iterator, {"numbers": numbers()}), (drawn, {})],
)
def test_a_second_call_that_returns_something_else_is_warned_of(scale: Any, attributes: dict[str, Any]) -> None:
    message = "forward returns something else when it is called again with the same inputs"
    with pytest.warns(UserWarning, match=message):
        capture(Model(scale, **attributes), (torch.randn(3, WIDTH),))


def random_numbers(model: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.rand_like(x)


def quietly(model: Model, *rows: int) -> list[str]:
    """The graph returns what the model does, call after call, and nothing is warned of; the names of its states."""
    calls = [Call.of(torch.randn(n, WIDTH)) for n in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = capture(model, calls[0].args)
    weights = {fqn: t.clone() for fqn, t in model.state_dict().items()}
    for want, got in zip(run_model(deepcopy(model), calls), run_graph(graph, calls, weights), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    return [state.fqns[0] for state in graph.states]


def test_random_numbers_of_torch_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(Model(random_numbers), (torch.randn(3, WIDTH),))


def test_random_numbers_that_are_set_back_are_warned_of() -> None:
    def rewound(model: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng([]):
            return torch.rand_like(x)

    with pytest.warns(UserWarning, match="forward draws random numbers and sets torch's back to those before"):
        capture(Model(rewound), (torch.randn(3, WIDTH),))


def test_dropout_that_is_off_draws_no_numbers() -> None:
    def attends(model: Any, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(Model(attends), (torch.randn(3, WIDTH),))


def test_attention_is_compared_with_a_call_of_the_model() -> None:
    def attends(model: Any, x: torch.Tensor) -> torch.Tensor:
        x = 2 * x if isinstance(x, FakeTensor) else x
        return nn.functional.scaled_dot_product_attention(x, x, x)

    with pytest.warns(UserWarning, match="forward computes something else than when it is called with the example"):
        capture(Model(attends), (torch.randn(3, WIDTH),))


class Fuses(nn.Module):
    """Its code asks whether two arguments are one tensor."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 if x is y else x + y.sigmoid()


def test_a_tensor_that_is_given_twice_is_one_where_the_model_is_called() -> None:
    x = torch.randn(3, WIDTH)
    with pytest.warns(UserWarning, match=r"than when it is called with the example inputs \(result 0\)"):
        capture(Fuses(), (x, x))


def test_keys_of_results_that_name_a_size_are_told() -> None:
    class Named(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {f"of {x.shape[0]}": x * 2}

    with pytest.warns(UserWarning, match=r"example inputs \(the keys of its results\); stages return what"):
        capture(Named(), (torch.randn(3, WIDTH),), dynamic_shapes={"x": {0: "batch"}})


class Entries(nn.Module):
    """A function of a dict."""

    def __init__(self, compute: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, parts: dict[str, torch.Tensor]) -> Any:
        return self.compute(parts)


def parts() -> dict[str, torch.Tensor]:
    return {"text": torch.randn(3, WIDTH), "image": torch.randn(3, WIDTH)}


def test_the_order_of_entries_is_told_where_results_depend_on_it() -> None:
    with pytest.warns(UserWarning, match=r"^results depend on the order of the entries of parts; stages take that of"):
        capture(Entries(lambda d: torch.cat([*d.values()])), (parts(),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(Entries(lambda d: {name: part * 2 for name, part in d.items()}), (parts(),))
        capture(Entries(lambda d: d["image"] - d["text"]), (parts(),))


def hooked(hook: Any) -> Model:
    model = Model(lambda model, x: 1)
    model.register_forward_hook(hook)
    return model


def test_what_a_hook_keeps_is_named() -> None:
    seen = [0]

    def counts(module: nn.Module, given: Any, made: torch.Tensor) -> torch.Tensor:
        seen[0] += 1
        return made * seen[0]

    with pytest.warns(UserWarning, match=r"^forward changes seen\[0\]; stages keep"):
        capture(hooked(counts), (torch.randn(3, WIDTH),))
    assert seen == [0]


def test_hooks_that_forward_registers_at_each_call_are_named() -> None:
    def registers(module: nn.Module, given: Any, made: torch.Tensor) -> torch.Tensor:
        module.register_forward_hook(lambda module, given, made: made * 2)
        return made

    with pytest.warns(UserWarning, match="^forward changes _forward_hooks; stages keep"):
        capture(hooked(registers), (torch.randn(3, WIDTH),))


def test_hooks_are_given_the_arguments_by_position() -> None:
    model = Model(lambda model, x: 1)
    model.register_forward_pre_hook(lambda module, given: (given[0] * 3,))
    assert quietly(model, 3, 3) == []


def test_hooks_on_all_modules_are_warned_of() -> None:
    registered = register_module_forward_hook(lambda module, given, made: None)
    try:
        with pytest.warns(UserWarning, match="hooks on all modules are registered"):
            capture(Model(lambda model, x: 1), (torch.randn(3, WIDTH),))
    finally:
        registered.remove()


def test_seeding_is_warned_of() -> None:
    def seeded(model: Any, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return torch.rand_like(x)

    with pytest.warns(UserWarning, match="forward seeds torch's random numbers; stages do not"):
        capture(Model(seeded), (torch.randn(3, WIDTH),))


def replaced(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.layer.bias = nn.Parameter(model.layer.bias * 0.5 + 1)
    return x


def registered(model: Any, x: torch.Tensor) -> torch.Tensor:
    if "sum" not in model._buffers:
        model.register_buffer("sum", torch.zeros(WIDTH))
    model.sum += x.mean(0)
    return model.sum


@pytest.mark.parametrize(("scale", "state"), [(replaced, "layer.bias"), (registered, "sum")])
def test_what_forward_registers_anew_is_state(scale: Any, state: str) -> None:
    model = Model(scale)
    before = dict(model.named_parameters())
    assert quietly(model, 3, 3, 3) == [state]
    assert not dict(model.named_buffers())
    assert all(p is before[name] for name, p in model.named_parameters())


@pytest.mark.parametrize("question", ["is_compiling", "is_exporting", "is_dynamo_compiling"])
def test_a_model_that_asks_if_it_is_exported_is_recorded_as_it_is_called(question: str) -> None:
    assert quietly(Model(lambda model, x: 2 if getattr(torch.compiler, question)() else 1), 3, 3) == []


def by_rows(model: Any, x: torch.Tensor) -> Any:
    return 3 if torch.compiler.is_exporting() else x.shape[0]


def by_both(model: Any, x: torch.Tensor) -> Any:
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        raise RuntimeError("this form is torch.compile's alone")
    return 1


def by_value(model: Any, x: torch.Tensor) -> Any:
    return 1 if torch.compiler.is_exporting() or x.sum().item() < 1e9 else 2


@pytest.mark.parametrize("scale", [by_rows, by_both, by_value])
def test_code_that_asks_for_the_export_alone_is_recorded_as_it_is_called_if_it_can_be(scale: Any) -> None:
    model, calls = Model(scale), [Call.of(torch.randn(n, WIDTH)) for n in (3, 5)]
    graph = capture(model, calls[0].args, dynamic_shapes={"x": {0: "batch"}})
    for want, got in zip(run_model(model, calls), run_graph(graph, calls, dict(model.state_dict())), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


class LeavesMaskOut(nn.Module):
    """A model that looks at a mask only where it is called, as those of transformers do."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if not is_tracing(mask) and mask.all():
            return x * 2
        return x + mask


def test_an_input_that_a_model_looks_at_where_it_is_called_is_fixed() -> None:
    x, mask = torch.randn(3, WIDTH), torch.ones(3, WIDTH, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = capture(LeavesMaskOut(), (x, mask), dynamic_shapes={"mask": {0: "rows"}}, soft=True)
    assert graph.notes[0] == f"`mask` is fixed at {mask.tolist()}: its values decide shapes"
    torch.testing.assert_close(interpret(graph, [x], {}).outputs, [x * 2])
    with pytest.warns(UserWarning, match="while it is exported, forward computes something else"):
        capture(LeavesMaskOut(), (x, mask), dynamic_shapes={"mask": {0: "rows"}, "x": {0: "rows"}})


def by_values(model: Any, x: torch.Tensor) -> int:
    return 2 if torch.compiler.is_compiling() or x.sum() == x.sum() + 1 else 1


def by_type(model: Any, x: torch.Tensor) -> int:
    return 2 if isinstance(x, FakeTensor) else 1


def by_name(model: Any, x: torch.Tensor) -> float:
    return {"3": 2.0}.get(str(x.shape[0]), 1.0)


@pytest.mark.parametrize("scale", [by_values, by_type, by_name])
def test_a_model_that_computes_something_else_while_it_is_exported_is_warned_of(scale: Any) -> None:
    message = r"while it is exported, forward computes something else .* \(result 0\); stages return what was exported"
    with pytest.warns(UserWarning, match=message):
        capture(Model(scale), (torch.randn(3, WIDTH),), dynamic_shapes={"x": {0: "batch"}})


@pytest.mark.filterwarnings("ignore:forward returns something else")
def test_a_generator_of_random_numbers_is_refused_by_name_and_line() -> None:
    def own_numbers(model: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.rand(x.shape, generator=model.numbers)

    message = (
        r"the model uses a Generator, .* in the model \(tests/pure/ir/.*\n?.*; draw from torch's own random numbers"
    )
    with pytest.raises(CaptureError, match=message):
        capture(Model(own_numbers, numbers=torch.Generator()), (torch.randn(3, WIDTH),))


def test_a_default_dtype_that_forward_sets_is_stated() -> None:
    def precise(model: Any, x: torch.Tensor) -> torch.Tensor:
        torch.set_default_dtype(torch.float64)
        try:
            return torch.ones(WIDTH)
        finally:
            torch.set_default_dtype(torch.float32)

    assert quietly(Model(precise), 3, 3) == []
