"""Calls of the models written for the purpose: how each is built, captured and called."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutput

from ir.capture import DynamicShapes
from tests.support.checking import Call
from tests.support.models.written import (
    HIDDEN,
    WIDTH,
    Answer,
    Anything,
    Batch,
    Cache,
    CalledTwice,
    Constants,
    DeviceLiterals,
    EarlyAndLate,
    Halves,
    InPlace,
    LateInput,
    LongSkips,
    Names,
    Normalised,
    NothingComputed,
    NotTensors,
    Pair,
    Patches,
    ReadByThree,
    Regions,
    RunningMean,
    SharedSizes,
    SizeInLaterStage,
    TakesDataclass,
    Tied,
    Unused,
    Waves,
    Wrapped,
    hidden,
    linears,
    tokens,
)


@dataclass(frozen=True)
class Case:
    """A model and calls in a row, the first of which is captured."""

    model: Callable[[], nn.Module]
    calls: Callable[[], Sequence[Call]]
    dynamic: DynamicShapes = None
    stages: int = 3
    dtype: torch.dtype = field(default=torch.float32)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.model().eval().to(self.dtype)


def sized(make: Callable[[int, int], Call], sizes: Sequence[tuple[int, int]] = ()) -> Callable[[], list[Call]]:
    """Calls at the given sizes, by default as captured, at others, and with one of each."""
    return lambda: [make(*size) for size in sizes or ((2, 4), (3, 7), (1, 1), (5, 2))]


def one_input(*sizes: tuple[int, int], dtype: torch.dtype = torch.float32) -> Callable[[], list[Call]]:
    return sized(lambda batch, seq: Call.of(hidden(batch, seq).to(dtype)), sizes)


def wrapped(batch: int, seq: int) -> Call:
    return Call.of(Pair(hidden(batch, seq), hidden(batch, seq)), more={"extra": [hidden(batch, seq)]})


def cached_llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    return LlamaForCausalLM(config)


def continued(batch: int, seq: int) -> Call:
    """A call of `cached_llama` with the keys and values of two earlier tokens."""
    cache = DynamicCache()
    for layer in range(2):
        cache.update(torch.randn(batch, 2, 2, 4), torch.randn(batch, 2, 2, 4), layer)
    return Call.of(input_ids=tokens(batch, seq), past_key_values=cache)


PAIR = {"pair": (HIDDEN, HIDDEN), "more": {"extra": [HIDDEN]}}


X = {"x": HIDDEN}


CASES: dict[str, Case] = {
    "long skips": Case(LongSkips, one_input(), X, stages=4),
    "a value read by three stages": Case(ReadByThree, one_input(), X, stages=4),
    "two outputs from different stages": Case(EarlyAndLate, one_input(), X),
    "an input first read in the last stage": Case(
        LateInput,
        sized(lambda batch, seq: Call.of(hidden(batch, seq), tokens(batch, seq))),
        {"x": HIDDEN, "labels": HIDDEN},
    ),
    "a module called twice": Case(CalledTwice, one_input(), X),
    "tied weights": Case(Tied, sized(lambda batch, seq: Call.of(tokens(batch, seq))), {"ids": HIDDEN}),
    "a size in a later stage": Case(SizeInLaterStage, one_input(), X),
    "several results": Case(Halves, one_input((2, 4), (2, 4)), stages=2),
    "a length that must be even": Case(Patches, one_input((2, 4), (1, 2), (3, 10)), X, stages=2),
    "captured at batch 1 and length 1": Case(ReadByThree, one_input((1, 1), (2, 4), (1, 3)), X),
    "a sequence of layers": Case(lambda: nn.Sequential(*linears(3)), one_input(), {"input": HIDDEN}),
    "no dynamic size": Case(LongSkips, one_input((2, 4), (2, 4))),
    "arguments that are not tensors": Case(
        NotTensors,
        sized(lambda batch, seq: Call.of(hidden(batch, seq), 0.5, "tanh", mask=hidden(batch, seq), twice=True)),
        {"x": HIDDEN, "mask": HIDDEN},
    ),
    "arguments left at their defaults": Case(
        NotTensors, sized(lambda batch, seq: Call.of(scale=2.0, x=hidden(batch, seq))), X
    ),
    "arguments without names": Case(
        Anything,
        sized(
            lambda batch, seq: Call.of(
                hidden(batch, seq), hidden(batch, seq), a=hidden(batch, seq), b=hidden(batch, seq)
            )
        ),
        {"args": (HIDDEN, HIDDEN), "kwargs": {"a": HIDDEN, "b": HIDDEN}},
    ),
    "a dict": Case(lambda: Wrapped(lambda a, b: {"late": b, "early": {"a": a, "none": None}}), sized(wrapped), PAIR),
    "an ordered dict": Case(lambda: Wrapped(lambda a, b: OrderedDict(late=b, early=a)), sized(wrapped), PAIR),
    "a list of tuples": Case(lambda: Wrapped(lambda a, b: [(a, b), (), (b, 1, None)]), sized(wrapped), PAIR),
    "a named tuple": Case(lambda: Wrapped(lambda a, b: Pair(b, Pair(a, None))), sized(wrapped), PAIR),
    "a dataclass": Case(lambda: Wrapped(lambda a, b: Answer(b, {"early": a})), sized(wrapped), PAIR),
    "a ModelOutput": Case(
        lambda: Wrapped(lambda a, b: BaseModelOutput(last_hidden_state=b, hidden_states=(a, b))), sized(wrapped), PAIR
    ),
    "a dataclass as an argument": Case(
        TakesDataclass,
        sized(lambda batch, seq: Call.of(Batch(tokens(batch, seq), torch.rand(batch, seq) > 0.5))),
        {"batch": {"ids": HIDDEN, "mask": HIDDEN}},
        stages=2,
    ),
    "a cache returned": Case(
        cached_llama, sized(lambda batch, seq: Call.of(input_ids=tokens(batch, seq))), {"input_ids": HIDDEN}, stages=2
    ),
    "a cache as an argument": Case(cached_llama, sized(continued, [(2, 1), (2, 1)]), stages=2),
    "outputs that nothing computes": Case(NothingComputed, one_input(), X, stages=2),
    "what nothing depends on": Case(
        Unused,
        sized(lambda batch, seq: Call.of(hidden(batch, seq), hidden(batch, seq))),
        {"ignored": HIDDEN, "x": HIDDEN},
        stages=2,
    ),
    "changes in place": Case(InPlace, one_input(), X),
    "autocast and no_grad": Case(Regions, one_input(), X),
    "batch normalisation": Case(Normalised, one_input(), X),
    "constants": Case(Constants, one_input(), X, stages=2),
    "lists that are gone through twice": Case(Waves, one_input(), X, stages=2),
    "device literals": Case(DeviceLiterals, one_input(), X, stages=2),
    "sizes shared by several inputs": Case(
        SharedSizes,
        sized(
            lambda batch, seq: Call.of(
                tokens(batch, seq),
                torch.rand(batch, seq) > 0.3,
                tokens(batch, seq).int(),
                torch.randint(1, 5, (batch,)),
            )
        ),
        {"ids": HIDDEN, "mask": HIDDEN, "places": HIDDEN, "lengths": {0: "batch"}},
        stages=2,
    ),
    "names that mean something else": Case(
        Names, sized(lambda batch, seq: Call.of(*(hidden(batch, seq) for _ in range(5)))), [HIDDEN] * 5
    ),
    "half precision": Case(LongSkips, one_input(dtype=torch.bfloat16), X, dtype=torch.bfloat16),
    "double precision": Case(CalledTwice, one_input(dtype=torch.float64), X, dtype=torch.float64),
    "a cache that calls fill": Case(Cache, one_input((2, 4), (2, 1), (2, 1), (2, 3)), {"x": {1: "seq"}}, stages=2),
    "running statistics": Case(RunningMean, one_input(), X, stages=2),
}
