"""Models written for the purpose: each asks one thing of the compiler that real models ask at times."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutput

from ir.capture import DynamicShapes
from tests.support.checking import Call

WIDTH = 8
HIDDEN = {0: "batch", 1: "seq"}


def hidden(batch: int = 2, seq: int = 4) -> Tensor:
    return torch.randn(batch, seq, WIDTH)


def tokens(batch: int = 2, seq: int = 4) -> Tensor:
    return torch.randint(16, (batch, seq))


def linears(count: int, width: int = WIDTH) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width, width) for _ in range(count))


# ---- values that travel


class LongSkips(nn.Module):
    """What the first layers make is read by the last ones, in reverse order."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = linears(3), linears(3)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for layer in self.down:
            x = layer(x).relu()
            skips.append(x)
        for layer in self.up:
            x = layer(x + skips.pop())
        return x


class ReadByThree(nn.Module):
    """One value is read in every later layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layers = nn.Linear(WIDTH, WIDTH), linears(3)

    def forward(self, x: Tensor) -> Tensor:
        memory = x = self.first(x)
        for layer in self.layers:
            x = layer(x) * memory
        return x


class EarlyAndLate(nn.Module):
    """The output of every layer is returned, and goes on to the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        made = []
        for layer in self.layers:
            x = layer(x)
            made.append(x)
        return tuple(made)


