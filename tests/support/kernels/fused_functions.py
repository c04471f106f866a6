"""Functions of pointwise operators that are one kernel on GPUs, and tensors for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ir.fused.fused_kernel import finish_kernels

ROWS, COLUMNS = 24, 256


def normalized(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm, as models have it."""
    wide = x.to(torch.float32)
    wide = wide * ((wide**2).mean(-1, keepdim=True) + 1e-6).rsqrt()
    return weight * wide.to(x.dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def partly_rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first half of the columns is rotated, the others stay."""
    half = x.shape[-1] // 2
    first, last = x[..., :half], x[..., half:]
    turned = torch.cat([-first[..., half // 2 :], first[..., : half // 2]], -1)
    return torch.cat([first * cos[..., :half] + turned * sin[..., :half], last], -1)


def gated(x: Tensor, y: Tensor) -> Tensor:
    return F.silu(x) * y


def summed(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A sum, and what a layer makes of it."""
    x = x + y
    return x, normalized(x, weight)


OPERATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "add a number": lambda x, y: x + 1e-6,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: 1 - x,
    "mul": lambda x, y: x * y,
    "mul by a number": lambda x, y: x * 0.3,
    "div": lambda x, y: x / y,
    "div by a number": lambda x, y: x / 3.7,
    "neg": lambda x, y: -x,
    "square": lambda x, y: x**2,
    "rsqrt": lambda x, y: x.rsqrt(),
    "sqrt": lambda x, y: x.sqrt(),
    "reciprocal": lambda x, y: x.reciprocal(),
    "exp": lambda x, y: x.exp(),
    "sigmoid": lambda x, y: x.sigmoid(),
    "silu": lambda x, y: F.silu(x),
    "relu": lambda x, y: x.relu(),
    "gelu": lambda x, y: F.gelu(x, approximate="tanh"),
    "to float32": lambda x, y: x.to(torch.float32) + 0.5,
    "to bfloat16": lambda x, y: x.to(torch.bfloat16) + 0.5,
    "to float16": lambda x, y: x.to(torch.float16) + 0.5,
    "cat": lambda x, y: torch.cat([y, x, y], -1),
    "mean": lambda x, y: y + x.to(torch.float32).mean(-1, keepdim=True),
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (normalized, rotated, partly_rotated, gated, summed)},
    **OPERATORS,
}
LAYOUTS = ("rows", "heads", "one row for all", "one column for all")


def tensors(name: str, layout: str, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """Arguments for a function, with the memory laid out so."""
    draw = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, device=device, generator=draw)

    x, y = drawn(3, ROWS, COLUMNS), drawn(3, ROWS, COLUMNS)
    if layout == "heads":
        x, y = (drawn(3, 4, ROWS, COLUMNS).transpose(1, 2) for _ in range(2))
    if layout == "one row for all":
        y = drawn(1, 1, COLUMNS)
    if layout == "one column for all" and name in ("gated", *OPERATORS):
        y = drawn(3, ROWS, 1)
    others = {"normalized": [drawn(COLUMNS)], "summed": [y.expand_as(x).clone(), drawn(COLUMNS)], "gated": [y]}
    turns = [drawn(1, *x.shape[1:-1], COLUMNS), drawn(1, 1, COLUMNS)]
    return [x, *others.get(name, turns if "rotated" in name else [y])]


def compiled_for(function: Any, given: list[Tensor], finish: Callable[[], None] = finish_kernels) -> Any:
    """The launch of a function's kernel for these arguments, or the function where it has none."""
    function(*given)
    finish()
    function(*given)
    return [*function.launches.values()][-1]


def cases(dtypes: tuple[torch.dtype, ...]) -> list[tuple[str, str, torch.dtype]]:
    """All functions with all layouts that they take and dtypes."""
    return [
        (name, layout, dtype)
        for name in FUNCTIONS
        for layout in LAYOUTS[: 2 if name in ("cat", "mean") else None]
        for dtype in dtypes
    ]
