"""Writes at positions that only a call knows, `ring[position] = row`: recorded as index_put, not by the position."""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from ir.operators.facts import aten


class WritesByPosition(TorchFunctionMode):
    """Has `x[i, 2:] = value` write by index_put where `i` is a whole number in a tensor without a known value.

    torch would ask the tensor for the number, which no export knows.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__setitem__:
            into, index, value = args
            items = index if isinstance(index, tuple) else (index,)
            if any(map(_is_position, items)) and all(_is_position(i) or _is_plain(i) for i in items):
                return _write(into, items, value)
        return func(*args, **(kwargs or {}))


def _is_position(item: Any) -> bool:
    """Whether an index is a whole number that is not known."""
    if not isinstance(item, Tensor) or item.dim() or item.dtype in (torch.bool, torch.uint8):
        return False
    known = isinstance(item, FakeTensor) and item.constant is not None
    return not (known or item.is_floating_point() or item.is_complex())


def _is_plain(item: Any) -> bool:
    return isinstance(item, (int, torch.SymInt, slice, EllipsisType, type(None))) and not isinstance(item, bool)


def _write(into: Tensor, items: tuple[Any, ...], value: Any) -> None:
    """Write to the part that the plain indices take, with a position in place of each whole dimension left for it."""
    left = into.dim() - sum(item is not None and item is not Ellipsis for item in items)
    dim, indices = 0, list[Tensor | None]()
    for item in items:
        if _is_position(item):
            indices += [None] * (dim - len(indices)) + [item]
        dim += left if item is Ellipsis else not isinstance(item, (int, torch.SymInt))
    plain = tuple(slice(None) if _is_position(item) else item for item in items)
    part = into if all(item == slice(None) for item in plain) else into[plain]
    if not isinstance(value, Tensor):
        value = torch.full((), value, dtype=into.dtype, device=into.device)
    while value.dim() > part.dim() - sum(index is not None for index in indices) and value.shape[0] == 1:
        value = value.squeeze(0)
    aten.index_put_.default(part, indices, value.to(into.dtype))
