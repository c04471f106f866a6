"""What one device can do: a table for a cluster file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from runtime.measure_watch import Say, host_seconds, queued_seconds, seconds_of

Numbers: TypeAlias = "dict[str, Any]"  # a device's table in a cluster file; `ir/cluster.py` explains the keys

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Sizes:
    """What is measured on a kind of device, in about its BUDGET of seconds for each operator."""

    products: tuple[tuple[int, int, int], ...]  # rows, inner, columns; those of transformers
    images: int
    attention: tuple[int, int, int, int]  # batch, heads, tokens, width
    traffic: tuple[int, ...]  # bytes that one kernel reads and writes, the last one far beyond any cache
    budget: float


CPU = Sizes(
    products=((64, 768, 768), (128, 768, 3072), (256, 1024, 4096)),
    images=1,
    attention=(2, 12, 128, 64),
    traffic=(*(1 << i for i in range(16, 25)), 24 << 20),
    budget=0.25,
)
GPU = Sizes(
    products=((1024, 2048, 2048), (2048, 4096, 1024), (2048, 4096, 4096), (2048, 4096, 14336), (2048, 14336, 4096)),
    images=32,
    attention=(4, 32, 512, 128),
    traffic=(*(1 << i for i in range(20, 29)), 1 << 31),
    budget=0.1,
)

_CONVOLUTIONS = (  # channels in and out, kernel, height; those of ResNet-50
    (64, 64, 1, 56),
    (64, 64, 3, 56),
    (256, 64, 1, 56),
    (128, 128, 3, 28),
    (512, 128, 1, 28),
    (256, 256, 3, 14),
    (256, 1024, 1, 14),
    (512, 512, 3, 7),
    (512, 2048, 1, 7),
)
_SLOW = 0.1  # seconds for one contraction; what takes longer is left out once there is one number


def measure_device(device: torch.device, say: Say, shares: int = 1, threads: int = 0) -> Numbers:
    """The numbers of a device, or of one of so many SHARES of the CPU."""
    sizes = CPU if device.type == "cpu" else GPU
    with torch.no_grad(), torch.accelerator.device_index(device.index):
        say(f"{device}: starts of kernels")
        numbers = _memory(device, shares) | _starts(device)
        say(f"{device}: memory")
        numbers |= _bandwidths(device, sizes, numbers["launch"])
        numbers |= _contractions(device, sizes, numbers["launch"], say)
    return numbers | ({"threads": threads} if threads else {})


def _memory(device: torch.device, shares: int) -> Numbers:
    if device.type == "cpu":
        return {"memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // shares}
    return {"memory": torch.cuda.get_device_properties(device).total_memory}


def _starts(device: torch.device) -> Numbers:
    """A kernel of one row, on the device; and what the host needs for it, with a view for each kernel as in a model."""
    x, w = torch.ones(8, 64, device=device), torch.ones(64, 64, device=device)
    launch = queued_seconds(lambda: x + x, device, 200, 0.2)
    if device.type == "cpu":
        return {"launch": launch}

    def block() -> torch.Tensor:
        y = F.linear(F.layer_norm(x, (64,)), w).view(8, 4, 16).transpose(0, 1)
        y = torch.softmax(y, -1).transpose(0, 1).reshape(8, 64)
        return x + F.linear(F.gelu(y), w)

    return {"launch": launch, "dispatch": host_seconds(block, device) / 7}


def _bandwidths(device: torch.device, sizes: Sizes, launch: float) -> Numbers:
    """Bytes per second of a sum, from memory and from the cache, and the most that the cache has room for."""
    speeds: dict[int, float] = {}
    for nbytes in sizes.traffic:
        x = torch.ones(nbytes // 8, device=device)  # read once and written once, in 4 bytes each
        seconds = queued_seconds(lambda x=x: x + 1.0, device, 50, sizes.budget)
        speeds[nbytes] = nbytes / max(seconds - launch, 0.2 * seconds)
    memory = speeds[sizes.traffic[-1]]
    fast = [nbytes for nbytes, speed in speeds.items() if speed > 1.4 * memory]
    if not fast:
        return {"bandwidth": memory}
    held = [speeds[nbytes] for nbytes in fast[-3:]]
    return {"bandwidth": memory, "cache": max(fast), "cache_bandwidth": sum(held) / len(held)}


@dataclass(frozen=True)
class Point:
    """A contraction that was timed."""

    flops: float
    seconds: float


def _contractions(device: torch.device, sizes: Sizes, launch: float, say: Say) -> Numbers:
    """Flops per second of each unit and dtype, and what a contraction takes besides."""
    points: dict[str, dict[str, list[Point]]] = {unit: {} for unit in _UNITS}
    _heat(device)
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for unit, calls in _UNITS.items():
            say(f"{device}: {unit}s in {name}")
            found = _points(calls(device, dtype, sizes), device, sizes.budget, launch)
            if found:
                points[unit][name] = found
    shortest = min(point.seconds for by in points.values() for found in by.values() for point in found)
    fill = min(0.25 * shortest, *(_fit(found)[1] for found in points["product"].values()))  # noise makes it larger
    rates = {unit: {name: _rate(found, fill) for name, found in by.items()} for unit, by in points.items()}
    return {"fill": fill, "flops": rates["product"], **{u: rates[u] for u in ("convolution", "attention") if rates[u]}}


def _heat(device: torch.device) -> None:
    """Until the clock of an accelerator has settled under load."""
    if device.type != "cpu":
        seconds_of(_product(device, torch.bfloat16, 4096, 4096, 4096)[1], device, 1.0)


Calls: TypeAlias = "list[tuple[float, Callable[[], Any]]]"  # flops, and what does them


def _points(calls: Calls, device: torch.device, budget: float, launch: float) -> list[Point]:
    """Without those that the device cannot do, or takes too long for."""
    points: list[Point] = []
    for flops, call in calls:
        if points and flops * points[-1].seconds / points[-1].flops > _SLOW:
            break
        try:
            points.append(Point(flops, max(seconds_of(call, device, budget) - launch, 1e-9)))
        except (RuntimeError, NotImplementedError):  # no kernel for this dtype, or too little memory
            continue
    return points


def _products(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> Calls:
    return [_product(device, dtype, *size) for size in sizes.products]


def _product(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> Any:
    """With another weight each time, as in a model: none of them is in the cache."""
    x, w = (_random(device, dtype, n, inner) for n in (rows, columns))
    room = (32 << 20 if device.type == "cpu" else 128 << 20) // w.nbytes
    weights = cycle([w, *(w.clone() for _ in range(room))])
    return 2.0 * rows * inner * columns, lambda: F.linear(x, next(weights))


def _convolutions(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> Calls:
    return [_convolution(device, dtype, sizes.images, *size) for size in _CONVOLUTIONS]


def _convolution(
    device: torch.device, dtype: torch.dtype, images: int, into: int, out: int, kernel: int, height: int
) -> Any:
    x, w = _random(device, dtype, images, into, height, height), _random(device, dtype, out, into, kernel, kernel)
    return 2.0 * images * height * height * w.numel(), lambda: F.conv2d(x, w, padding=kernel // 2)


def _attentions(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> Calls:
    batch, heads, tokens, width = sizes.attention
    q, k, v = (_random(device, dtype, batch, heads, tokens, width) for _ in range(3))
    return [(4.0 * batch * heads * tokens * tokens * width, lambda: F.scaled_dot_product_attention(q, k, v))]


_UNITS: Mapping[str, Callable[[torch.device, torch.dtype, Sizes], Calls]] = {
    "product": _products,
    "convolution": _convolutions,
    "attention": _attentions,
}


def _random(device: torch.device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device=device).to(dtype)


def _fit(points: Sequence[Point]) -> tuple[float, float]:
    """The rate and the seconds besides with the least relative error in seconds ≈ besides + flops / rate."""
    a = torch.tensor([[p.flops / p.seconds, 1 / p.seconds] for p in points], dtype=torch.float64)
    scale = a.abs().amax(0)
    solution = torch.linalg.lstsq(a / scale, torch.ones(len(points), 1, dtype=torch.float64)).solution.flatten() / scale
    inverse, besides = map(float, solution)
    return (1 / inverse, besides) if inverse > 0 and besides > 0 else (_rate(points, 0.0), 0.0)


def _rate(points: Sequence[Point], fill: float) -> float:
    """Flops per second of all points together, each without what it takes besides."""
    return sum(p.flops for p in points) / sum(max(p.seconds - fill, 0.2 * p.seconds) for p in points)
