"""The speed of contractions on a device: matrix products, convolutions and attention, in each dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from runtime.measure.timing import ShowProgress, median_seconds
from runtime.stage.linear.column_blocks import linear_in_blocks

Numbers: TypeAlias = "dict[str, Any]"  # a device's table in a cluster file; `ir/machine/cluster.py` explains the keys

MEASURED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_CONVOLUTIONS = (  # of ResNet-50, those that are bound by arithmetic on any device
    (64, 64, 3, 56),
    (128, 128, 3, 28),
    (256, 256, 3, 14),
    (256, 1024, 1, 14),
    (512, 512, 3, 7),
    (512, 2048, 1, 7),
)
_POINTWISE = ((64, 64, 1, 56), (256, 64, 1, 56), (512, 128, 1, 28))  # and those that are bound by memory on GPUs


@dataclass(frozen=True)
class Workload:
    """The operators that are measured on a kind of device."""

    units: tuple[str, ...]  # functional units whose speeds differ on it
    products: tuple[tuple[int, int, int], ...]  # rows, inner, columns; those of transformers
    unaligned_products: tuple[tuple[int, int, int], ...]
    images: int
    convolutions: tuple[tuple[int, int, int, int], ...]  # channels in and out, kernel, height
    attention: tuple[int, int, int, int]  # batch, heads, tokens, width
    budget: float  # seconds for each operator, about


CPU = Workload(
    units=("product", "unaligned_product", "convolution", "attention"),
    products=((64, 768, 768), (128, 768, 3072), (256, 1024, 4096)),
    unaligned_products=((256, 1024, 4097),),
    images=1,
    convolutions=(*_CONVOLUTIONS, *_POINTWISE),
    attention=(2, 12, 128, 64),
    budget=0.25,
)
GPU = Workload(
    units=(*CPU.units, "unaligned_convolution", "biased_attention"),
    products=((1024, 2048, 2048), (2048, 4096, 1024), (2048, 4096, 4096), (2048, 4096, 14336), (2048, 14336, 4096)),
    unaligned_products=((4096, 1024, 50257), (16384, 768, 50257)),  # the vocabulary of GPT-2
    images=32,
    convolutions=_CONVOLUTIONS,
    attention=(4, 32, 512, 128),
    budget=0.1,
)

_REST = 0.1  # of the time, on accelerators: without pauses their clocks are lower than where a stage waits for others
_SLOW = 0.1  # seconds; slower contractions are skipped once one has been timed


@dataclass(frozen=True)
class Point:
    """A contraction that was timed."""

    flops: float
    seconds: float


def contractions(device: torch.device, sizes: Workload, launch: float, say: ShowProgress) -> Numbers:
    """Flops per second of each unit and dtype, and `fill`: seconds that any contraction takes besides.

    `launch`: seconds of a kernel that does nothing.
    """
    points: dict[str, dict[str, list[Point]]] = {unit: {} for unit in sizes.units}
    _heat(device)
    for dtype in MEASURED_DTYPES:
        name = str(dtype).removeprefix("torch.")
        for unit in sizes.units:
            say(f"{device}: {unit.replace('_', ' ')}s in {name}")
            found = _points(_UNITS[unit](device, dtype, sizes), device, sizes.budget, launch)
            if found:
                points[unit][name] = found
    shortest = min(point.seconds for by in points.values() for found in by.values() for point in found)
    fill = min(0.25 * shortest, *(_fit(found)[1] for found in points["product"].values()))  # noise makes it larger
    rates = {unit: {name: _rate(found, fill) for name, found in by.items()} for unit, by in points.items()}
    return {"fill": fill, "flops": rates.pop("product"), **{unit: by for unit, by in rates.items() if by}}


def _heat(device: torch.device) -> None:
    """Load an accelerator until its clock is steady."""
    if device.type != "cpu":
        median_seconds(_product(device, torch.bfloat16, 4096, 4096, 4096)[1], device, 1.0)


Calls: TypeAlias = "list[tuple[float, Callable[[], Any]]]"  # flops, and a call that does them


def _points(calls: Calls, device: torch.device, budget: float, launch: float) -> list[Point]:
    """The times of the calls that the device supports, without the slow ones."""
    points: list[Point] = []
    for flops, call in calls:
        if points and flops * points[-1].seconds / points[-1].flops > _SLOW:
            break
        try:
            rest = 0.0 if device.type == "cpu" else _REST
            points.append(Point(flops, max(median_seconds(call, device, budget, rest) - launch, 1e-9)))
        except (RuntimeError, NotImplementedError):  # no kernel for this dtype, or too little memory
            continue
    return points


def _products(device: torch.device, dtype: torch.dtype, sizes: Workload) -> Calls:
    return [_product(device, dtype, *size) for size in sizes.products]


def _product(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> Any:
    """The flops and the call, which is a stage's.  Each takes another weight, as in a model: none is in the cache."""
    x, w = (random(device, dtype, n, inner) for n in (rows, columns))
    room = (32 << 20 if device.type == "cpu" else 128 << 20) // w.nbytes
    weights = cycle([w, *(w.clone() for _ in range(room))])
    return 2.0 * rows * inner * columns, lambda: linear_in_blocks(x, next(weights), None)


