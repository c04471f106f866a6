"""Names of sizes that follow from one other size, and where a function has them."""

from __future__ import annotations

import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.utils._sympy.functions import FloorDiv, Max, Mod

from codegen.spelling.size_names import size_name
from codegen.text.stage_source import StageFile, emit
from ir.capture import capture
from ir.plan import plan_stages
from passes.insert_transfers import InsertTransfers
from tests.support.models.planning import cut, machine

height = sympy.Symbol("height", integer=True, positive=True)


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (FloorDiv(height - 1, 4) + 1, "height_4"),
        (FloorDiv(FloorDiv(height - 1, 4) - 7, 8) + 1, "height_32"),
        (8 * FloorDiv(height + 7, 8), "height_rounded"),
        (8 * FloorDiv(height + 7, 8) - height, "height_rest"),
        (Mod(height, 8) + 12, "height_rest"),
        (Max(3 * height - 1, 7), "height_x3"),
        (2 ** (height - 3), "height_rest"),
    ],
)
def test_a_size_is_named_after_the_one_that_it_follows_from(size: sympy.Expr, name: str) -> None:
    assert size_name(size) == name


class Patches(nn.Module):
    """A convolution whose result is taken apart and put together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 3, stride=4, padding=1) for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        batch, _, rows, columns = x.shape
        x = x.flatten(2).transpose(1, 2).reshape(batch, rows * columns, 3) * 2
        return x.transpose(1, 2).reshape(batch, 3, rows, columns) + x.sum()


def test_a_long_size_has_a_name_where_it_is_there_several_times() -> None:
    graph = capture(Patches(), (torch.randn(2, 3, 32, 40),), dynamic_shapes={"image": {2: "height", 3: "width"}})
    plan = plan_stages(InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1)), machine(1))
    source = emit(StageFile(plan, plan.stages[0], "patches")).source
    lines = [line.strip() for line in source.splitlines() if "height_4" in line]
    assert lines == [
        "height_4 = (height - 1) // 4 + 1",
        "x = x.reshape(2, height_4 * width_4, 3) * 2",
        "total = x.transpose(1, 2).reshape(2, 3, height_4, width_4) + x.sum()",
    ]
