"""Sizes that were declared dynamic and of which the model's code leaves a few values, or one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from torch import nn
from torch.export import Dim
from torch.utils._sympy.functions import FloorDiv, Mod

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.sizes.allowed import allowed_values, guard_notes, guard_text
from ir.capture.sizes.dynamic import FixedSizes, merged_shapes
from ir.graph import Graph

pytestmark = pytest.mark.slow

n, m = (sympy.Symbol(name, integer=True, positive=True) for name in ("n", "m"))


class Function(nn.Module):
    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, samples: torch.Tensor) -> Any:
        return self.compute(samples)


def recorded(compute: Callable[[torch.Tensor], Any], size: int, name: Any = "samples", soft: bool = False) -> Graph:
    dynamic = {"samples": {0: "batch", 1: name}}
    return capture(Function(compute), (torch.ones(2, size),), dynamic_shapes=dynamic, soft=soft)


@pytest.mark.parametrize(
    ("guard", "example", "values"),
    [
        (sympy.Eq(FloorDiv(n, 32) + 1, 51), 1605, "1600 to 1631"),
        (sympy.Eq(Mod(n, 8), 0), 64, "a multiple of 8"),
        (sympy.Eq(Mod(n, 8), 1), 65, "a multiple of 8 plus 1"),
        (n >= 7, 9, "7 or more"),
        (sympy.Le(n, 40), 9, "1 to 40"),
        (sympy.Ne(n, 11), 9, "1 to 10, 12, 13, 14 and so on"),
        (sympy.Ne(n, 11), 12, "12 or more, 10, 9, 8 and so on"),
        (sympy.Eq(n, 9), 9, "9"),
        (sympy.Or(sympy.Eq(n, 9), sympy.Eq(n, 20), sympy.Eq(n, 21)), 9, "9, 20, 21 and so on"),
    ],
)
def test_the_values_that_a_guard_leaves(guard: sympy.Basic, example: int, values: str) -> None:
    allowed = allowed_values(n, [guard], (1, None), example)
    assert str(allowed) == values
    assert allowed.is_single == (values == "9")


def test_guards_read_as_python() -> None:
    assert guard_text(sympy.Eq(Mod(n, 8), 0)) == "n % 8 == 0"
    assert guard_text(sympy.Eq(Mod(n + 4, 2 * sympy.Symbol("m", integer=True)), 0)) == "(n + 4) % (2*m) == 0"
    assert guard_text(sympy.Le(n, 2 * m)) == "n <= 2*m"


def test_a_condition_that_the_neighbours_of_the_example_meet_is_noted_with_its_values() -> None:
    graph = recorded(lambda x: x * 2 if x.shape[1] // 32 + 1 == 51 else x, 1605)
    [note] = graph.notes
    assert note.startswith("`samples` must be 1600 to 1631: the stages are right where samples // 32 + 1 == 51 (at ")
    assert "test_allowed_sizes.py:" in note


def test_a_table_that_fits_some_sizes_is_noted_with_its_values() -> None:
    table = torch.ones(51)
    [note] = recorded(lambda x: nn.functional.avg_pool1d(x, 32, 32, padding=16) + table, 1610).notes
    assert note.startswith("`samples` must be 1600 to 1631")


def test_a_condition_on_two_sizes_is_noted() -> None:
    [note] = recorded(lambda x: x + 1 if x.shape[1] > 2 * x.shape[0] else x, 9).notes
    assert note.startswith("the stages are right where samples > 2*batch (at ")
    assert note.endswith(": other `batch` and `samples` are refused")


def test_a_remainder_that_torch_asks_for_is_noted() -> None:
    graph = recorded(lambda x: x.tensor_split(2, 1)[1], 41)
    [note] = graph.notes
    assert note == "`samples` must be a multiple of 2 plus 1: the stages are right where samples % 2 > 0"


def test_a_condition_that_follows_from_others_is_not_noted() -> None:
    guards = [sympy.Eq(Mod(n, 2), 0), sympy.Eq(Mod(n, FloorDiv(n, 2)), 0), n <= 1000]
    told = list(guard_notes(guards, {n: (2, None)}, {n: 4}, ()))
    assert [note.partition(":")[0] for note in told] == ["`n` must be a multiple of 2", "`n` must be 2 to 1000"]


def test_a_condition_is_noted_where_one_before_leaves_few_sizes_to_look_at() -> None:
    told = list(guard_notes([sympy.Eq(m, n + 1), m + n <= 100], {m: (2, None), n: (2, None)}, {m: 33, n: 32}, ()))
    assert [note.partition(":")[0] for note in told] == [
        f"the stages are right where {c}" for c in ("m == n + 1", "m + n <= 100")
    ]


def test_a_condition_on_one_size_is_not_implied_by_one_on_another() -> None:
    graph = recorded(lambda x: (x if x.shape[0] == 3 else x + 1).unflatten(1, (-1, 5)), 40)
    assert [guard_text(guard) for guard in graph.guards] == ["samples % 5 == 0", "batch != 3"]


def test_a_condition_that_the_example_alone_meets_fixes_the_size() -> None:
    compute = lambda x: x * 2 if (x.shape[1] - 40) ** 2 < 1 else x  # noqa: E731
    with pytest.raises(FixedSizes, match=r"`samples` cannot be dynamic: the model works for 40 alone, as"):
        recorded(compute, 40)
    graph = recorded(compute, 40, soft=True)
    assert [str(s) for s in graph.hints] == ["batch"]
    assert graph.notes[0].endswith("it stays at that")


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.reshape(-1, 5, 8).sum(1),
        lambda x: sum(x[:, i] for i in range(x.shape[1])),
        lambda x: x @ torch.ones(40, 3),
    ],
)
def test_a_size_that_may_be_dynamic_stays_fixed_where_it_cannot(compute: Any) -> None:
    graph = recorded(compute, 40, Dim.AUTO)
    assert [str(s) for s in graph.hints] == ["batch"]
    [note] = graph.notes
    assert "`samples_1`" in note
    with pytest.raises(Exception, match=r"samples_1|cannot be exported"):
        recorded(compute, 40, Dim.DYNAMIC)


def test_a_size_that_may_be_dynamic_is_where_it_can() -> None:
    assert {str(s) for s in recorded(torch.relu, 40, Dim.AUTO).hints} == {"batch", "samples_1"}


@pytest.mark.parametrize(
    ("declared", "given", "both"),
    [
        ({"x": {0: "batch"}}, {"x": {1: "seq"}}, {"x": {0: "batch", 1: "seq"}}),
        ({"x": {0: "batch"}, "y": {0: "batch"}}, {"x": {0: "b"}}, {"x": {0: "b"}, "y": {0: "batch"}}),
        ({"x": ("batch", None, "w")}, {"x": {1: "h"}}, {"x": {0: "batch", 1: "h", 2: "w"}}),
        ({"x": None}, {"x": {1: "h"}}, {"x": {1: "h"}}),
        ({"x": [{0: "batch"}]}, {"x": {1: "h"}}, {"x": {1: "h"}}),
    ],
)
def test_dynamic_shapes_merge_by_dimension(declared: Any, given: Any, both: Any) -> None:
    assert merged_shapes(declared, given) == both


# ---- examples whose own size is 1


@pytest.mark.parametrize(
    ("compute", "why"),
    [
        (
            lambda x: x.squeeze() + 1,
            "for other sizes the model computes something else (at tests/pure/ir/capture/sizes/",
        ),
        (lambda x: x * 2 if x.shape[0] == 1 else x, "for other sizes the model computes something else (at tests/"),
        (lambda x: x.expand(3, 4), "for other sizes, the model cannot be exported: RuntimeError: expand: "),
    ],
)
def test_a_size_of_1_at_which_alone_the_example_runs_stays_at_that(compute: Any, why: str) -> None:
    x = torch.randn(1, 4)
    graph = capture(Function(compute), (x,), dynamic_shapes={"samples": {0: "batch"}})
    [note] = graph.notes
    assert note.startswith(f"`batch` stays at 1, as in the example: {why}")
    assert graph.inputs[0].type.shape == (1, 4)
    assert torch.equal(interpret(graph, [x], {}).outputs[0], compute(x))


def test_a_size_of_1_that_makes_no_difference_is_dynamic() -> None:
    graph = capture(Function(lambda x: x + 1), (torch.randn(1, 4),), dynamic_shapes={"samples": {0: "batch"}})
    assert (graph.notes, list(graph.ranges.values())) == ((), [(1, None)])


def test_sizes_derived_from_another_have_names_of_their_own() -> None:
    half = Dim("half", max=8)
    shapes = {"samples": {0: 2 * half, 1: half + 1}}
    graph = capture(Function(lambda x: x.view(-1, 2, x.shape[1]).sum(1)), (torch.randn(4, 3),), dynamic_shapes=shapes)
    assert {str(symbol): ends for symbol, ends in graph.ranges.items()} == {
        "size_2_times_half": (1, 16),
        "half_plus_1": (1, 9),
    }


# ---- conditions that hold at nearly all sizes


@pytest.mark.parametrize(
    ("asks", "guard"),
    [
        (lambda batch, seq: batch == 11, "batch != 11"),
        (lambda batch, seq: batch * 8 == 88, "8*batch != 88"),
        (lambda batch, seq: batch + 3 == 14, "batch + 3 != 14"),
        (lambda batch, seq: batch * seq == 7, "batch*seq != 7"),
        (lambda batch, seq: batch * seq == 22, "batch*seq != 22"),
        (lambda batch, seq: batch // 32 + 1 == 51, "batch // 32 + 1 != 51"),
        (lambda batch, seq: batch % 13 == 5, "batch % 13 != 5"),
    ],
)
def test_a_condition_that_few_sizes_break_is_a_guard(asks: Callable[[int, int], bool], guard: str) -> None:
    graph = recorded(lambda x: x * 2 if asks(*x.shape) else x, 5, "seq")
    assert [guard_text(found) for found in graph.guards] == [guard]


def test_a_constant_that_is_another_at_a_size_of_1_is_seen() -> None:
    """squeeze() drops the batch, and the size that is the constant is then that of another dimension."""
    compute = lambda x: torch.tensor(x.squeeze().size(1))  # noqa: E731
    graph = capture(Function(compute), (torch.ones(3, 5, 8),), dynamic_shapes={"samples": {0: "batch"}})
    assert graph.ranges == {next(iter(graph.hints)): (2, None)}


class Both(nn.Module):
    """A question about the size of one input, which is found to be that of the other only later."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * 2 if x.shape[0] % 2 == 0 else x - 1) + y.view(x.shape)


