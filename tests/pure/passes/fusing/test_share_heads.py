"""Keys and values that are repeated for grouped heads are read as they are; whatever only looks like that stays."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.graph import Call, Graph
from ir.machine.named import read_cluster
from passes.fusing.share_heads import ShareHeads
from tests.support.models.planning import machine
from tests.support.seeds import made_once

GPU = read_cluster("h200x1")
DIM = 8


def expanded(x: Tensor, times: int) -> Tensor:
    """As transformers has it."""
    batch, heads, seq, dim = x.shape
    return x[:, :, None].expand(batch, heads, times, seq, dim).reshape(batch, heads * times, seq, dim)


def twice_expanded(x: Tensor, times: int) -> Tensor:
    return expanded(expanded(x, times), 2)


def tiled(x: Tensor, times: int) -> Tensor:
    """The heads in a row, so many times over."""
    return x.repeat(1, times, 1, 1)


def of_rows(x: Tensor, times: int) -> Tensor:
    """Heads of all rows as one dimension for a while."""
    batch, heads, *rest = x.shape
    return x.flatten(0, 1)[:, None].repeat(1, times, 1, 1).view(batch, heads * times, *rest).contiguous()


def behind_keys(x: Tensor, times: int) -> Tensor:
    """As the first Llama has it: heads are repeated before they come ahead of the keys."""
    batch, heads, seq, dim = x.shape
    stored = x.transpose(1, 2).contiguous()
    return (
        stored[:, :, :, None]
        .expand(batch, seq, heads, times, dim)
        .reshape(batch, seq, heads * times, dim)
        .transpose(1, 2)
    )


REPEATS: dict[str, tuple[Callable[[Tensor, int], Tensor], int]] = {
    "expanded": (expanded, 1),
    "twice expanded": (twice_expanded, 2),
    "interleaved": (lambda x, times: x.repeat_interleave(times, -3), 1),
    "repeated as a dimension": (lambda x, times: x[:, :, None].repeat(1, 1, times, 1, 1).flatten(1, 2), 1),
    "of rows": (of_rows, 1),
    "behind keys": (behind_keys, 1),
}
"""Ways to repeat heads, and how many times more often than asked they do."""


class Grouped(nn.Module):
    """Attention of grouped heads by each way to repeat them, for some numbers of heads and repeats."""

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for heads, times, causal in ((1, 3, True), (2, 2, False), (3, 2, True)):
            keys, values = x[:, :heads], x[:, heads : 2 * heads]
            for repeat, more in REPEATS.values():
                args = x[:, : heads * times * more], repeat(keys, times), repeat(values, times)
                found.append(F.scaled_dot_product_attention(*args, is_causal=causal, scale=0.3))
        return found


def heads(batch: int, count: int, seq: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    drawn = torch.randn(batch, seq, count, DIM, generator=torch.Generator().manual_seed(seq)).to(dtype)
    return drawn.transpose(1, 2)


@made_once
def grouped() -> tuple[Graph, Graph]:
    """The graph before the pass and after it."""
    graph = capture(Grouped(), (heads(2, 12, 5),), dynamic_shapes={"x": {0: "batch", 2: "seq"}})
    return graph, ShareHeads().run(graph, GPU)


def attention(graph: Graph) -> list[Call]:
    return [node for node in graph.nodes if isinstance(node, Call) and "attention" in str(node.op)]


@pytest.mark.slow
def test_each_way_to_repeat_heads_is_seen_through() -> None:
    for call in attention(grouped()[1]):
        query, key, value = (operand.type.shape[1] for operand in call.operands)
        assert key == value != query
        assert call.kwargs == {"scale": 0.3, "enable_gqa": True} | ({} if key == 2 else {"is_causal": True})
    assert [call.operands[1].type.shape[1] for call in attention(grouped()[1])] == [1] * 6 + [2] * 6 + [3] * 6


@pytest.mark.slow
def test_nothing_of_the_repeats_is_left() -> None:
    ops = {str(node.op) for node in grouped()[1].nodes if isinstance(node, Call)}
    assert not [op for op in ops if "expand" in op or "repeat" in op]


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 4), seq=st.integers(1, 40))
def test_the_same_bits_at_all_sizes(batch: int, seq: int) -> None:
    before, after = (interpret(graph, [heads(batch, 12, seq)], {}).outputs for graph in grouped())
    assert all(map(torch.equal, before, after))


# ---- what stays


class Attending(nn.Module):
    """Attention as a function computes it."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, *tensors: Tensor) -> Any:
        return self.compute(*tensors)


def changed(compute: Callable[..., Any], *tensors: Tensor, cluster: Any = GPU) -> bool:
    """Whether the pass changes attention as a function computes it."""
    graph = capture(Attending(compute), tensors)
    return ShareHeads().run(graph, cluster).nodes != graph.nodes


def attended(**options: Any) -> Callable[..., Tensor]:
    return lambda q, k: F.scaled_dot_product_attention(q, expanded(k, 2), expanded(k, 2), **options)


