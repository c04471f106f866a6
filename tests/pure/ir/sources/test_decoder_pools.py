"""Pools of pages and of slots: what rows find on them, and which change in place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ir.analysis.interpret import interpret
from ir.analysis.pools import updated_in_place, with_pools
from ir.capture import capture
from ir.decoding import Decoding
from ir.sources.decoder.rows import TextRows
from ir.sources.decoder.terms import page_for


def test_rows_find_what_they_stored_on_whatever_pages() -> None:
    pool = torch.zeros(6, 2, 1, 1)
    tokens = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]])[:, None, :, None]
    ids, table = torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[5, 2], [3, 0]])
    rows = TextRows.of(ids, torch.tensor([0, 1]), torch.tensor([3, 1]), table, page=2)
    found = rows.put(pool, tokens)[:, 0, :, 0]
    assert found[0, :3].tolist() == [1, 2, 3]
    assert found[1, 1] == 4
    assert rows.mask[:, 0, -1].tolist() == [[True, True, True, False], [True, True, False, False]]
    assert rows.mask.any(-1).all(), "a row of padding that sees nothing would be NaN"


def test_pages_are_small_where_texts_are_short() -> None:
    assert [page_for(n) for n in (20, 64, 1000, 100_000)] == [4, 8, 64, 256]


class Keeps(nn.Module):
    """Stores rows in a pool, and returns what is there, or what was there before."""

    pool: Tensor

    def __init__(self, before: bool = False) -> None:
        super().__init__()
        self.register_buffer("pool", torch.zeros(5, 2, 3), persistent=False)
        self.before = before

    def forward(self, x: Tensor, pages: Tensor) -> Tensor:
        old = self.pool.sum() if self.before else 0.0
        self.pool.index_put_((pages, pages % 2), x)
        return self.pool[pages] + old


class Moves(nn.Module):
    """Reads states from slots and stores new ones, made of them; `late` reads them again for its result."""

    pool: Tensor

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.register_buffer("pool", torch.zeros(5, 3), persistent=False)
        self.late = late

    def forward(self, x: Tensor, slots: Tensor) -> Tensor:
        state, again = self.pool[slots], self.pool[slots] if self.late else 0
        self.pool.index_put_((slots,), state + x)
        return state * 2 + again


class TestPools:
    call = (torch.randn(2, 3), torch.tensor([1, 4]))
    decoding = Decoding(page=2, pages=9, pools=("pool",))

    @pytest.mark.parametrize("before", [False, True])
    def test_have_the_pages_that_are_asked_for_and_change_in_place_where_nothing_reads_what_they_held(
        self, before: bool
    ) -> None:
        model = Keeps(before)
        graph = with_pools(capture(model, self.call), self.decoding)
        [state] = graph.states
        assert (state.type.shape, state.zeros, state.data) == ((9, 2, 3), True, None)
        assert list(updated_in_place(graph)) == ([] if before else [state])
        found = interpret(graph, self.call, {})
        again = interpret(graph, (self.call[0] * 2, torch.tensor([8, 1])), {}, found.state)
        assert torch.equal(found.outputs[0], model(*self.call))
        assert found.state["pool"][1, 1].equal(self.call[0][0])
        assert again.state["pool"][1, 1].equal(2 * self.call[0][1])
        assert not found.state["pool"][8].any()

    @pytest.mark.parametrize("late", [False, True])
    def test_of_slots_change_in_place_where_all_that_is_read_of_them_makes_what_they_become(self, late: bool) -> None:
        graph = with_pools(capture(Moves(late), self.call), Decoding(page=1, slots=9, slot_pools=("pool",)))
        assert graph.states[0].type.shape == (9, 3)
        assert list(updated_in_place(graph)) == ([] if late else [graph.states[0]])
        found = interpret(graph, self.call, {})
        again = interpret(graph, self.call, {}, found.state)
        assert again.outputs[0].equal(self.call[0] * (3 if late else 2))

    def test_are_followed_without_the_functional_form_of_the_whole_program(self) -> None:
        graph = capture(Keeps(), self.call)
        [index_put, index] = [node for node in graph.nodes if "index" in str(node.op)]  # type: ignore[union-attr]
        assert index.operands[0] is index_put.results[0], "what is read is the new value"
        assert graph.updates == ((graph.states[0], index_put.results[0]),)
