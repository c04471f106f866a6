"""Containers of arguments and results: the classes that torch's pytrees do not know, and the keys of all of them."""

from __future__ import annotations

import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ir.errors import CaptureError, in_one_line


class Opening(Enum):
    """A way to take apart objects of a class that torch does not take apart, and to make them again."""

    ENTRIES = auto()  # a dict of another class: by key
    ITEMS = auto()  # a list or tuple of another class: by position
    ATTRIBUTES = auto()  # anything else: by attribute, in `__dict__` or in slots


_OPENED: dict[type, Opening] = {}


def opening_of(cls: type) -> Opening | None:
    """The way in which objects of a class are taken apart; None for one that is registered with torch by others."""
    return _OPENED.get(cls)


def opened_as(cls: type, opening: Opening) -> None:
    """Take objects of a class apart in this way, as an earlier run did, if no way is known yet."""
    _OPENED.setdefault(cls, opening)


def flatten(value: Any) -> tuple[list[Any], pytree.TreeSpec]:
    """Leaves and containers of a value.

    Classes that torch has not registered as containers but that hold tensors (a transformers Cache, a plain
    dataclass, a namespace) are registered, and their objects flattened.
    Raises CaptureError for an object that holds itself, or that cannot be made again from what it holds.
    """
    try:
        leaves, spec = pytree.tree_flatten(value)
    except RecursionError:
        raise CaptureError("an object among the arguments or results holds itself; pass the tensors in it") from None
    unknown = {type(x): x for x in leaves if _holds_tensors(x)}
    if not unknown:
        return leaves, spec
    for cls, example in unknown.items():
        _register(cls, example)
    return flatten(value)


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, in slots and in `__dict__`."""
    classes = [cls for cls in reversed(type(value).__mro__) if "__slots__" in vars(cls)]
    names = [name for cls in classes for name, x in vars(cls).items() if isinstance(x, types.MemberDescriptorType)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)} | getattr(value, "__dict__", {})


def bare(cls: Any) -> Any:
    """An object of a class, made without a call of the class."""
    try:
        return object.__new__(cls)
    except TypeError:  # a class derived from one that is written in C
        return cls.__new__(cls)


def _holds_tensors(value: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether an object of a class of the user or a library holds a tensor, at any depth."""
    if isinstance(value, (torch.Tensor, torch.nn.Module, type, types.ModuleType)) or id(value) in seen:
        return False
    module = type(value).__module__
    if module == "builtins" or (module.partition(".")[0] == "torch" and not module.startswith(_OPEN_TO_TORCH)):
        return False
    inside = pytree.tree_leaves(_contents(value))
    return any(isinstance(x, torch.Tensor) or _holds_tensors(x, seen | {id(value)}) for x in inside)


_OPEN_TO_TORCH = "torch.distributions"


def _contents(value: Any) -> Any:
    match value:
        case dict():
            return list(value.values())
        case list() | tuple():
            return list(value)
    return attributes(value)


def _register(cls: type, example: Any) -> None:
    """Register a class with torch's pytrees as a container.  Raises CaptureError where `example` cannot be remade."""
    _OPENED[cls] = opening = _opening(cls)

    def opened(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
        match opening:
            case Opening.ENTRIES:
                return list(value.values()), tuple(value)
            case Opening.ITEMS:
                return list(value), ()
            case Opening.ATTRIBUTES:
                held = attributes(value)
                return list(held.values()), tuple(held)

    def closed(children: Any, keys: tuple[Any, ...]) -> Any:
        return remade(cls, opening, keys, list(children))

    try:
        closed(*opened(example))
    except Exception as e:
        raise CaptureError(
            f"a {cls.__qualname__} among the arguments or results cannot be made again from what it holds "
            f"({in_one_line(e)}); use a plain {cls.__mro__[-2].__name__} or a dataclass in its place"
        ) from e
    pytree.register_pytree_node(cls, opened, closed, serialized_type_name=f"{cls.__module__}.{cls.__qualname__}")


def _opening(cls: type) -> Opening:
    if issubclass(cls, dict):
        return Opening.ENTRIES
    return Opening.ITEMS if issubclass(cls, (list, tuple)) else Opening.ATTRIBUTES


def remade(cls: Any, opening: Opening, keys: Sequence[Any], children: list[Any]) -> Any:
    """An object of a class that holds `children`."""
    match opening:
        case Opening.ENTRIES:
            value = cls()
            value.update(zip(keys, children, strict=True))
        case Opening.ITEMS:
            value = cls(children)
        case Opening.ATTRIBUTES:
            value = bare(cls)
            for name, child in zip(keys, children, strict=True):
                if isinstance(getattr(cls, name, None), types.MemberDescriptorType):
                    object.__setattr__(value, name, child)
                else:
                    vars(value)[name] = child
    return value


def is_items(cls: Any) -> bool:
    """Whether a container is made by a call of its class with its items: torch.Size, and what x.max(-1) returns."""
    return isinstance(cls, type) and issubclass(cls, (list, tuple)) and not hasattr(cls, "_fields")


def child_keys(spec: pytree.TreeSpec) -> Any:
    """The keys of a container's children, as the library that registered it keeps them; None where it keeps none."""
    cls: Any = spec.type
    context: Any = spec.context
    count = spec.num_children
    if hasattr(context, "_fields"):  # a named tuple
        return context._fields
    if cls in (dict, OrderedDict) or (isinstance(cls, type) and opening_of(cls) is Opening.ENTRIES):
        return context
    if cls is defaultdict:
        return context[1]
    known = (getattr(cls, "__match_args__", None) if is_items(cls) else None, context)
    for keys in (*known, *(context if isinstance(context, (list, tuple)) else ())):
        if isinstance(keys, (list, tuple)) and len(keys) == count and all(isinstance(key, str) for key in keys):
            return keys
    return None


def key_paths(spec: pytree.TreeSpec) -> Iterator[tuple[tuple[Any, int], ...]]:
    """The path to each leaf: the key, or else the position, of each container on the way, and its position."""
    if spec.is_leaf():
        yield ()
        return
    keys = child_keys(spec) or range(spec.num_children)
    for i, (key, child) in enumerate(zip(keys, spec.children(), strict=True)):
        yield from (((key, i), *rest) for rest in key_paths(child))


def keys_on_the_way(spec: pytree.TreeSpec) -> tuple[tuple[Any, ...], ...]:
    """For each leaf the key, or else the position, of each container on the way to it."""
    return tuple(tuple(key for key, _ in path) for path in key_paths(spec))
