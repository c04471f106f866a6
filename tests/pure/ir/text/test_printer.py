"""A graph as text: all that it knows, one line a node."""

from __future__ import annotations

from dataclasses import replace

import sympy
import torch

from ir.cost import BetterCut, Cost, Measured, Split, Time
from ir.graph import THIS_DEVICE, Call, Constant, Transfer
from ir.location import Where
from ir.text.printer import print_around, print_graph
from tests.support.models.graphs import aten, graph, linear, param, relu, state, typed, value
from tests.support.models.planning import DEVICE

batch, seq = (sympy.Symbol(name, integer=True, positive=True) for name in ("batch", "seq"))

TEXT = """\
graph(ids: int64[batch, seq]):
  where batch in [1, inf], for example 2
  where seq in [1, 512], for example 8
  where Eq(Mod(seq, 4), 0)
  note seq stays below 512: the table ends there
  separable tied
  split for latency with 2 in flight: 1.50 ms between layers, no cut below 1.20 ms; link binds
  split good for batch in [1, 4], seq in [4, 64]
  another split is 11 % better for batch 1, seq 512
  device 0 runs stages 0, 2: 1.50 ms a batch
  device 1 runs stage 1: 200.00 µs a batch
  param embed_weight: float32[100, 4]  # embed.weight, head.weight
  constant table: float32[4]  # rope.table
  state mean: float32[2, 4]  # norm.mean
  # embed
  hidden: float32[batch, seq, 4] = aten.embedding(embed_weight, ids)  # flops=0 bytes=8*batch measured=2.00 s group=tied
  # the model
  low: float32[batch, seq, 2], high: float32[batch, seq, 2] = aten.split.Tensor(hidden, 2, -1)  # view cheap
  hidden_on1: float32[batch, seq, 4] = transfer(hidden, 0 -> 1)  # stage=1
  mask: bool[seq, seq] = aten.full([seq, seq - 1], -inf, dtype=bool, device=device, layout=None)  # stage=1
  # head
  logits: float32[batch, seq, 100] = aten.linear(hidden_on1, embed_weight)  # stage=1
  stats: float32[4] = aten.cat([table, mean])  # stage=1
  mean <- stats
  return logits, low"""


def test_everything_that_a_graph_says() -> None:
    ids = value("ids", batch, seq, dtype=torch.int64)
    weight = param("embed.weight", "head.weight", shape=(100, 4))
    table = Constant("table", typed(4), "rope.table", torch.ones(4))
    mean = replace(state("norm.mean"), name="mean")
    hidden, low, high = (value(n, batch, seq, w) for n, w in (("hidden", 4), ("low", 2), ("high", 2)))
    embedding = Call(
        op=aten.embedding.default,
        args=(weight, ids),
        results=(hidden,),
        where=Where("embed"),
        cost=Cost(0, 8 * batch),
        measured=(Measured(DEVICE, Cost(0, 16), Time(2.0)),),
        group="tied",
    )
    split = Call(op=aten.split.Tensor, args=(hidden, 2, -1), results=(low, high), view=True, cheap=True)
    moved = Transfer(value=hidden, src=0, stage=1, results=(value("hidden_on1", batch, seq, 4),))
    kwargs = {"dtype": torch.bool, "device": THIS_DEVICE, "layout": None}
    args = ([seq, seq - 1], float("-inf"))
    results = (value("mask", seq, seq, dtype=torch.bool),)
    mask = Call(op=aten.full.default, args=args, kwargs=kwargs, results=results, stage=1)
    head = linear(moved.results[0], weight, "logits", stage=1, where=Where("head"))
    stats = Call(op=aten.cat.default, args=([table, mean],), results=(value("stats", 4),), stage=1, where=Where("head"))
    text = graph(
        [ids],
        [embedding, split, moved, mask, head, stats],
        (*head.results, low),
        updates=((mean, stats.results[0]),),
        hints={batch: 2, seq: 8},
        ranges={batch: (1, None), seq: (1, 512)},
        guards=(sympy.Eq(sympy.Mod(seq, 4), 0),),
        notes=("seq stays below 512: the table ends there",),
        separable=frozenset({"tied"}),
        placement=(0, 1, 0),
        split=Split(
            "latency",
            2,
            1.5e-3,
            place="between layers",
            lower_bound=1.2e-3,
            binds="link",
            loads=(1.5e-3, 2e-4),
            good_for={batch: (1, 4), seq: (4, 64)},
            better=(BetterCut({batch: 1, seq: 512}, 0.113),),
        ),
    )
    assert print_graph(text) == TEXT


def test_the_lines_around_a_node() -> None:
    """Two before it and two after it; comments name their modules, and are not counted."""
    x = value("x")
    chain = [relu(x, "y0", where=Where("act"))]
    for i in range(1, 7):
        chain.append(relu(chain[-1].results[0], f"y{i}", where=Where("act" if i < 4 else "head")))
    whole = graph([x], chain, chain[-1].results)
    assert print_around(whole, chain[3]).splitlines() == [
        "  # act",
        "  y1: float32[2, 4] = aten.relu(y0)",
        "  y2: float32[2, 4] = aten.relu(y1)",
        "> y3: float32[2, 4] = aten.relu(y2)",
        "  # head",
        "  y4: float32[2, 4] = aten.relu(y3)",
        "  y5: float32[2, 4] = aten.relu(y4)",
    ]
    assert print_around(whole, chain[0]).splitlines()[:2] == ["  # act", "> y0: float32[2, 4] = aten.relu(x)"]
    assert print_around(whole, relu(x, "of another graph")) == ""


def test_a_place_in_the_users_code() -> None:
    assert str(Where("encoder.0", "model.py", 12, "x = x + 1")) == "encoder.0 (model.py:12): x = x + 1"
    assert str(Where()) == "the model (an unknown source line)"
