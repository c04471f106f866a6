"""The difference of two dumps says all that a pass did, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from ir.cost import Cost
from ir.graph import Graph
from ir.location import Where
from ir.text.printer import print_graph
from tests.support.artifacts.dumps import difference
from tests.support.models.graphs import graph, relu, value

x = value("x")
chain = [relu(x, "y0", where=Where("act"))]
for i in range(1, 6):
    chain.append(relu(chain[-1].results[0], f"y{i}"))
BEFORE = graph([x], chain, chain[-1].results)


def found(after: Graph) -> list[str]:
    return difference(print_graph(BEFORE), print_graph(after)).splitlines()


def test_the_same_graph() -> None:
    assert found(BEFORE) == ["nothing"]


def test_notes_that_many_nodes_get_are_written_once() -> None:
    """Neighbours are counted, whatever their modules are."""
    after = BEFORE.map(lambda n: n if n is chain[3] else replace(n, view=True, cost=Cost(0, 8)))
    assert found(after) == ["+view +flops=0 +bytes=8", "    y0 … y2 (3), y4, y5"]


def test_notes_that_go() -> None:
    before = replace(BEFORE, nodes=(replace(chain[0], cost=Cost(8, 1), cheap=True), *chain[1:]))
    after = replace(BEFORE, nodes=(replace(chain[0], cost=Cost(9, 1)), *chain[1:]))
    gone = difference(print_graph(before), print_graph(after))
    assert gone.splitlines() == ["-flops=8 -cheap +flops=9", "    y0"]


def test_lines_that_are_new_and_gone_stand_below_the_line_before_them() -> None:
    other = relu(x, "other", stage=1)
    after = replace(BEFORE, nodes=(*chain[:4], other, chain[5]), placement=(0, 0))
    assert found(after) == [
        "@ graph(x: float32[2, 4]):",
        "+ device 0 runs stages 0, 1",
        "@ y3: float32[2, 4] = aten.relu(y2)",
        "- y4: float32[2, 4] = aten.relu(y3)",
        "+ other: float32[2, 4] = aten.relu(x)  # stage=1",
    ]
