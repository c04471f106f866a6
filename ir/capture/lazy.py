"""Tensors that traced code is given in place of others, which are recorded when it reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map_only


class LazyTensor(torch.Tensor):
    """A tensor that is computed when it is read, but for some functions."""

    def computed(self) -> torch.Tensor:
        """The tensor itself."""
        raise NotImplementedError

    @classmethod
    def made_without(cls, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a function that need not compute the tensor; None where it must."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = cls.made_without(func, args, kwargs or {})
        return cls.__torch_dispatch__(func, types, args, kwargs) if made is None else made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(LazyTensor, computed, (args, kwargs or {}))
        return func(*args, **kwargs)


def computed(value: Any) -> Any:
    """A tensor that is computed now if it was not yet; any other value as it is."""
    return value.computed() if isinstance(value, LazyTensor) else value
