"""Trees: the containers of a model's arguments and results, as JSON in the manifest.

A tree is a JSON value, one of

    {"slot": 0}                    tensor 0 of the model's inputs or outputs
    {"size": "2*batch"}            a number computed from the symbols
    {"value": 1}                   None, a bool, an int, a finite float or a string
    {"float": "inf"}               "inf", "-inf" or "nan"
    {"tensor": [[1, 2]], "dtype": "int64"}   a tensor of these values
    {"torch": "float32"}           a dtype, layout or memory format
    {"device": "cpu"}              a torch.device
    {"class": "module:QualName"}   a class itself
    {"tuple": [tree, …]}           with "class": "torch:Size" where it is not a plain tuple: cls([…])
    {"list": [tree, …]}            the same for lists
    {"dict": [[key, tree], …]}     with "class": "collections:OrderedDict" where it is not a plain dict
                                   and "default": "builtins:list" for a defaultdict of lists
    {"fields": [[name, tree], …], "class": "module:QualName", "by": …}
                                   "position": cls(*values), "keyword": cls(**values),
                                   "attribute": an object made without a call of cls, with these attributes
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import torch

from runtime.call.expressions import SizeExpression
from runtime.call.trees.classes import find_class
from runtime.call.trees.tree_nodes import Entries, Fields, Fixed, FixedValues, Items, Size, TensorSlot, TreeNode
from runtime.errors import ManifestError


def parse(tree: Any, symbols: Collection[str], tensors: int) -> TreeNode:
    """The node of a JSON tree.  `tensors`: the number of slots.  Raises ManifestError if it is malformed."""
    try:
        return _parse(tree, symbols, tensors)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as e:
        raise ManifestError(f"the manifest holds a malformed tree ({type(e).__name__}: {e}); compile again") from e


def _parse(tree: Any, symbols: Collection[str], tensors: int) -> TreeNode:
    def several(trees: Iterable[Any]) -> tuple[TreeNode, ...]:
        return tuple(_parse(child, symbols, tensors) for child in trees)

    def named(pairs: Iterable[Any]) -> tuple[tuple[Any, TreeNode], ...]:
        return tuple((key, _parse(child, symbols, tensors)) for key, child in pairs)

    match tree:
        case {"slot": int(index)} if index in range(tensors):
            return TensorSlot(index)
        case {"size": str(text)}:
            return Size(SizeExpression.parse(text, symbols))
        case {"value": None | bool() | int() | float() | str() as value}:
            return Fixed(value)
        case {"float": str(text)}:
            return Fixed(float(text))
        case {"tensor": values, "dtype": str(dtype)}:
            return FixedValues(torch.tensor(values, dtype=_torch_constant(dtype)))
        case {"torch": str(name)}:
            return Fixed(_torch_constant(name))
        case {"device": str(name)}:
            return Fixed(torch.device(name))
        case {"tuple": items}:
            return Items(find_class(tree.get("class", "builtins:tuple"), (), "tuple"), several(items))
        case {"list": items}:
            return Items(find_class(tree.get("class", "builtins:list"), (), "list"), several(items))
        case {"dict": entries}:
            cls = find_class(tree.get("class", "builtins:dict"), (), "entries")
            return Entries(partial(cls, _default(tree["default"])) if "default" in tree else cls, named(entries))
        case {"fields": fields, "class": str(path), "by": "position" | "keyword" | "attribute" as by}:
            return Fields(find_class(path, tuple(name for name, _ in fields), by), by, named(fields))
        case {"class": str(path)} if len(tree) == 1:
            return Fixed(find_class(path, (), "attribute"))
    raise ValueError(f"unknown node {tree!r}")


def _default(path: str | None) -> type | None:
    return None if path is None else find_class(path, (), "attribute")


def _torch_constant(name: str) -> Any:
    found = getattr(torch, name)
    if not isinstance(found, (torch.dtype, torch.layout, torch.memory_format)):
        raise ValueError(f"torch.{name} is no dtype, layout or memory format")
    return found
