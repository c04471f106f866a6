"""Each pass on a graph of a few lines; tests/golden/passes/ shows the model, and its graph before and after.

Of earlier passes only those ran without which the pass has nothing to go by; cuts are made by hand where they will do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ir.analysis.pools import with_pools
from ir.capture import DynamicShapes, capture
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.scaled import Scaled
from ir.decoding import Decoding
from ir.graph import Graph
from ir.machine.cluster import Cluster
from ir.machine.named import read_cluster
from ir.text.printer import print_graph
from passes.annotate_cost import AnnotateCost
from passes.defaults import DEFAULT_PASSES, default_passes
from passes.options.options import OverPages
from passes.pipeline import Pass
from passes.propagate_shapes import PropagateShapes
from passes.split_stages import SplitStages
from tests.support.models.planning import cut, slow_machine


class Causal(nn.Module):
    """Attention with a mask that lets no position see a later one."""

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        mask = torch.ones(seq, seq, dtype=torch.bool).tril()
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


class Grouped(nn.Module):
    """Attention of four heads: each two share a head of keys and one of values, repeated for them."""

    def forward(self, x: Tensor) -> Tensor:
        rows, _, seq, dim = x.shape
        keys, values = (t[:, :, None].expand(rows, 2, 2, seq, dim).reshape(rows, 4, seq, dim) for t in x.split(2, 1))
        return F.scaled_dot_product_attention(x, keys, values, is_causal=True)


class Pages(nn.Module):
    """Attention over the two pages of one row; each query sees the keys up to the place of its largest number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pool", torch.zeros(3, 4, 1, 8), persistent=False)
        self.register_buffer("table", torch.tensor([[1, 2]]))

    def forward(self, x: Tensor) -> Tensor:
        self.pool.index_put_((self.table, self.table), x.transpose(1, 2))
        keys = self.pool.index_select(0, self.table.flatten()).view(1, 8, 1, 8).transpose(1, 2)
        last = x.argmax(-1)[..., None]
        return F.scaled_dot_product_attention(x, keys, keys, attn_mask=torch.arange(8) <= last)


class Stored(nn.Module):
    """A linear layer whose weight is stored in fp8, with a scale for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        parts = {"codes": torch.zeros(4, 8).to(torch.float8_e4m3fn), "scale": torch.ones(4, 1)}
        names = (("codes", "weight"), ("scale", "weight_scale"))
        hold_stored(self.layer, "weight", KeptWeight(Scaled(wide=False), names, torch.float32), parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Activated(nn.Module):
    """An activation and two products are one kernel, as nothing else reads what is between; a sum is one by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.layer(x)) * x * 0.5
        return self.layer(y) + y


class Rows(nn.Module):
    """A transposition copies nothing, a sum makes a new tensor, and its rows are views again."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x.transpose(0, 1) + 1
        return x.unbind()


class Scores(nn.Module):
    """Each row has its own scores; the weight of a column is that of all rows."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = x.softmax(-1)
        return scores.flatten(), torch.ones(8) * 2


class Layer(nn.Module):
    """A product of matrices, an operator that moves bytes only, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).relu().flatten()


class Tied(nn.Module):
    """The embedding and the head are one weight, which is shared; the layer's is not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer, self.head = nn.Embedding(16, 8), nn.Linear(8, 8), nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(x)))


class Positions(nn.Module):
    """Positions follow from the sizes alone, so that each stage may count for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(16, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1])[:, None]
        return self.layer(self.embedding(x) * positions) * positions


class Layers(nn.Module):
    """Four equal layers in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Skip(nn.Module):
    """What the first layer makes is read by both later ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(x)


ROWS, TOKENS = torch.ones(2, 8), torch.ones(2, 4, dtype=torch.int64)
BATCH, TEXT = {"x": {0: "batch"}}, {"x": {0: "batch", 1: "seq"}}
COSTED = (PropagateShapes(), AnnotateCost())
MACHINE = slow_machine(2)


@dataclass(frozen=True)
class Small:
    """A model, and what has been done to its graph before the pass sees it."""

    model: type[nn.Module]
    x: Tensor
    sizes: DynamicShapes
    earlier: tuple[Pass, ...] = ()
    by_hand: Callable[[Graph], Graph] = lambda graph: graph
    machine: Cluster = MACHINE

    def graph(self) -> Graph:
        graph = capture(self.model(), (self.x,), dynamic_shapes=self.sizes)
        for step in self.earlier:
            graph = step.run(graph, MACHINE)
        return self.by_hand(graph)


def cut_with_cheap_positions(graph: Graph) -> Graph:
    """The first two nodes, which make the positions, are cheap; the layer begins the second stage."""
    graph = cut(graph, [0, 0, 0, 0, 1, 1])
    positions = tuple(replace(node, cheap=True) for node in graph.nodes[:2])
    return replace(graph, nodes=(*positions, *graph.nodes[2:]))


def pooled(graph: Graph) -> Graph:
    return with_pools(graph, Decoding(page=4, pages=3, max_length=8, pools=("pool",)))


def of_texts(graph: Graph) -> Graph:
    return replace(graph, decoding=Decoding(page=4, max_length=8))


SMALL = {
    "simplify-masks": Small(Causal, torch.ones(2, 4, 8), TEXT),
    "share-heads": Small(
        Grouped, torch.ones(2, 4, 3, 8).bfloat16(), {"x": {0: "batch", 2: "seq"}}, machine=read_cluster("h200x1")
    ),
    "fuse-attention": Small(Pages, torch.ones(1, 1, 2, 8), {}, by_hand=pooled),
    "fuse-quantized": Small(Stored, ROWS, BATCH, by_hand=of_texts, machine=read_cluster("h200x1")),
    "fuse-elementwise": Small(Activated, ROWS, BATCH, machine=read_cluster("h200x1")),
    "propagate-shapes": Small(Rows, torch.ones(3, 2), {}),
    "follow-rows": Small(Scores, ROWS, BATCH),
    "annotate-cost": Small(Layer, ROWS, BATCH, COSTED[:1]),
    "group-shared": Small(Tied, TOKENS, TEXT),
    "mark-cheap": Small(Positions, TOKENS, TEXT, COSTED),
    "split-stages": Small(Layers, ROWS, BATCH, COSTED),
    "check-sizes": Small(Layers, ROWS, BATCH, (*COSTED, SplitStages())),
    "duplicate-cheap": Small(Positions, TOKENS, TEXT, by_hand=cut_with_cheap_positions),
    "insert-transfers": Small(Skip, ROWS, BATCH, by_hand=lambda graph: cut(graph, [0, 1, 1])),
}


@pytest.mark.parametrize("number", range(len(DEFAULT_PASSES)), ids=[p.name for p in DEFAULT_PASSES])
def test_a_small_graph(number: int, golden: Callable[[str, str], None]) -> None:
    step = default_passes(attention=OverPages.paged)[number]
    small = SMALL[step.name]
    before = small.graph()
    model, after = inspect.getsource(small.model), step.run(before, small.machine)
    text = f"{model}\n---- before\n\n{print_graph(before)}\n\n---- after {step.name}\n\n{print_graph(after)}\n"
    golden(f"passes/{number + 1:02}-{step.name}.txt", text)
