"""Large tensors piece by piece, so that to compare them takes little memory beside their own."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_ELEMENTS = 1 << 22  # of a piece; in float64, a comparison of one takes 0.2 GB


def in_pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The parts of tensors of one shape that have the same places; none where they have no elements."""
    if tensors[0].numel():
        yield from zip(*(tensor.reshape(-1).split(_ELEMENTS) for tensor in tensors), strict=True)


def all_close(a: torch.Tensor, b: torch.Tensor, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether the elements of tensors of one shape are as near as `torch.allclose` says; one that is no number, too."""
    return all(torch.allclose(x, y, rtol, atol, equal_nan=True) for x, y in in_pieces(a, b))
