"""The nested lists, tuples and dicts of a node's arguments, taken apart as torch's pytrees do, and faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils import _pytree as pytree


def nested_leaves(nested: Any) -> Iterator[Any]:
    """The leaves of nested containers, in order."""
    kind = type(nested)
    if kind is tuple or kind is list:
        for item in nested:
            yield from nested_leaves(item)
    elif kind is dict:
        for item in nested.values():
            yield from nested_leaves(item)
    elif isinstance(nested, (tuple, list, dict)):  # a class of its own
        yield from pytree.tree_leaves(nested)
    else:
        yield nested


def mapped(to: Callable[[Any], Any], nested: Any) -> Any:
    """The same containers with `to` applied to each leaf."""
    kind = type(nested)
    if kind is tuple or kind is list:
        return kind([mapped(to, item) for item in nested])
    if kind is dict:
        return {key: mapped(to, item) for key, item in nested.items()}
    if isinstance(nested, (tuple, list, dict)):  # a class of its own
        return pytree.tree_map(to, nested)
    return to(nested)