def repeated_and(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Attention of two heads by themselves, repeated and then changed."""

    def attend(x: Tensor) -> Tensor:
        repeated = change(expanded(x, 2))
        return F.scaled_dot_product_attention(repeated, repeated, repeated)

    return attend


def keys_and_values(keys: Callable[[Tensor], Tensor], values: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda q, k: F.scaled_dot_product_attention(q, keys(k), values(k))


def twice(x: Tensor) -> Tensor:
    return expanded(x, 2)


Q, K = heads(2, 4, 5), heads(2, 2, 5)
WIDE = torch.ones(2, 4, 5, 264, dtype=torch.bfloat16)
STAYS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "the heads in a row": (keys_and_values(lambda k: tiled(k, 2), lambda k: tiled(k, 2)), (Q, K)),
    "values in a row": (keys_and_values(twice, lambda k: tiled(k, 2)), (Q, K)),
    "keys alone": (keys_and_values(twice, lambda k: torch.cat([k, k], 1)), (Q, K)),
    "values alone": (keys_and_values(lambda k: torch.cat([k, k], 1), twice), (Q, K)),
    "values more often": (keys_and_values(twice, lambda k: expanded(k[:, :1], 4)), (Q, K)),
    "repeats of one": (keys_and_values(lambda k: expanded(k, 1), lambda k: expanded(k, 1)), (K, K)),
    "one head that torch repeats": (F.scaled_dot_product_attention, (Q, K[:, :1], K[:, :1])),
    "one head of keys alone": (F.scaled_dot_product_attention, (Q, K[:, :1], Q)),
    "one head of one": (F.scaled_dot_product_attention, (Q[:, :1], K[:, :1], K[:, :1])),
    "a batch that is repeated": (keys_and_values(*[lambda k: k.expand(2, 4, 5, DIM)] * 2), (Q, Q[:1])),
    "a cast": (repeated_and(lambda x: x.half()), (K,)),
    "keys turned": (repeated_and(lambda x: x.mT), (K,)),
    "heads rolled": (repeated_and(lambda x: x.roll(1, 1)), (K,)),
    "heads of other places": (repeated_and(lambda x: x.transpose(1, 2)), (K,)),
    "heads of rows": (repeated_and(lambda x: x.transpose(0, 1)), (K,)),
    "a mask": (lambda q, k: attended(attn_mask=torch.ones(5, 5, dtype=torch.bool))(q, k), (Q, K)),
    "dropout": (attended(dropout_p=0.5), (Q, K)),
    "more keys than queries under is_causal": (attended(is_causal=True), (Q, heads(2, 2, 9))),
    "fewer queries": (attended(), (Q[:, :1], K)),
    "one row of keys": (attended(), (Q, K[:1])),
    "float32": (attended(), (Q.float(), K.float())),
    "a head of 264": (attended(), (WIDE, WIDE[:, :2])),
    "values of another width": (keys_and_values(twice, lambda k: expanded(k[..., :4], 2)), (Q, K)),
    "three dimensions": (keys_and_values(*[lambda k: k.repeat_interleave(2, 0)] * 2), (Q[0], K[0])),
}


@pytest.mark.parametrize("what", STAYS)
def test_what_only_looks_like_grouped_heads_stays(what: str) -> None:
    compute, tensors = STAYS[what]
    assert changed(attended(), Q, K)
    assert not changed(compute, *tensors)


def test_machines_without_flash_attention() -> None:
    assert not changed(attended(), Q, K, cluster=machine(2))


def test_more_keys_than_queries() -> None:
    assert changed(attended(), Q, heads(2, 2, 9))


def test_a_scale_of_nothing() -> None:
    graph = ShareHeads().run(capture(Attending(attended(scale=0.0)), (Q, K)), GPU)
    assert attention(graph)[0].kwargs == {"scale": 0.0, "enable_gqa": True}


def test_a_host_with_older_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Turing GPU has no flash attention, and torch no other fused one for fewer heads of keys than of queries."""
    versions = {torch.device("cuda", 0): (8, 6), torch.device("cuda", 1): (7, 5)}
    module = SimpleNamespace(get_device_capability=versions.__getitem__)
    monkeypatch.setattr("ir.machine.host.accelerators", lambda: [*versions])
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    repeat = keys_and_values(twice, twice)
    assert not changed(repeat, Q, K)
    versions[torch.device("cuda", 1)] = (9, 0)
    assert changed(repeat, Q, K)


def test_repeated_keys_that_others_read_stay_for_them() -> None:
    def kept(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        keys = expanded(k, 2)
        return F.scaled_dot_product_attention(q, keys, keys), keys

    graph = ShareHeads().run(capture(Attending(kept), (Q, K)), GPU)
    outputs = interpret(graph, [Q, K], {}).outputs
    assert all(map(torch.equal, outputs, kept(Q, K)))
    assert attention(graph)[0].operands[1] is graph.inputs[1]
