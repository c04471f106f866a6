"""What a decoder's step is predicted to take beside its operators, where there are kernels for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ir.cost import Cost
from ir.decoding import Decoding
from ir.graph import Call, Value
from ir.paged.paged_operator import PAGED_ATTENTION
from ir.quantized_linear.kernel_choice import MOST_ROWS
from passes.cost_models.predictions import Predictions
from passes.cost_models.steps import SPEED_OF_PAGES, WAITING
from tests.support.models.graphs import graph, linear, param, value
from tests.support.models.planning import DEVICE

GPU = replace(DEVICE, name="cuda:0", launch=0.25)
SECOND = int(GPU.speed(1 << 40))  # bytes a second


def beside(node: Call, x: Value, decodes: bool = True, device: str = "cuda:0") -> float:
    """Seconds in which a node of a graph takes longer than its cost says."""
    given = graph([x], [node], [node.results[0]])
    decoder = replace(given, decoding=Decoding(page=4, max_length=8)) if decodes else given
    both = (Predictions(one).time(node, replace(GPU, name=device)).device for one in (decoder, given))
    return next(both) - next(both)


@pytest.mark.parametrize(("rows", "launches"), [(1, 0), (2, 1), (MOST_ROWS, 1), (MOST_ROWS + 1, 0)])
def test_products_of_few_rows_have_a_kernel_that_adds_up_their_parts(rows: int, launches: int) -> None:
    x = value("x", rows, 1, 4)
    node = linear(x, param("weight"), "y", cost=Cost(0, 0))
    assert beside(node, x) == launches * GPU.launch
    assert beside(node, x, device="xpu") == 0
    assert beside(node, x, decodes=False) == 0


@pytest.mark.parametrize(("seq", "takes"), [(1, GPU.launch + WAITING + 1 / SPEED_OF_PAGES - 1), (8, 0)])
def test_attention_of_a_step_reads_pages_slower_than_they_are_copied(seq: int, takes: float) -> None:
    query, rest = value("query", 2, 4, seq, 8), [value(name) for name in ("keys", "values", "table", "last")]
    node = Call(op=PAGED_ATTENTION, args=(query, *rest, 1.0), results=(value("y"),), cost=Cost(0, SECOND))
    assert beside(node, query) == pytest.approx(takes)
