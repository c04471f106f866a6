"""Differences of results that rounding explains: the same arithmetic in another order, as in fused layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ir.objects.pieces import all_close, in_pieces

_OF_LARGEST = {
    torch.float64: 5e-14,
    torch.float32: 3e-5,
    torch.float16: 8e-3,
    torch.bfloat16: 6e-2,
    torch.complex128: 5e-14,
    torch.complex64: 3e-5,
}
"""What is taken for rounding, as a part of the largest element of an output, or of 1 where that is larger: 256 times
the distance between neighbours around 1, and 8 times in the two dtypes in which layers only store."""


@dataclass(frozen=True, order=True)
class Rounding:
    """The largest difference of an element that is taken for rounding; `dtype` is that of its output."""

    most: float = 0.0
    dtype: str = ""

    def __str__(self) -> str:
        if not self.most:
            return "bit for bit"
        bound = _OF_LARGEST[getattr(torch, self.dtype)]
        return f"within {self.most:.3g} (another order of rounding: {self.dtype}, at most {bound:g} of the largest)"


EXACT = Rounding()


def rounding_between(a: Any, b: Any) -> Rounding | None:
    """The rounding that sets two results apart; None where something else does."""
    if equal_results(a, b):
        return EXACT
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
    if not tensors or a.dtype not in _OF_LARGEST or (a.shape, a.dtype) != (b.shape, b.dtype):
        return None
    finite = (x[torch.isfinite(x)].abs().double() for (x,) in in_pieces(a))
    largest = max((x.max().item() for x in finite if x.numel()), default=0.0)
    apart = distance(a, b)
    if apart > _OF_LARGEST[a.dtype] * max(1.0, largest) or not _finite_alike(a, b):
        return None
    return Rounding(apart, str(a.dtype).removeprefix("torch."))


def equal_results(a: Any, b: Any) -> bool:
    """Whether two results are of one type and equal, bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and all_close(a, b)
    return type(a) is type(b) and a == b


def _finite_alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the infinite elements are the same, and the same are no numbers."""
    return all(_piece_is_alike(x, y) for x, y in in_pieces(a, b))


def _piece_is_alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    finite = torch.isfinite(a)
    rest = ~finite
    same = (a[rest] == b[rest]) | (a[rest].isnan() & b[rest].isnan())
    return torch.equal(finite, torch.isfinite(b)) and bool(same.all())


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two elements that are numbers."""
    exact = torch.complex128 if a.is_complex() else torch.float64
    apart = ((x.to(exact) - y.to(exact)).abs().nan_to_num().max().item() for x, y in in_pieces(a, b))
    return max(apart, default=0.0)
