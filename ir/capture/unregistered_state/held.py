"""Items of containers and attributes of objects; numbers, tensors and arrays hold nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import nn

_NUMBERS = (bool, int, float, complex, str, bytes, type(None), torch.SymInt, torch.SymFloat, torch.SymBool)
_FOREIGN = {"torch", "numpy", "threading", "logging", "concurrent", "weakref", "re", "functools", "builtins"}
_FOREIGN |= {"itertools", "_io", "io", "collections", "ir"}


def is_array(value: Any) -> TypeGuard[Any]:
    """Whether a value is an array of NumPy's, which need not be installed."""
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def is_leaf(value: Any) -> bool:
    """Whether a value is compared as a whole."""
    return isinstance(value, (*_NUMBERS, torch.Tensor)) or is_array(value)


def is_object(value: Any) -> bool:
    """Whether a value is an object of a class of the user or a library that holds its state in attributes."""
    if isinstance(value, (nn.Module, type, torch.Tensor, Mapping, list, tuple, set, frozenset, deque)):
        return False
    known = hasattr(value, "__dict__") or any(_slots(type(value)))
    return known and type(value).__module__.partition(".")[0] not in _FOREIGN


def items_in(value: Any) -> Mapping[Any, Any] | None:
    """The items of a container or an object, by key; None for anything else."""
    if isinstance(value, dict):
        return dict(dict.items(value))  # of other mappings, and of lazy ones, reading an item may do anything
    if isinstance(value, (list, tuple, deque)):
        return dict(enumerate(value))
    if isinstance(value, (set, frozenset)):
        return {item: item for item in value}
    return dict(attributes_in(value)) if is_object(value) else None


def attributes_in(value: Any) -> MutableMapping[str, Any]:
    """The attributes of an object, those in slots among them; what is put there is put on the object."""
    return _Slotted(value) if any(_slots(type(value))) else vars(value)


class _Slotted(MutableMapping[str, Any]):
    """The attributes of an object with slots."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def __getitem__(self, name: str) -> Any:
        if name in self:
            return getattr(self._owner, name)
        raise KeyError(name)

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self._owner, name, value)

    def __delitem__(self, name: str) -> None:
        object.__delattr__(self._owner, name)

    def __iter__(self) -> Iterator[str]:
        yield from getattr(self._owner, "__dict__", ())
        yield from (name for name in _slots(type(self._owner)) if hasattr(self._owner, name))

    def __contains__(self, name: object) -> bool:
        owner = self._owner
        own: Any = getattr(owner, "__dict__", ())
        return name in own or (isinstance(name, str) and name in _slots(type(owner)) and hasattr(owner, name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _slots(cls: type) -> tuple[str, ...]:
    """The names of a class's slots, without private ones of other names and those that Python itself reads."""
    try:
        known = _SLOTS.get(cls)
    except TypeError:  # its metaclass compares classes, and has no hash
        return tuple(_slots_of_bases(cls))
    if known is None:
        known = _SLOTS[cls] = tuple(_slots_of_bases(cls))
    return known


_SLOTS: WeakKeyDictionary[type, tuple[str, ...]] = WeakKeyDictionary()  # objects are looked into call after call


def _slots_of_bases(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        yield from (name for name in ((slots,) if isinstance(slots, str) else slots) if not name.startswith("__"))
