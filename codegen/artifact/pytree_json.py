"""The containers of a model's arguments and results as JSON, in the form that runtime.call.trees.tree reads."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch.utils._pytree import TreeSpec

from codegen.spelling.literals import expr_source
from ir.errors import CompileError
from ir.objects.containers import Opening, child_keys, is_items, opening_of
from ir.objects.signature import FixedTensor, Slot, Tree


def tree_json(tree: Tree) -> Any:
    """A tree as JSON.  Raises CompileError for a fixed value that JSON cannot hold."""
    leaves = iter(tree.leaves)
    return _node(tree.spec, leaves)


def _node(spec: TreeSpec, leaves: Any) -> Any:
    if spec.is_leaf():
        return _leaf(next(leaves))
    children = [_node(child, leaves) for child in spec.children()]
    cls, keys = spec.type, child_keys(spec)
    if cls in (tuple, list):
        return {cls.__name__: children}
    if is_items(cls):
        return {"list" if issubclass(cls, list) else "tuple": children, "class": _path(cls)}
    if cls is dict:
        return {"dict": _pairs(keys, children)}
    if cls is defaultdict:
        return {"dict": _pairs(keys, children), "class": _path(cls), "default": _default(spec.context[0])}
    opening = opening_of(cls) if isinstance(cls, type) else None
    if cls is OrderedDict or opening is Opening.ENTRIES:
        return {"dict": _pairs(keys, children), "class": _path(cls)}
    if keys is None:
        raise CompileError(
            f"{_path(cls)} stands among the arguments or results; its fields have no names to store; use a tuple, a "
            "list or a dict in its place"
        )
    if hasattr(spec.context, "_fields"):  # a named tuple
        return {"fields": _pairs(keys, children), "class": _path(spec.context), "by": "position"}
    return {"fields": _pairs(keys, children), "class": _path(cls), "by": "keyword" if opening is None else "attribute"}


def _default(factory: Any) -> str | None:
    """The class that makes the missing values of a defaultdict; None where nothing does."""
    if factory is None or isinstance(factory, type):
        return factory and _path(factory)
    raise CompileError(
        f"a defaultdict among the arguments or results makes missing values by {getattr(factory, '__name__', factory)},"
        " which stages cannot carry; use a class such as list in its place, or a dict"
    )


def _pairs(keys: Sequence[Any] | None, children: Sequence[Any]) -> list[list[Any]]:
    keys = keys or ()
    for key in keys:
        if type(key) not in (str, int, bool, type(None)):
            raise CompileError(f"a dict among the arguments or results has the key {key!r}; use str or int keys")
    return [[key, child] for key, child in zip(keys, children, strict=True)]


def _leaf(leaf: Any) -> Any:
    match leaf:
        case Slot():
            return {"slot": leaf.index}
        case FixedTensor(values, dtype):
            return {"tensor": values, "dtype": str(dtype).removeprefix("torch.")}
        case sympy.Basic():
            return {"size": expr_source(leaf)}
        case torch.dtype():
            return {"torch": str(leaf).removeprefix("torch.")}
        case torch.device():
            return {"device": str(leaf)}
        case float() if leaf != leaf or leaf in (float("inf"), float("-inf")):
            return {"float": str(leaf)}
        case None | bool() | int() | float() | str():
            return {"value": leaf}
        case type():
            return {"class": _path(leaf)}
    raise CompileError(
        f"the model takes or returns {leaf!r}, of the class {type(leaf).__name__}, which stages cannot carry; use "
        "tensors, numbers and text, and containers of them"
    )


def _path(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
