"""Pools of a decoder in the plan: what a step costs, what it needs, what is kept together, how many texts fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ir.analysis.memory import peak_bytes, stored_bytes
from ir.analysis.pools import page_bytes, with_pools
from ir.capture import capture
from ir.decoding import Decoding
from ir.errors import CompileError, PlanError
from ir.graph import Graph
from ir.machine.cluster import Cluster
from passes.annotate_cost import AnnotateCost
from passes.compilation.sizes.pool_sizes import decoding_for
from passes.compilation.sizes.pools import Room, room_line, with_room
from passes.cut.largest_room import with_largest_room
from passes.group_shared import GroupShared
from passes.propagate_shapes import PropagateShapes
from tests.support.models.planning import machine, steps

DECODING = Decoding(page=4, max_length=20, pools=("pool",))
ROW = 4 * 3 * 4  # bytes of a page


class Keeps(nn.Module):
    """Stores rows in a pool, and reads what is there in two places."""

    pool: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pool", torch.zeros(5, 4, 3), persistent=False)

    def forward(self, x: Tensor, table: Tensor, input_ids: Tensor) -> Tensor:
        self.pool.index_put_((table, table % 4), x)
        seen = self.pool[table].flatten(0, 1)
        return (seen * 2).sum() + x.relu() + (seen.transpose(0, 1) + 1).mean()


@pytest.fixture(scope="module")
def captured() -> Graph:
    return capture(Keeps(), (torch.randn(2, 3), torch.tensor([1, 4]), torch.zeros(2, 1, dtype=torch.int64)))


def costed(graph: Graph, pages: int) -> Graph:
    cluster = machine(2)
    graph = with_pools(graph, replace(DECODING, pages=pages))
    return AnnotateCost().run(PropagateShapes().run(graph, cluster), cluster)


def test_an_update_costs_what_it_writes_and_needs_no_second_pool(captured: Graph) -> None:
    small, large = costed(captured, 5), costed(captured, 5000)
    [store] = [node for node in small.nodes if "index_put_" in str(node.op)]  # type: ignore[union-attr]
    assert store.cost.bytes == 2 * (2 * 3 * 4) + 2 * (2 * 8)
    assert [node.cost for node in small.nodes] == [node.cost for node in large.nodes]
    assert peak_bytes(small) == peak_bytes(large)
    assert stored_bytes(large.states) == 5000 * ROW


def test_readers_of_what_rows_have_in_a_pool_stay_beside_it(captured: Graph) -> None:
    graph = GroupShared().run(costed(captured, 5), machine(2))
    bound = {str(node.op) for node in graph.nodes if node.group}  # type: ignore[union-attr]
    assert bound >= {"aten.index_put_.default", "aten.index.Tensor", "aten.mul.Tensor", "aten.add.Tensor"}
    assert "aten.relu.default" not in bound


class TestRoom:
    def test_for_texts_or_tokens(self, captured: Graph) -> None:
        assert with_room(captured, DECODING, Room(sequences=3), machine(2)).decoding.pages == 1 + 3 * 5
        graph = with_room(captured, DECODING, Room(tokens=50), machine(2))
        assert graph.decoding.pages == 1 + 13
        assert room_line(graph).startswith("room for 52 tokens: 2 texts of 20 (")
        assert page_bytes(graph) == (ROW, 0)

    def test_for_32_texts_or_those_that_fit(self, captured: Graph) -> None:
        assert with_room(captured, DECODING, Room(), machine(2)).decoding.pages == 1 + 32 * 5
        assert with_room(captured, DECODING, Room(), sized(4 * 5 * ROW)).decoding.pages == 1 + 7 * 5
        with pytest.raises(CompileError, match="no text of 20 tokens fits beside the weights"):
            with_room(captured, DECODING, Room(), sized(ROW))

    def test_of_accelerators_is_for_the_most_texts_whose_cut_is_nearly_the_best(self, captured: Graph) -> None:
        cluster = accelerators(2000 * ROW)
        graph = with_room(captured, DECODING, Room(), cluster)
        most = graph.decoding.most_texts
        assert 300 < most < 4000 / 5
        [*_, last] = steps(graph, cluster, time_limit=1.0)
        assert last.graph.decoding.most_texts == 0
        assert last.graph.states[0].type.shape[0] == last.graph.decoding.pages
        texts = (last.graph.decoding.pages - 1) // 5
        assert texts <= 399, "one device holds the pool of the one layer"
        assert texts > 350
        assert with_room(captured, DECODING, Room(sequences=3), cluster).decoding.most_texts == 0

    @pytest.mark.parametrize("last", [1, 7, 40, 100])
    def test_is_found_within_a_twentieth(self, captured: Graph, last: int) -> None:
        """The best cut is 1.5 % worse from 4 texts on, and too bad, or none, behind the `last` ones."""
        graph = with_room(captured, replace(DECODING, most_texts=100), Room(sequences=1), machine(2))
        tried: list[int] = []

        def value(candidate: Graph) -> float:
            texts = (candidate.decoding.pages - 1) // 5
            assert candidate.states[0].type.shape[0] == candidate.decoding.pages
            tried.append(texts)
            if texts > 2 * last:
                raise PlanError("no cut fits")
            return 1.03 if texts > last else 1.015 if texts > 3 else 1.0

        found = (with_largest_room(graph, value).decoding.pages - 1) // 5
        assert last / 1.05 - 1 <= found <= last
        assert len(tried) <= 7

    def test_of_sliding_layers_is_that_of_the_window_and_a_step(self) -> None:
        sliding = Decoding(page=16, max_length=4096, window=100, pools=("a",), window_pools=("b",))
        assert decoding_for(sliding, 2) == replace(sliding, pages=1 + 2 * 256, window_pages=1 + 2 * (7 + 32 + 1))


def accelerators(memory: float) -> Cluster:
    """Two devices that are no CPUs, with so much memory each."""
    devices = (replace(device, name=f"cuda:{i}") for i, device in enumerate(sized(memory).devices))
    return replace(machine(2), devices=tuple(devices))


def sized(memory: float) -> Cluster:
    """Two devices with so much memory each."""
    cluster = machine(2)
    return replace(cluster, devices=tuple(replace(device, memory=memory) for device in cluster.devices))
