"""fuse-attention: which attention reads pages where they lie, and that it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ir.analysis.interpret import interpret
from ir.analysis.pools import with_pools
from ir.capture import capture
from ir.decoding import Decoding
from ir.graph import Call, Graph, Value
from ir.machine.named import read_cluster
from ir.paged.paged_operator import is_paged
from ir.sizes import at
from ir.sources.decoder.rows import TextRows
from passes.annotate_cost import node_cost
from passes.fusing.fuse_attention import FuseAttention
from passes.options.options import OverPages
from tests.support.models.planning import machine

pytestmark = pytest.mark.slow  # export of a layer for each way to attend

HEADS, KV_HEADS, DIM, PAGE, PAGES = 4, 2, 8, 4, 13
LOW = torch.finfo(torch.float32).min

Attend: TypeAlias = Callable[["Layer", Tensor, Tensor, Tensor, TextRows], Tensor]


class Layer(nn.Module):
    """Stores keys and values in pages, and attends to those of the rows."""

    def __init__(self, attend: Attend, kv_heads: int) -> None:
        super().__init__()
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(PAGES, PAGE, kv_heads, DIM), persistent=False)
        self.sinks, self.slopes = (nn.Parameter(torch.randn(HEADS)) for _ in range(2))
        self.attend = attend

    def forward(self, query: Tensor, new: Tensor, rows: TextRows) -> Tensor:
        new = new[:, : self.keys.shape[2]]  # type: ignore[index]
        return self.attend(self, query, rows.put(self.keys, new), rows.put(self.values, new * 2), rows)  # type: ignore[arg-type]


class Model(nn.Module):
    """A layer for each way to attend, one after another."""

    def __init__(self, ways: Sequence[Attend]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Layer(way, 1 if way is broadcast else KV_HEADS) for way in ways)

    def forward(self, query: Tensor, new: Tensor, lengths: Tensor, counts: Tensor, table: Tensor) -> list[Tensor]:
        rows = TextRows.of(query[:, 0, :, 0], lengths, counts, table, PAGE)
        _ = rows.where, rows.pages, rows.mask
        return [layer(query, new, rows) for layer in self.layers]


def repeated(tensor: Tensor) -> Tensor:
    batch, heads, width, dim = tensor.shape
    each = HEADS // heads
    return tensor[:, :, None].expand(batch, heads, each, width, dim).reshape(batch, heads * each, width, dim)


def grouped(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    return F.scaled_dot_product_attention(query, repeated(keys), repeated(values), rows.mask, scale=0.3)


def natively_grouped(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    return F.scaled_dot_product_attention(query, keys, values, rows.mask, enable_gqa=True)


def interleaved(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    each = HEADS // keys.shape[1]
    key, value = keys.repeat_interleave(each, 1), values[:, :, None].repeat(1, 1, each, 1, 1).flatten(1, 2)
    return F.scaled_dot_product_attention(query, key, value, rows.mask, scale=0.3)


def windowed(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    places = torch.arange(rows.width)[None, None, None]
    mask = rows.mask & (places > rows.asked[:, None, :, None] - 5)
    return F.scaled_dot_product_attention(query, repeated(keys), repeated(values), mask)


def added(mask: Tensor) -> Tensor:
    return torch.where(mask, 0.0, LOW)


def written_out(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    scores = query @ repeated(keys).transpose(-1, -2) / 3.0 + added(rows.mask)
    return (scores.softmax(-1, dtype=torch.float32) @ repeated(values)).transpose(1, 2)


def capped(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    scores = torch.tanh(query @ repeated(keys).transpose(2, 3) * 0.3 / 2.0) * 2.0
    return scores.masked_fill(~rows.mask, LOW).softmax(-1) @ repeated(values)


def with_sinks(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    scores = query @ repeated(keys).transpose(2, 3) * 0.3 + added(rows.mask)
    sinks = layer.sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], -1)
    scores = torch.cat([scores, sinks], -1)
    scores = scores - scores.max(-1, keepdim=True).values
    return scores.softmax(-1)[..., :-1] @ repeated(values)


def sloped(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    bias = layer.slopes[:, None, None] * (torch.arange(rows.width) - rows.width)
    return F.scaled_dot_product_attention(query, repeated(keys), repeated(values), bias + added(rows.mask))


def by_batch_and_head(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    batch, heads, seq, dim = query.shape
    key, value = (repeated(t).reshape(batch * heads, -1, dim) for t in (keys, values))
    scores = torch.bmm(query.reshape(batch * heads, seq, dim), key.transpose(1, 2)).view(batch, heads, seq, -1)
    weights = (scores * 0.3 + added(rows.mask)).softmax(-1)
    return torch.bmm(weights.view(batch * heads, seq, -1), value)


def scaled_later(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    scores = (query @ repeated(keys).transpose(2, 3) + added(rows.mask)) / 3.0
    return scores.softmax(-1) @ repeated(values)


def hidden_by_an_addend(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    scores = query @ repeated(keys).transpose(2, 3)
    return scores.masked_fill(added(rows.mask).bool(), LOW).softmax(-1) @ repeated(values)


def broadcast(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    return (query @ keys.transpose(2, 3) + added(rows.mask)).softmax(-1) @ values


FUSED: dict[Attend, dict[str, Any]] = {
    grouped: {"scale": 0.3},
    natively_grouped: {"scale": DIM**-0.5},
    interleaved: {"scale": 0.3},
    windowed: {"scale": DIM**-0.5, "window": 5},
    written_out: {"scale": pytest.approx(1 / 3)},
    capped: {"scale": pytest.approx(0.3), "cap": 2.0},
    with_sinks: {"scale": 0.3},
    sloped: {"scale": DIM**-0.5},
    by_batch_and_head: {"scale": 0.3},
    scaled_later: {"scale": pytest.approx(1 / 3)},
    hidden_by_an_addend: {"scale": 1.0},
    broadcast: {"scale": 1.0},
}


def unknown_mask(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    places = torch.arange(rows.width)[None, None, None]
    return F.scaled_dot_product_attention(query, repeated(keys), repeated(values), rows.mask & (places % 3 != 1))


def other_heads(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    tiled = values.repeat(1, 2, 1, 1)  # head 1 has the values of key head 1, not of 0
    return F.scaled_dot_product_attention(query, repeated(keys), tiled, rows.mask)


def changed_keys(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    return F.scaled_dot_product_attention(query, repeated(keys).relu(), repeated(values), rows.mask)


def curved(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    places = torch.arange(rows.width)
    return F.scaled_dot_product_attention(query, repeated(keys), repeated(values), places * places + added(rows.mask))


def scaled_slopes(layer: Layer, query: Tensor, keys: Tensor, values: Tensor, rows: TextRows) -> Tensor:
    bias = layer.slopes[:, None, None] * torch.arange(rows.width)
    return ((query @ repeated(keys).transpose(2, 3) + bias + added(rows.mask)) * 0.5).softmax(-1) @ repeated(values)


OTHERS = (unknown_mask, other_heads, changed_keys, curved, scaled_slopes)


def call(seq: int) -> dict[str, Tensor]:
    """Rows of different lengths, padded on the left."""
    torch.manual_seed(1)
    return {
        "query": torch.randn(3, HEADS, seq, DIM),
        "new": torch.randn(3, KV_HEADS, seq, DIM),
        "lengths": torch.tensor([0, 9, 4]),
        "counts": torch.tensor([seq, max(seq - 2, 1), 1]),
        "table": torch.randperm(PAGES - 1).view(3, 4) + 1,
    }


def captured(ways: Sequence[Attend]) -> Graph:
    sizes = {"query": {0: "batch", 2: "seq"}, "new": {0: "batch", 2: "seq"}, "table": {0: "batch", 1: "pages"}}
    shapes = {**sizes, "lengths": {0: "batch"}, "counts": {0: "batch"}}
    graph = capture(Model(ways), (), call(6), dynamic_shapes=shapes)
    names = tuple(f"layers.{i}.{name}" for i in range(len(ways)) for name in ("keys", "values"))
    return with_pools(graph, Decoding(page=PAGE, pages=PAGES, max_length=16, pools=names))


@pytest.fixture(scope="module")
def plain() -> Graph:
    return captured([*FUSED])


@pytest.fixture(scope="module")
def fused(plain: Graph) -> Graph:
    return FuseAttention(OverPages.paged).run(plain, machine(2))


def paged(graph: Graph) -> list[Call]:
    return [node for node in graph.nodes if isinstance(node, Call) and is_paged(node)]


def results(graph: Graph, seq: int) -> list[Tensor]:
    torch.manual_seed(2)
    state = {s.name: torch.randn(PAGES, *s.type.shape[1:]) for s in graph.states}  # type: ignore[arg-type]
    weights = dict(Model([*FUSED]).named_parameters())
    return interpret(graph, [call(seq)[v.name] for v in graph.inputs], weights, state).outputs


def test_attention_reads_pages_where_they_lie(fused: Graph) -> None:
    options = [{n: x for n, x in node.kwargs.items() if not isinstance(x, Value)} for node in paged(fused)]
    assert options == [*FUSED.values()]
    assert [n for node in paged(fused) for n, x in node.kwargs.items() if isinstance(x, Value)] == ["sinks", "slopes"]
    assert not any("softmax" in str(n.op) or "index_select" in str(n.op) for n in fused.nodes)  # type: ignore[union-attr]


@pytest.mark.parametrize("seq", [6, 1])
def test_fused_attention_computes_the_same(plain: Graph, fused: Graph, seq: int) -> None:
    for way, before, after in zip(FUSED, results(plain, seq), results(fused, seq), strict=True):
        torch.testing.assert_close(after, before, msg=lambda m, way=way: f"{way.__name__}: {m}")


def test_layers_under_one_mask_share_its_last_keys(fused: Graph) -> None:
    assert len({node.arguments["last"] for node in paged(fused)}) == 1


def test_attention_of_another_form_stays() -> None:
    graph = captured(OTHERS)
    assert FuseAttention(OverPages.paged).run(graph, machine(2)).nodes == graph.nodes


def test_auto_fuses_for_accelerators_alone(plain: Graph) -> None:
    assert paged(FuseAttention().run(plain, read_cluster("h200x2")))
    for fusing, devices in ((FuseAttention(), machine(2)), (FuseAttention(OverPages.plain), read_cluster("h200x2"))):
        assert fusing.run(plain, devices) is plain


def test_the_cost_is_that_of_the_pages_of_the_rows(fused: Graph) -> None:
    cost, sizes = node_cost(paged(fused)[0], {}, fused.hints), fused.hints
    rows, seq, keys = 3, 6, 3 * 4 * PAGE
    assert at(cost.flops, sizes) == 2 * keys * HEADS * seq * 2 * DIM
    moved = 4 * (2 * keys * KV_HEADS * DIM + 2 * rows * HEADS * seq * DIM) + 8 * (rows * seq + rows * 4)
    assert at(cost.bytes, sizes) == moved