def _unaligned_products(device: torch.device, dtype: torch.dtype, sizes: Workload) -> Calls:
    return [_product(device, dtype, *size) for size in sizes.unaligned_products]


def _convolutions(device: torch.device, dtype: torch.dtype, sizes: Workload) -> Calls:
    return [_convolution(device, dtype, sizes.images, *size) for size in sizes.convolutions]


def _convolution(
    device: torch.device, dtype: torch.dtype, images: int, into: int, out: int, kernel: int, height: int
) -> Any:
    x, w = random(device, dtype, images, into, height, height), random(device, dtype, out, into, kernel, kernel)
    return 2.0 * images * height * height * w.numel(), lambda: F.conv2d(x, w, padding=kernel // 2)


def _unaligned_convolutions(device: torch.device, dtype: torch.dtype, sizes: Workload) -> Calls:
    x, w = random(device, dtype, sizes.images, 3, 224, 224), random(device, dtype, 64, 3, 7, 7)
    return [(2.0 * sizes.images * 112 * 112 * w.numel(), lambda: F.conv2d(x, w, stride=2, padding=3))]


def _attentions(device: torch.device, dtype: torch.dtype, sizes: Workload) -> Calls:
    batch, heads, tokens, width = sizes.attention
    q, k, v = (random(device, dtype, batch, heads, tokens, width) for _ in range(3))
    return [(4.0 * batch * heads * tokens * tokens * width, lambda: F.scaled_dot_product_attention(q, k, v))]


def _biased_attentions(device: torch.device, dtype: torch.dtype, sizes: Workload) -> Calls:
    """Attention with a bias that is looked up by distance, as in T5, so that heads are its innermost dimension."""
    batch, heads, tokens, _ = sizes.attention
    q, k, v = (random(device, dtype, batch, heads, tokens, 64) for _ in range(3))
    places = torch.arange(tokens, device=device)
    bias = F.embedding((places[:, None] - places).clamp(0, 31), random(device, dtype, 32, heads)).permute(2, 0, 1)
    visible = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool, device=device)
    mask = torch.where(visible, bias, float("-inf"))
    flops = 4.0 * batch * heads * tokens * tokens * 64
    return [(flops, lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask))]


_UNITS: Mapping[str, Callable[[torch.device, torch.dtype, Workload], Calls]] = {
    "product": _products,
    "unaligned_product": _unaligned_products,
    "convolution": _convolutions,
    "unaligned_convolution": _unaligned_convolutions,
    "attention": _attentions,
    "biased_attention": _biased_attentions,
}


def random(device: torch.device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Normally distributed values."""
    return torch.randn(shape, device=device).to(dtype)


def _fit(points: Sequence[Point]) -> tuple[float, float]:
    """The flops per second and the constant seconds that fit best: seconds ≈ constant + flops / rate."""
    a = torch.tensor([[p.flops / p.seconds, 1 / p.seconds] for p in points], dtype=torch.float64)
    scale = a.abs().amax(0)
    solution = torch.linalg.lstsq(a / scale, torch.ones(len(points), 1, dtype=torch.float64)).solution.flatten() / scale
    inverse, besides = map(float, solution)
    return (1 / inverse, besides) if inverse > 0 and besides > 0 else (_rate(points, 0.0), 0.0)


def _rate(points: Sequence[Point], fill: float) -> float:
    """Flops per second of all points together, without the `fill` seconds of each."""
    return sum(p.flops for p in points) / sum(max(p.seconds - fill, 0.2 * p.seconds) for p in points)
