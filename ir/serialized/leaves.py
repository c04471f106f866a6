"""Leaves that JSON has no word for, as objects with one key: infinity, dtypes, operators, classes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from functools import reduce
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload

from ir.graph import THIS_DEVICE, ThisDevice
from ir.objects.containers import Opening

_OF_TORCH = (torch.dtype, torch.layout, torch.memory_format)
_PLAIN_CLASSES = ("builtins", "collections", "torch")


class Unspeakable(Exception):
    """An object that a file cannot have."""


def is_plain_class(thing: Any) -> bool:
    """Whether a class is Python's or torch's own, and known by its name wherever a graph is read."""
    return isinstance(thing, type) and thing.__module__.partition(".")[0] in _PLAIN_CLASSES


def leaf_json(thing: Any) -> dict[str, Any]:
    """A leaf as an object of JSON.  Raises Unspeakable for what is none."""
    match thing:
        case float():
            return {"float": repr(thing)}
        case complex():
            return {"complex": [repr(thing.real), repr(thing.imag)]}
        case ThisDevice():
            return {"this_device": True}
        case OpOverload():
            return {"op": thing.name()}
        case HigherOrderOperator():
            return {"higher_order": thing.name()}
        case torch.device():
            return {"device": str(thing)}
        case Opening():
            return {"opening": thing.name}
        case _ if isinstance(thing, _OF_TORCH):
            return {"torch": str(thing).removeprefix("torch.")}
        case _ if thing is inspect.Parameter.empty:
            return {"empty": True}
        case type() if is_plain_class(thing):
            return {"class": [thing.__module__, thing.__qualname__]}
    kind = type(thing)
    raise Unspeakable(
        f"a {kind.__module__}.{kind.__qualname__}" + (f".{thing.name}" if isinstance(thing, Enum) else "")
    )


def leaf_of(kind: str, value: Any) -> Any:
    """The leaf of an object of JSON with the key `kind`.  Raises LookupError for what this process does not know."""
    try:
        return _READERS[kind](value)
    except (AttributeError, TypeError, ValueError, RuntimeError) as e:
        raise LookupError(f"the {kind} {value}: {e}") from e


def _operator(name: str) -> OpOverload:
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
    return _instance(found, OpOverload)


def _class(place: list[str]) -> type:
    module, name = place
    if module.partition(".")[0] not in _PLAIN_CLASSES:
        raise ValueError(f"{module} is not Python's or torch's")
    return _instance(reduce(getattr, name.split("."), sys.modules[module]), type)


def _instance(found: Any, *kinds: type) -> Any:
    if not isinstance(found, kinds):
        raise TypeError(f"it is a {type(found).__name__}")
    return found


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "float": float,
    "complex": lambda parts: complex(*map(float, parts)),
    "this_device": lambda _: THIS_DEVICE,
    "op": _operator,
    "higher_order": lambda name: _instance(getattr(torch.ops.higher_order, name), HigherOrderOperator),
    "device": torch.device,
    "opening": Opening.__getitem__,
    "torch": lambda name: _instance(getattr(torch, name), *_OF_TORCH),
    "empty": lambda _: inspect.Parameter.empty,
    "class": _class,
}
