"""Models that hypothesis makes: random graphs of small layers, in every way that values can flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

from tests.support.checking import Call

WIDTH = 8
Layer = Callable[..., torch.Tensor]


class Embed(nn.Embedding):
    """Reads a hidden state as if it were tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.argmax(-1))


class Convolution(nn.Conv1d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Linear):
    """Causal self-attention with two heads; the mask is made from the sizes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, seq, width = x.shape
        q, k, v = super().forward(x).view(batch, seq, 6, width // 2).transpose(1, 2).chunk(3, 1)
        mask = torch.ones(seq, seq, dtype=torch.bool, device=x.device).tril()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(batch, seq, width)


class Positions(nn.Embedding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(torch.arange(x.shape[1], device=x.device))


class Scaled(nn.Module):
    """Constants: a buffer outside the state dict, and a tensor made inline."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.randn(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + torch.tensor([0.5, -0.5]).repeat(WIDTH // 2)


class Concatenated(nn.Linear):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cat([x, y], -1))


class Gate(nn.Linear):
    """One half of the features decides about the other; the layer is read once more, transposed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = super().forward(x).chunk(2, -1)
        return torch.cat([value, gate.sigmoid() * value], -1) @ self.weight.t()


class Lambda(nn.Module):
    """A layer without weights."""

    def __init__(self, compute: Layer) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.compute(*values)


def last_half(x: torch.Tensor) -> torch.Tensor:
    """Zero but for the last half of the sequence, whose place follows from its length."""
    return torch.where(torch.arange(x.shape[1], device=x.device)[:, None] >= x.shape[1] // 2, x, 0.0)


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.relu_()
    y[:, 0] += 1
    return y


KINDS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "convolution": lambda: Convolution(WIDTH, WIDTH, 3, padding=1),
    "attention": lambda: Attention(WIDTH, 3 * WIDTH),
    "embed": lambda: Embed(WIDTH, WIDTH),
    "positions": lambda: Positions(64, WIDTH),
    "scaled": Scaled,
    "gate": lambda: Gate(WIDTH, WIDTH),
    "add": lambda: Lambda(torch.add),
    "multiply": lambda: Lambda(torch.mul),
    "concatenated": lambda: Concatenated(2 * WIDTH, WIDTH),
    "last half": lambda: Lambda(last_half),
    "in place": lambda: Lambda(in_place),
    "mean": lambda: Lambda(lambda x: x.mean(1, keepdim=True).expand_as(x)),
    "of the length": lambda: Lambda(lambda x: x / x.shape[1]),
    "flipped": lambda: Lambda(lambda x: x.view(-1, x.shape[2] // 2, 2).flip(-1).view(x.shape).tanh()),
}
TWO_OPERANDS = {"add", "multiply", "concatenated"}
TIES = {"linear", "convolution", "attention", "gate", "concatenated", "embed"}


@dataclass(frozen=True)
class Step:
    """One layer: what it reads, counted back from the last value, and whether its module is an earlier one's."""

    kind: str
    back: tuple[int, int]
    reuse: str  # "no", "module": the latest module of this kind runs again, "weight": its weight is tied


@dataclass(frozen=True)
class Recipe:
    """A model, and how it is cut."""

    inputs: int
    steps: tuple[Step, ...]
    outputs: str
    stages: int

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return RandomModel(self).eval()

    def call(self, batch: int, seq: int) -> Call:
        return Call(tuple(torch.randn(batch, seq, WIDTH) for _ in range(self.inputs)))

    @property
    def dynamic(self) -> dict[str, Any]:
        return {"inputs": ({0: "batch", 1: "seq"},) * self.inputs}


class RandomModel(nn.Module):
    """Every value is float32[batch, seq, WIDTH]; those that no layer reads are returned."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.layers = nn.ModuleList()
        latest: dict[str, nn.Module] = {}
        for step in recipe.steps:
            old = latest.get(step.kind)
            layer = old if step.reuse == "module" and old else KINDS[step.kind]()
            if step.reuse == "weight" and old and step.kind in TIES:
                layer.weight = old.weight
            self.layers.append(layer)
            latest[step.kind] = layer

    def forward(self, *inputs: torch.Tensor) -> Any:
        values, unread = list(inputs), set(range(len(inputs)))
        for step, layer in zip(self.recipe.steps, self.layers, strict=True):
            sources = [max(0, len(values) - 1 - back) for back in step.back[: 1 + (step.kind in TWO_OPERANDS)]]
            values.append(layer(*(values[i] for i in sources)))
            unread = unread - set(sources) | {len(values) - 1}
        return CONTAINERS[self.recipe.outputs]([values[i] for i in sorted(unread)])


CONTAINERS: Mapping[str, Callable[[Sequence[torch.Tensor]], Any]] = {
    "the last": lambda values: sum(values[1:], values[0]),
    "a tuple": tuple,
    "a dict": lambda values: {f"value {i}": value for i, value in enumerate(values)},
}

_steps = st.builds(
    Step,
    kind=st.sampled_from(sorted(KINDS)),
    back=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    reuse=st.sampled_from(["no", "no", "module", "weight"]),
)
recipes = st.builds(
    Recipe,
    inputs=st.integers(1, 3),
    steps=st.lists(_steps, min_size=4, max_size=10).map(tuple),
    outputs=st.sampled_from(sorted(CONTAINERS)),
    stages=st.integers(1, 4),
)
