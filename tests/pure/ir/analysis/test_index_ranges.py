"""The values that inputs may have which index tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ir.analysis.index_ranges import index_ranges
from ir.capture import capture


class Looked(nn.Module):
    """A table of ten rows and one of six, and what is looked up in them."""

    def __init__(self, look: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.ten, self.six, self.look = nn.Embedding(10, 4), nn.Embedding(6, 4), look

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.look(self, ids)


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (lambda m, ids: m.ten(ids), (0, 9)),
        (lambda m, ids: m.ten(ids.view(-1)).sum(0) + m.six(ids.transpose(0, 1).int()), (0, 5)),
        (lambda m, ids: m.ten.weight[ids], (-10, 9)),
        (lambda m, ids: m.ten.weight[:, :3].index_select(0, ids.flatten()), (0, 9)),
        (lambda m, ids: m.ten(ids[:, 1:]), None),  # the first of each row may be anything
        (lambda m, ids: m.ten(ids.clamp(0, 9)), None),
        (lambda m, ids: m.ten.weight.sum() + ids, None),
    ],
)
def test_what_indexes_a_table_is_known(
    look: Callable[[nn.Module, torch.Tensor], torch.Tensor], expected: tuple[int, int] | None
) -> None:
    graph = capture(Looked(look), (torch.zeros(2, 3, dtype=torch.int64),), dynamic_shapes={"ids": {0: "batch"}})
    assert index_ranges(graph) == ({} if expected is None else {"ids": expected})