class LateInput(nn.Module):
    """The second input is first read by the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.last = linears(3), nn.Linear(WIDTH, 16)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.last(x).flatten(0, 1), labels.flatten())


class CalledTwice(nn.Module):
    """One module runs at both ends of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.middle = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)), linears(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        for layer in self.middle:
            x = layer(x).tanh()
        return self.shared(x)


class Tied(nn.Module):
    """The embedding and the head are one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(16, WIDTH), linears(3)
        self.head = nn.Linear(WIDTH, 16, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(x)


class SizeInLaterStage(nn.Module):
    """The last layer needs the length of a sequence that was averaged away in the first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.position = linears(3), nn.Embedding(32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        x = x.sum(1)
        for layer in self.layers:
            x = layer(x).tanh()
        return x[:, None].expand(-1, seq, -1) / seq + self.position(torch.arange(seq))


class Halves(nn.Module):
    """Operators that return several tensors, some of which nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.layer, self.recurrent = nn.Linear(WIDTH, 3 * WIDTH), linears(1)[0], nn.LSTM(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, _, c = self.wide(x).chunk(3, -1)
        low, high = self.layer(a).split([2, WIDTH - 2], -1)
        first, *_ = c.unbind(-1)
        sequence, (last, _) = self.recurrent(torch.cat([high, low], -1))
        return sequence * first[..., None], last.topk(2, -1).indices


class Patches(nn.Module):
    """The length must be even; what the model makes is twice as wide and half as long."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(2, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, width = x.shape
        x = x.reshape(batch, seq // 2, 2 * width)
        for layer in self.layers:
            x = layer(x)
        return x


# ---- containers and arguments


class NotTensors(nn.Module):
    """Numbers, flags, texts and absent arguments are fixed when the model is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(2)

    def forward(
        self, x: Tensor, scale: float, mode: str = "relu", mask: Tensor | None = None, twice: bool = False
    ) -> Tensor:
        for layer in self.layers:
            x = getattr(F, mode)(layer(x)) * scale
        if mask is not None:
            x = x * mask
        return x + x if twice else x


class Anything(nn.Module):
    """Arguments without names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(3)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        first, *others = args
        for layer, other in zip(self.layers, [*others, *kwargs.values()], strict=True):
            first = layer(first) + other
        return first


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Answer:
    scores: Tensor
    parts: dict[str, Any]
    loss: Tensor | None = None


class Wrapped(nn.Module):
    """Containers in containers, on the way in and on the way out."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.layers, self.wrap = linears(3), wrap

    def forward(self, pair: Pair, more: dict[str, list[Tensor]]) -> Any:
        early = self.layers[0](pair.left + pair.right)
        late = self.layers[2](self.layers[1](early) + more["extra"][0])
        return self.wrap(early, late)


@dataclass
class Batch:
    ids: Tensor
    mask: Tensor
    name: str = "batch"


class TakesDataclass(nn.Module):
    """An argument of the user's own class, of which torch knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(16, WIDTH), linears(2)

    def forward(self, batch: Batch) -> Batch:
        x = self.embedding(batch.ids) * batch.mask[..., None]
        for layer in self.layers:
            x = layer(x)
        return Batch(x.argmax(-1), batch.mask, batch.name)


class NothingComputed(nn.Module):
    """What is returned are an input, a parameter, a buffer, a size and a number, and one value twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        y = self.layer(x)
        return y, x, self.layer.weight, self.table, x.shape[1], 2 * x.shape[0] + 1, 7, y, "text", None


class Unused(nn.Module):
    """An input, a parameter and a layer on which nothing depends."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.idle = linears(2), nn.Linear(WIDTH, WIDTH)

    def forward(self, ignored: Tensor, x: Tensor) -> Tensor:
        self.idle(ignored)
        return self.layers[1](self.layers[0](x))


# ---- in place, modes, devices, types


class InPlace(nn.Module):
    """Tensors are changed after they were made: fresh ones, views of them, and slices."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers[0](x).relu_()
        y[:, 0] = 1
        first = y.select(-1, 0)
        first.add_(5)
        y = self.layers[1](y)
        y *= 2
        y.masked_fill_(y > 1, 0.5)
        return self.layers[2](y) + first[..., None]


class Regions(nn.Module):
    """Parts run without gradients, and parts under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.layers[0](x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.layers[1](x) @ self.layers[1].weight
        with torch.autocast("cpu", enabled=False), torch.enable_grad():
            x = self.layers[2](x.float())
        return self.layers[3](x.detach())


class Normalised(nn.Module):
    """Convolutions with batch normalisation, whose running statistics are buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=nn.Conv1d(WIDTH, WIDTH, 3, padding=1), norm=nn.BatchNorm1d(WIDTH)))
            for _ in range(3)
        )
        for block in self.blocks:
            block.norm.running_mean.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x).relu()
        return x


class Waves(nn.Module):
    """Lists whose elements go with those one further on: two loop variables of one list."""

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.arange(1.0, 5.0)
        waves = [part.unsqueeze(-1) * 2 / scale for part in x[..., :4].unbind(-1)]
        pairs = [torch.stack([wave[..., ::2].sin(), wave[..., 1::2].cos()], -1) for wave in waves]
        return torch.cat([pairs[1], pairs[0], pairs[2], pairs[3]], -1)


class Constants(nn.Module):
    """Tensors that no checkpoint holds: an attribute, one made inline, buffers left out of the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(2)
        self.attribute = torch.randn(WIDTH)
        self.register_buffer("left_out", torch.randn(WIDTH), persistent=False)
        self.layers[1].register_buffer("left_out", torch.randn(WIDTH)[::2].repeat_interleave(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x + self.attribute)
        x = self.layers[1](x * self.left_out) + self.layers[1].left_out
        return x * torch.tensor([0.5, 2.0]).repeat(WIDTH // 2)


class DeviceLiterals(nn.Module):
    """Devices named in the code: wherever a stage runs, they mean its device."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(2)

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        mask = torch.ones(seq, seq, dtype=torch.bool, device="cpu").tril()
        x = self.layers[0](x).to("cpu")
        x = mask.to(x.device, x.dtype) @ x + torch.zeros((), device=torch.device("cpu"))
        return self.layers[1](x) + x.new_full((1,), 3.0) + torch.arange(seq, device=x.device)[:, None]


class SharedSizes(nn.Module):
    """Several inputs have the same batch and length, of types other than float."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(16, WIDTH), linears(2)

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(ids) + places[..., None].double().sin().float()
        x = self.layers[0](x).masked_fill(~mask[..., None], 0.0)
        return self.layers[1](x).sum(1) // lengths[:, None]


class Names(nn.Module):
    """Names that Python, a stage file or torch could take for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.load, self.device, self.name = linears(3)
        self.blocks = nn.ModuleDict({"class": nn.Linear(WIDTH, WIDTH), "a-b": nn.Sequential(nn.Linear(WIDTH, WIDTH))})
        self.register_parameter("RECEIVES", nn.Parameter(torch.randn(WIDTH)))

    def forward(self, seq: Tensor, torch: Tensor, aten: Tensor, device: Tensor, linear_on1: Tensor) -> Tensor:
        x = self.load(seq) / seq.shape[1] + self.device(torch) * self.name(aten)
        for block in self.blocks.values():
            x = block(x)
        return x * device + self.RECEIVES * linear_on1


# ---- state


class Cache(nn.Module):
    """A key-value cache: each call attends to what earlier calls left, and moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(2)
        for layer in self.layers:
            layer.register_buffer("keys", torch.zeros(2, 16, WIDTH))
            layer.register_buffer("seen", torch.zeros(1, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            places = layer.seen + torch.arange(x.shape[1])
            layer.keys.index_copy_(1, places, layer(x))
            layer.seen.add_(x.shape[1])
            past = torch.arange(16) < layer.seen
            x = F.scaled_dot_product_attention(x, layer.keys, layer.keys, attn_mask=past)
        return x


class RunningMean(nn.Module):
    """A statistic that every call moves a little, and a count that the caller sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(3)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers[0](x)
        self.mean.lerp_(x.mean((0, 1)), 0.1)
        self.calls += 1
        x = self.layers[1](x - self.mean)
        return self.layers[2](x), self.calls.clone()


# ---- how each is built and called


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
