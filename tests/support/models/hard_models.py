"""Models that torch.export does not take as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

WIDTH = 8


class Branching(nn.Module):
    """Which weight it uses depends on values."""

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.positive = nn.Linear(WIDTH, WIDTH)
        self.negative = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > self.threshold:
            return self.positive(x)
        return self.negative(x)


class Counting(nn.Module):
    """How often it loops depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.abs().sum().item()) % 3):
            x = self.step(x)
        return x


class Numpy(nn.Module):
    """Leaves torch for numpy, for a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * torch.from_numpy(np.abs(x.numpy()).max(-1, keepdims=True))


class NumpyNumber(nn.Module):
    """Leaves torch for numpy, for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * float(np.median(x.numpy()))


class Gradient(nn.Module):
    """Derives inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.energy(x).pow(2).sum(), x)[0]


class Mapped(nn.Module):
    """Masks by a function of two positions, mapped over both; asserts something of values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        torch._check((x.isfinite().sum() * 2).item() == x.numel() * 2)
        at = torch.arange(x.shape[1])
        rows = torch.vmap(lambda query, key: query >= key, (None, 0))
        seen = torch.vmap(rows, (0, None))(at, at)
        return torch.softmax((x @ x.mT).masked_fill(~seen, -1e9), -1) @ self.linear(x)


class Router(nn.Module):
    """Returns numbers that it reads from a tensor."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[int]]:
        first = x[..., 0].flatten() > 0
        return torch.argsort(first, stable=True), torch.bincount(first.long(), minlength=2).tolist()


class Experts(nn.Module):
    """Is called by other methods than its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.either = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])

    def routed(self, x: Tensor) -> Tensor:
        order, counts = self.router(x)
        groups = x.flatten(0, -2)[order].split(counts)
        done = torch.cat([expert(group) for expert, group in zip(self.either, groups, strict=True)])
        return torch.zeros_like(done).index_copy(0, order, done).view(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Routed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = Experts()

    def forward(self, x: Tensor) -> Tensor:
        return self.experts.routed(x)


class Several(nn.Module):
    """Takes and returns several things besides tensors, and holds tensors of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.full((WIDTH,), 2.0)
        self.act: Callable[[Tensor], Tensor] = torch.nn.functional.gelu
        self.register_buffer("shift", torch.ones(WIDTH))
        self.register_buffer("left_out", torch.full((1,), 3.0), persistent=False)
        self.register_parameter("bias", None)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, length: int, mode: str = "a") -> dict[str, Any]:
        if x.sum() > 0:
            x = self.act(x * self.scale)
        y = x + self.shift * self.left_out if mode == "a" else x
        return {"x": y, "extra": (None, y[:, : length - 1].sum(-1)), "mode": mode}


class Recurrent(nn.Module):
    """Packs texts of several lengths for an LSTM, whose weights are also in a list of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = x[..., 0].gt(0).sum(-1).clamp(min=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class Parametrized(nn.Module):
    """Has a weight that is computed from others, and decides by the value of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = weight_norm(nn.Linear(WIDTH, WIDTH))
        self.register_buffer("heads", torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(-1, (int(self.heads), -1)).cumsum(-1).flatten(-2) if x.sum() > 0 else x


class Either(nn.Module):
    """A branch by torch.cond."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.left, lambda x: torch.relu(self.right(x)) * x.shape[0], (x,))


class RunsFunctions(nn.Module):
    """A loop with a plain number that counts to a size, and a branch in a branch, at the model's own level."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        def inner(x: Tensor) -> Tensor:
            return torch.cond(x.mean() > 0.5, lambda x: self.last(x), lambda x: x * torch.tensor(2.0), (x,))

        start = 0, self.step(x)
        x = torch.while_loop(lambda i, x: i < x.shape[1], lambda i, x: (i + 1, torch.tanh(self.step(x)) + i), start)[1]
        return torch.cond(x.sum() > 0, inner, lambda x: x + torch.arange(WIDTH), (x,))


class Repeating(nn.Module):
    """A loop by torch.while_loop."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros((), dtype=torch.int64), x
        return torch.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, torch.tanh(self.step(x))), start)[1]


class Scanning(nn.Module):
    """A recurrence by torch's scan."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        def combine(carry: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
            carry = torch.tanh(self.step(carry) + item)
            return carry, carry.clone()

        return scan(combine, x.new_zeros(x.shape[0], WIDTH), x.transpose(0, 1))[1].transpose(0, 1)


class Mapping(nn.Module):
    """A function of each row, by torch's map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch_map(lambda row, scale: torch.tanh(self.linear(row)) * scale, x, x.mean())


class FlexAttention(nn.Module):
    """Attention with a bias of its own and a mask by blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.register_buffer("slope", torch.tensor([0.1, 0.2]))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (made(x).unflatten(-1, (2, -1)).transpose(1, 2) for made in self.qkv)
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, x.shape[1], x.shape[1], device="cpu")
        bias = lambda score, b, h, i, j: score - (i - j).abs() * self.slope[h]  # noqa: E731
        return flex_attention(q, k, v, score_mod=bias, block_mask=mask).transpose(1, 2).flatten(-2)  # type: ignore[union-attr]


class Layer(nn.Module):
    def __init__(self, hard: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.hard = hard

    def forward(self, x: Tensor) -> Tensor:
        return x + self.hard(self.norm(x))


class Layers(nn.Module):
    """Layers around modules that are hard to record."""

    def __init__(self, make: Callable[[], nn.Module], depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(make()) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class UsesSeveral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(WIDTH, WIDTH)
        self.several = Several()
        self.after = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.several(self.before(x), length=x.shape[1])
        assert out["mode"] == "a"
        return self.after(out["x"]), out["extra"][1]


@dataclass(frozen=True)
class Hard:
    """A model, the module in it that does not export, and what its blame says."""

    make: Callable[[], nn.Module]
    kept: str  # what is kept whole; empty where another way out is found


HARD = {
    "a branch on values": Hard(lambda: Layers(Branching), "layers.{}.hard"),
    "a loop as long as values say": Hard(lambda: Layers(Counting), "layers.{}.hard"),
    "numpy for a tensor": Hard(lambda: Layers(Numpy), ""),
    "numpy for a number": Hard(lambda: Layers(NumpyNumber), "layers.{}.hard"),
    "autograd inside": Hard(lambda: Layers(Gradient), ""),
    "vmap inside": Hard(lambda: Layers(Mapped), ""),
    "numbers from a tensor between modules": Hard(lambda: Layers(Routed), "layers.{}.hard"),
    "containers, sizes and attributes": Hard(UsesSeveral, "several"),
    "an LSTM of packed texts": Hard(lambda: Layers(Recurrent, 1), "layers.0.hard"),
    "a parametrized weight and a buffer that decides": Hard(lambda: Layers(Parametrized, 1), "layers.0.hard"),
    "functions inside functions": Hard(RunsFunctions, ""),
}
RUNS_FUNCTIONS = {"while_loop": Repeating, "scan": Scanning, "map": Mapping, "flex_attention": FlexAttention}
"""Modules with a loop, or attention with functions of its own."""
