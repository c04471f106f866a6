"""Padding against the definition: a row that is padded beside longer ones gives what it gives alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import pytest
import sympy
import torch
from torch import nn

from ir.capture import capture
from passes.compilation.padding import proven_padding
from passes.follow_rows import FollowRows
from runtime.manifest.manifest import PaddedInput, Padding
from tests.support.models.planning import machine

WORDS, WIDTH = 32, 8


class Encoder(nn.Module):
    """Embeds `ids` [batch, seq] and hands them to a function with `mask` [batch, seq], which has a one a word."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.words = nn.Embedding(WORDS, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.few = nn.Embedding(6, WIDTH)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.function(self, self.words(ids), mask)


def found(
    function: Callable[..., Any], dtype: torch.dtype = torch.int64, fixed: bool = False, odd: bool = True
) -> Padding:
    """`fixed`: the length cannot change; `odd`: whether the model takes odd lengths."""
    torch.manual_seed(0)
    model = Encoder(function).eval()
    ids, mask = torch.randint(0, WORDS, (2, 5)), torch.ones(2, 5, dtype=dtype)
    sizes = {0: torch.export.Dim("batch")} | ({} if fixed else {1: torch.export.Dim("seq", max=64)})
    graph = capture(model, (ids, mask), dynamic_shapes={"ids": sizes, "mask": sizes})
    if not odd:
        seq: Any = graph.inputs[0].type.shape[1]
        graph = replace(graph, guards=(sympy.Eq(sympy.Mod(seq, 2), 0),))
    return proven_padding(FollowRows().run(graph, machine(1)), (ids, mask), model.state_dict())


def attended(m: Encoder, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(m.mix(x), x, x, seen[:, None, :])


def mean(x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    return (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)


PADDED: dict[str, tuple[Callable[..., Any], int, dict[str, tuple[int, ...]]]] = {
    "attention": (lambda m, x, mask: attended(m, x, mask != 0), 0, {"output": (1,)}),
    "a mask of padding": (lambda m, x, mask: attended(m, x, mask == 0), 1, {"output": (1,)}),
    "pooled": (lambda m, x, mask: mean(m.mix(x), mask), 0, {}),
    "the last word": (lambda m, x, mask: x.gather(1, (mask.sum(1) - 1)[:, None, None].expand(-1, -1, WIDTH)), 0, {}),
    "two outputs": (lambda m, x, mask: {"all": m.mix(x), "one": mean(x, mask)}, 0, {"all": (1,)}),
    "attention weights": (
        lambda m, x, mask: (x @ x.mT).masked_fill(mask[:, None, :] == 0, -1e9).softmax(-1),
        0,
        {"output": (1, 2)},
    ),
}


@pytest.mark.parametrize("what", PADDED)
def test_a_row_may_be_padded_where_a_mask_tells_it(what: str) -> None:
    function, value, outputs = PADDED[what]
    inputs = (PaddedInput("ids", 1), PaddedInput("mask", 1, value, mask=True))
    assert found(function) == Padding("seq", inputs, outputs, "")


def test_masks_may_be_booleans() -> None:
    assert found(PADDED["attention"][0], torch.bool).inputs[1] == PaddedInput("mask", 1, 0, mask=True)


MIXED: dict[str, tuple[Callable[..., Any], str]] = {
    "a mask that is forgotten": (lambda m, x, mask: attended(m, x, mask > -1), "depends on what stands in the padding"),
    "a mean of all": (lambda m, x, mask: m.mix(x).mean(1) + mask.sum(1, keepdim=True), "depends on what stands in"),
    "words in turn": (lambda m, x, mask: x.flip(1) * mask[..., None], "depends on what stands in"),
    "the length": (lambda m, x, mask: x * mask[..., None] / x.shape[1], "differs by"),
    "one word more": (lambda m, x, mask: torch.cat([m.mix(x), x[:, :1] + mask[:, :1, None]], 1), "is made of `seq`"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MIXED)
def test_a_model_that_mixes_positions_is_never_padded(what: str) -> None:
    function, reason = MIXED[what]
    padding = found(function)
    assert padding.symbol is None
    assert reason in padding.reason


PLAIN = PADDED["attention"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        (PLAIN, {"fixed": True}, "no size but the number of rows may change"),
        (PLAIN, {"odd": False}, "the model takes some values of `seq` only"),
        (
            lambda m, x, mask: x - (x * mask[..., None]).mean(0),
            {},
            "rows are not known to be independent of each other",
        ),
        (
            lambda m, x, mask: x.flip(1) * (mask == 0)[..., None],
            {},
            "no output depends on what masks do not tell to be padding",
        ),
        (
            lambda m, x, mask: x * mask[..., None] + m.few(torch.arange(x.shape[1])),
            {},
            "the model fails for other lengths: IndexError: index out of range in self",
        ),
    ],
)
def test_why_rows_are_not_padded_is_said(function: Callable[..., Any], options: dict[str, Any], reason: str) -> None:
    assert found(function, **options) == Padding(reason=reason)


class Weights(Mapping[str, torch.Tensor]):
    """Weights that are read when they are asked for, as a checkpoint's; counts those that are held at once."""

    def __init__(self, held: Mapping[str, torch.Tensor]) -> None:
        self.held, self.read, self.most = held, WeakSet[torch.Tensor](), 0

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self.held[name].clone()
        self.read.add(tensor)
        self.most = max(self.most, len(self.read))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


def test_the_weights_of_one_node_are_in_memory_at_a_time() -> None:
    model = Encoder(lambda m, x, mask: m.mix(m.mix(m.mix(x))) * mask[..., None] + m.few(mask)).eval()
    ids, mask = torch.randint(0, WORDS, (2, 5)), torch.ones(2, 5, dtype=torch.int64)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("seq", max=64)}
    graph = FollowRows().run(capture(model, (ids, mask), dynamic_shapes={"ids": sizes, "mask": sizes}), machine(1))
    weights = Weights(model.state_dict())
    assert proven_padding(graph, (ids, mask), weights).symbol == "seq"
    assert weights.most == 2  # a matrix and its bias


def test_a_difference_as_small_as_rounding_is_seen_in_the_padding() -> None:
    """In 16 bits rounding is taken to be as large as what one word of many does."""
    padding = found(lambda m, x, mask: (x * mask[..., None]).bfloat16() + x.mean(1, keepdim=True).bfloat16() * 1e-2)
    assert "depends on what stands in the padding" in padding.reason
