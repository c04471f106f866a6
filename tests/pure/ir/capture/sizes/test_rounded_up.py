"""Sizes padded to a multiple of a chunk: one form for each, and programs that are one with and without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._sympy.functions import CeilToInt, FloorDiv, IntTrueDiv, Mod, PythonMod

from ir.capture import capture
from ir.capture.checks import other_answers
from ir.capture.sizes.allowed import guard_text
from ir.capture.sizes.rounded_up import in_one_form
from ir.errors import CaptureError
from ir.graph import Graph
from tests.support.checking import Call, assert_same, run_graph, run_model
from tests.support.models.functions import Function
from tests.support.models.model_cases import X
from tests.support.models.written import WIDTH

n: Any = sympy.Symbol("n", integer=True, positive=True)
m: Any = sympy.Symbol("m", integer=True, positive=True)
CHUNK = 8
REMAINDER: Any = Mod(n, CHUNK)


@pytest.mark.parametrize(
    ("expr", "of_python"),
    [
        (Mod(8 - REMAINDER, 8), lambda n, m: (8 - n % 8) % 8),
        (PythonMod(-n, 8), lambda n, m: -n % 8),
        (PythonMod(11 - n, 8), lambda n, m: (11 - n) % 8),
        (PythonMod(3 - n - 2 * m, 8), lambda n, m: (3 - n - 2 * m) % 8),
        (CeilToInt(IntTrueDiv(n + m, 8)), lambda n, m: -(-(n + m) // 8)),
        (FloorDiv(-n, 8), lambda n, m: -n // 8),
        (FloorDiv(3 - n, 8), lambda n, m: (3 - n) // 8),
    ],
)
def test_what_is_rounded_up_is_a_floor(expr: sympy.Basic, of_python: Callable[[int, int], int]) -> None:
    form = in_one_form(expr)
    assert form != expr
    assert not form.atoms(Mod, PythonMod, CeilToInt)
    for size in range(1, 40):
        assert form.subs({n: size, m: 5}) == of_python(size, 5)


@pytest.mark.parametrize("expr", [Mod(n, 8), FloorDiv(n, 8), PythonMod(n - m, 8), FloorDiv(n - m, 8), Mod(n, m), n * m])
def test_other_expressions_stay(expr: sympy.Basic) -> None:
    assert in_one_form(expr) is expr


def padding(seq: Any) -> Any:
    return (CHUNK - seq % CHUNK) % CHUNK


def summed(x: Tensor) -> Tensor:
    """Sums within chunks, for all that is padded."""
    return F.pad(x, (0, 0, 0, padding(x.shape[1]))).unflatten(1, (-1, CHUNK)).cumsum(2).flatten(1, 2)


def cut_if_padded(x: Tensor) -> Tensor:
    y = summed(x)
    return y[:, : x.shape[1]] if padding(x.shape[1]) > 0 else y


def recorded(compute: Callable[[Tensor], Any], seq: int) -> Graph:
    return capture(Function(compute), (torch.randn(2, seq, WIDTH),), dynamic_shapes=X)


@pytest.mark.parametrize("seq", [18, 24, 5, 8])
def test_a_chunked_model_takes_any_length(seq: int) -> None:
    graph = recorded(cut_if_padded, seq)
    assert not graph.guards
    assert not graph.notes
    calls = [Call.of(torch.randn(batch, length, WIDTH)) for batch in (1, 3) for length in (1, 2, 7, 8, 9, 16, 17, 40)]
    assert_same([*run_model(Function(cut_if_padded), calls)], [*run_graph(graph, calls, {})])


def test_a_condition_stays_where_its_other_answer_is_another_program() -> None:
    graph = recorded(lambda x: summed(x) + 1 if padding(x.shape[1]) > 0 else summed(x), 18)
    [guard] = graph.guards
    assert guard_text(guard) == "seq - 8*((seq + 7) // 8) < 0"


def test_a_condition_stays_where_the_code_behind_its_other_answer_has_another() -> None:
    """The same program at 24, where it would be looked at, and not at 32 and more."""

    def compute(x: Tensor) -> Tensor:
        seq = x.shape[1]
        if padding(seq) > 0:
            return summed(x)[:, :seq]
        return summed(x) if seq < 32 else x

    [guard] = recorded(compute, 18).guards
    assert guard_text(guard) == "seq - 8*((seq + 7) // 8) < 0"


def test_chunks_of_which_code_takes_two_are_two_or_more() -> None:
    graph = recorded(lambda x: summed(x).unflatten(1, (-1, CHUNK))[:, :2], 18)
    [guard] = graph.guards
    assert guard_text(guard) == "(seq + 7) // 8 > 1"
    [note] = graph.notes
    assert note == "`seq` must be 9 or more: the stages are right where (seq + 7) // 8 > 1"


def test_lengths_are_fixed_by_code_that_takes_one_number_of_chunks() -> None:
    with pytest.raises(CaptureError, match="cannot be dynamic"):
        recorded(lambda x: x + summed(x)[:, :18], 18)


def test_what_a_recording_at_larger_sizes_has_shown_is_not_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, resized = list[int](), other_answers._resized

    def counted(*given: Any) -> Any:
        there = resized(*given)
        sizes.append(there.tensors[0].shape[1])
        return there

    monkeypatch.setattr(other_answers, "_resized", counted)
    assert not recorded(cut_if_padded, 5).guards
    assert len(sizes) == len({*sizes}) == 2  # of several chunks, with padding and without


def lies_apart_if_many(x: Tensor) -> Tensor:
    """As diffusers' models, which work around kernels that took no large batches."""
    y = x.transpose(1, 2)
    return torch.relu(y.contiguous() if x.shape[0] >= 64 else y) * 2


def test_a_recording_at_larger_sizes_does_not_take_the_place_of_one_that_it_excludes() -> None:
    graph = capture(Function(lies_apart_if_many), (torch.randn(3, 5, 8),), dynamic_shapes={"x": {0: "batch"}})
    [(low, high)] = graph.ranges.values()
    assert low == 1
    assert high in (63, None)
