"""Models written for the purpose: each asks one thing of the compiler that real models ask at times."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """Arguments without names of their own; those by keyword in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = linears(3)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        first, *others = args
        for layer, other in zip(self.layers, [*others, *(kwargs[name] for name in sorted(kwargs))], strict=True):
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
