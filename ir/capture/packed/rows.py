"""Rows chosen by a mask that are put back under it, recorded in their places: no size depends on the mask.

`x[mask] = x[mask] + rows` is `torch.where(mask, x + spread, x)`, where `spread` has each of the `rows` in its place.
Whatever else reads rows that a mask chose has a size of values, as torch.export records it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ir.capture.lazy import LazyTensor
from ir.capture.packed.pieces import is_unknown

_GET, _SET = torch.Tensor.__getitem__, torch.Tensor.__setitem__


class RowsInPlace(TorchFunctionMode):
    """Gives code that chooses rows of a tensor by a mask without values `ChosenRows`.

    `seen` is given the number of rows that a mask must choose, and says whether that is a size.  A mode, as functions
    in the place of a tensor's own for an index would leave its type another one.
    """

    def __init__(self, seen: Callable[[Any], bool]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _GET and args[0].is_floating_point() and (mask := mask_in(*args)) is not None:
            return ChosenRows(args[0], mask, self._seen)
        if func is _SET and isinstance(args[2], ChosenRows) and put_in_place(*args):
            return None
        return func(*args, **(kwargs or {}))


def put_in_place(tensor: Tensor, index: Any, rows: ChosenRows) -> bool:
    """Store rows under the mask that chose them; False, and nothing is stored, where it is another one."""
    mask = mask_in(tensor, index)
    if mask is None or not _is_same(mask, rows.mask) or rows.whole.shape != tensor.shape:
        return False
    tensor.copy_(torch.where(rows.spread_mask, rows.whole, tensor))
    return True


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two masks are one tensor, or views of it."""
    if one is other:
        return True
    alike = one.shape == other.shape and one.stride() == other.stride()
    return (
        alike and one._base is not None and one._base is other._base and one.storage_offset() == other.storage_offset()
    )


def mask_in(tensor: Tensor, index: Any) -> Tensor | None:
    """The mask without values in an index that is nothing else."""
    mask, *others = index if isinstance(index, tuple) and index else (index,)
    if not isinstance(mask, Tensor) or mask.dtype is not torch.bool or not mask.dim() or not is_unknown(mask):
        return None
    alone = all(isinstance(other, slice) and other == slice(None) for other in others)
    return mask if alone and tensor.shape[: mask.dim()] == mask.shape else None


class ChosenRows(LazyTensor):
    """The rows of a tensor where a mask is true, computed when anything but a sum or a store under it reads them."""

    whole: Tensor
    mask: Tensor
    seen: Callable[[Any], bool]

    @staticmethod
    def __new__(cls, whole: Tensor, mask: Tensor, seen: Callable[[Any], bool]) -> ChosenRows:
        rows = Tensor._make_wrapper_subclass(cls, whole.shape[mask.dim() - 1 :], dtype=whole.dtype, device=whole.device)
        rows.whole, rows.mask, rows.seen = whole, mask, seen
        return rows

    def __init__(self, whole: Tensor, mask: Tensor, seen: Callable[[Any], bool]) -> None:
        super().__init__()

    @property
    def spread_mask(self) -> Tensor:
        """The mask with as many dimensions as the tensor."""
        return self.mask.view(*self.mask.shape, *[1] * (self.whole.dim() - self.mask.dim()))

    def computed(self) -> Tensor:
        return _GET(self.whole, self.mask)

    @classmethod
    def made_without(cls, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        is_sum = getattr(func, "__name__", "") in ("add", "__add__") and not kwargs and len(args) == 2
        return _sum(*args) if is_sum and isinstance(args[0], ChosenRows) else None


def _sum(rows: ChosenRows, other: Any) -> ChosenRows | None:
    """The sum with as many other rows; None for anything else."""
    whole, mask = rows.whole, rows.spread_mask
    if not isinstance(other, Tensor) or isinstance(other, ChosenRows) or other.dtype is not whole.dtype:
        return None
    shape = whole.shape[rows.mask.dim() :]
    if other.dim() != len(shape) + 1 or other.shape[1:] != shape or not rows.seen(other.shape[0]):
        return None
    return ChosenRows(whole + torch.zeros_like(whole).masked_scatter(mask, other), rows.mask, rows.seen)
