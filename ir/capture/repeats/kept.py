"""Tensors that a layer leaves in objects that it is given, as keys and values in a cache."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType, NoneType
from typing import Any, NamedTuple

import torch
from torch import nn

_FOREIGN = {"torch", "sympy", "numpy", "builtins"}
_EMPTY = {bool, int, float, complex, str, bytes, NoneType, torch.SymInt, torch.SymBool, torch.dtype, torch.device}


class Holding(NamedTuple):
    """A place that holds a tensor: a key of a dict or of an object's attributes, or an index of a list."""

    owner: Any  # the dict, the list or the object
    items: Any  # the dict or the list
    key: Any

    @property
    def tensor(self) -> torch.Tensor:
        return self.items[self.key]

    def put(self, tensor: torch.Tensor) -> None:
        self.items[self.key] = tensor


def kept_in(given: Any) -> Iterator[Holding]:
    """The places in lists, dicts and attributes of objects, of all that `given` leads to; modules are passed over."""
    waiting, seen = [given], set[int]()
    while waiting:
        owner = waiting.pop()
        if id(owner) in seen or (items := _items(owner)) is None:
            continue
        seen.add(id(owner))
        for key, value in items.items() if isinstance(items, dict) else enumerate(items):
            if type(value) in _EMPTY:  # most are, and each layer of a model may be given what all have left
                continue
            if not isinstance(value, torch.Tensor):
                waiting.append(value)
            elif not isinstance(items, tuple):
                yield Holding(owner, items, key)


def _items(owner: Any) -> dict[Any, Any] | list[Any] | tuple[Any, ...] | None:
    """The contents of a container or an object; None for anything else."""
    if isinstance(owner, (dict, list, tuple)):
        return owner
    if isinstance(owner, (nn.Module, ModuleType, type)) or type(owner).__module__.partition(".")[0] in _FOREIGN:
        return None
    return getattr(owner, "__dict__", None)
