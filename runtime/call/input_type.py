"""The type of a tensor at a border: dtype and shape, checked against what callers pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from runtime.call.expressions import SizeExpression
from runtime.call.sizes import ObservedSize
from runtime.call.trees.tree_nodes import describe_value
from runtime.errors import InputError, ManifestError
from runtime.manifest.manifest import Tensor


@dataclass(frozen=True)
class InputType:
    """The dtype and the dimensions of a tensor, numbers or expressions over the symbols: `int64[batch, seq]`."""

    name: str
    dtype: torch.dtype
    dims: tuple[int | SizeExpression, ...]
    values: tuple[int, int] | None = None  # the least and the largest that it may hold: it indexes a table

    @classmethod
    def parse(cls, tensor: Tensor, symbols: Collection[str], values: tuple[int, int] | None = None) -> InputType:
        """Raises ManifestError for an unknown dtype or a dimension that is no expression."""
        dtype = getattr(torch, tensor.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise ManifestError(f"input `{tensor.name}` has the unknown dtype {tensor.dtype!r}")
        dims = (SizeExpression.parse(d, symbols) if isinstance(d, str) else d for d in tensor.shape)
        return cls(tensor.name, dtype, tuple(dims), values)

    def __str__(self) -> str:
        dims = ", ".join(str(d) if isinstance(d, int) else d.text for d in self.dims)
        return f"{str(self.dtype).removeprefix('torch.')}[{dims}]"

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape for these values of the symbols."""
        return tuple(d if isinstance(d, int) else d(sizes) for d in self.dims)

    def least(self, sizes: Mapping[str, int], device: torch.device | None = None) -> torch.Tensor:
        """Zeros, or the least that an index may be, of the shape for these values of the symbols."""
        low, _ = self.values or (0, 0)
        return torch.full(self.shape(sizes), max(0, low), dtype=self.dtype, device=device)

    def check(self, value: Any, argument: str) -> None:
        """Raises InputError unless `value` is a tensor with data, this dtype, this rank and these fixed dimensions."""
        if not self._fits(value):
            raise InputError(f"argument `{argument}`: expected {self}, got {describe_value(value)}")
        if value.is_meta or value.layout != torch.strided:
            odd = "on the meta device, which holds no data" if value.is_meta else f"of layout {value.layout}"
            raise InputError(f"argument `{argument}`: expected {self}, got a tensor {odd}")
        if self.values is not None:
            self._check_values(value, argument, *self.values)

    def seen(self, value: torch.Tensor, argument: str) -> Iterator[ObservedSize]:
        """The sizes in the symbolic dimensions of a checked tensor.  `argument`: its name in messages."""
        for i, (dim, size) in enumerate(zip(self.dims, value.shape, strict=True)):
            if isinstance(dim, SizeExpression):
                yield ObservedSize(argument, i, dim, size)

    def _check_values(self, value: torch.Tensor, argument: str, low: int, high: int) -> None:
        """Raises InputError for an index that is not there; tensors on a device are not waited for."""
        if value.device.type != "cpu" or not value.numel():
            return
        least, most = (int(found) for found in value.aminmax())
        if least < low or most > high:
            wrong = least if least < low else most
            raise InputError(f"argument `{argument}` holds {wrong}; the model takes {low} to {high}")

    def _fits(self, value: Any) -> bool:
        if not isinstance(value, torch.Tensor) or value.dtype != self.dtype or value.dim() != len(self.dims):
            return False
        return all(isinstance(d, SizeExpression) or d == n for d, n in zip(self.dims, value.shape, strict=True))
