"""A tensor that stands for any of several, whose sizes are values: what is made of it is made of all."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch.utils._pytree import tree_leaves

_DESCRIBES = {getattr(torch.Tensor, name).__get__ for name in ("dtype", "device", "ndim")} | {torch.Tensor.dim}
_PROPERTIES = {getattr(torch.Tensor, name).__get__: name for name in ("shape", "T")}


class AnyOfMany(torch.Tensor):
    """Any of several tensors, for code that is traced while their number and sizes are unknown."""

    def read(self) -> NoReturn:
        """Read the number and the sizes: raises what torch does for values that a trace does not know."""
        raise NotImplementedError

    @classmethod
    def made_of_all(cls, name: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of a function for all tensors at once; None where that cannot be told."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DESCRIBES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        name = _PROPERTIES.get(func) or getattr(func, "__name__", "")
        made = cls.made_of_all(name, func, *args, **(kwargs or {}))
        return cls.__torch_dispatch__(func, types, args, kwargs) if made is None else made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read_any((args, kwargs or {}))
        raise AssertionError(f"{func} was given none of many tensors")


class OneForMany(tuple[AnyOfMany, ...]):
    """A tuple of several tensors, one of which stands for all; whatever else reads it reads their number."""

    def __len__(self) -> int:
        next(iter(self)).read()

    def __getitem__(self, index: Any) -> Any:
        next(iter(self)).read()


def read_any(values: Any) -> None:
    """Read the sizes of the tensors of which one is among `values`, which raises what torch does for unknown values."""
    for value in tree_leaves(values):
        if isinstance(value, OneForMany):
            len(value)
        if isinstance(value, AnyOfMany):
            value.read()