def test_a_condition_on_a_size_that_turns_out_to_be_another_is_a_guard() -> None:
    dynamic = {"x": {0: "batch"}, "y": {0: "batch"}}
    graph = capture(Both(), (torch.ones(3, 4), torch.ones(3, 4)), dynamic_shapes=dynamic)
    assert [guard_text(guard) for guard in graph.guards] == ["batch % 2 != 0"]


@pytest.mark.parametrize(
    ("compute", "guards"),
    [
        (lambda x: x[:, : x.shape[0] // 2 + 1], ["seq >= batch // 2 + 1"]),
        (lambda x: x[:, -x.shape[0] :].sum(-1), ["batch <= seq"]),
        (lambda x: x[:, : x.shape[1] // 2 + 1], []),
    ],
)
def test_the_end_of_a_slice_by_another_size_is_a_guard(
    compute: Callable[[torch.Tensor], torch.Tensor], guards: list[str]
) -> None:
    graph = capture(Function(compute), (torch.ones(3, 5),), dynamic_shapes={"samples": {0: "batch", 1: "seq"}})
    assert [guard_text(guard) for guard in graph.guards] == guards


def test_a_condition_that_all_sizes_meet_is_not_noted() -> None:
    """Padded to a multiple of 4, any length can be split in fours, which torch asks."""
    compute = lambda x: torch.nn.functional.pad(x, (0, 0, 0, 3 - (x.shape[1] + 3) % 4)).unflatten(1, (-1, 4)).sum(2)  # noqa: E731
    graph = capture(Function(compute), (torch.ones(2, 10, 3),), dynamic_shapes={"samples": {1: "seq"}})
    assert graph.guards
    assert graph.notes == ()
