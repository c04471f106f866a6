"""The containers of a model's arguments and results as JSON, in the form that runtime.call.tree reads."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch.utils._pytree import TreeSpec

from codegen.spelling.literals import expr_source
from ir.errors import CompileError
from ir.signature import Slot, Tree, is_opened


def tree_json(tree: Tree) -> Any:
    """A tree as JSON.  Raises CompileError for a fixed value that JSON cannot hold."""
    leaves = iter(tree.leaves)
    return _node(tree.spec, leaves)


def _node(spec: TreeSpec, leaves: Any) -> Any:
    if spec.is_leaf():
        return _leaf(next(leaves))
    children = [_node(child, leaves) for child in spec.children()]
    cls, context = spec.type, spec.context
    if cls in (tuple, list, torch.Size):
        return {"list" if cls is list else "tuple": children}
    if cls is dict:
        return {"dict": _pairs(context, children)}
    if cls is OrderedDict:
        return {"dict": _pairs(context, children), "class": "collections:OrderedDict"}
    if cls is defaultdict:
        return {"dict": _pairs(context[1], children)}
    fields = getattr(context if isinstance(context, type) else cls, "_fields", None)
    if fields is not None:
        named = context if isinstance(context, type) else cls
        return {"fields": _pairs(fields, children), "class": _path(named), "by": "position"}
    names = _field_names(cls, context, len(children))
    return {"fields": _pairs(names, children), "class": _path(cls), "by": "attribute" if is_opened(cls) else "keyword"}


def _pairs(keys: Sequence[Any], children: Sequence[Any]) -> list[list[Any]]:
    for key in keys:
        if type(key) not in (str, int, bool, type(None)):
            raise CompileError(f"a dict among the arguments or results has the key {key!r}; use str or int keys")
    return [[key, child] for key, child in zip(keys, children, strict=True)]


def _field_names(cls: type, context: Any, count: int) -> list[str]:
    """The names of a container's children, as the library that registered it keeps them."""
    for names in (context, *(context if isinstance(context, (list, tuple)) else ())):
        if isinstance(names, (list, tuple)) and len(names) == count and all(isinstance(n, str) for n in names):
            return list(names)
    raise CompileError(f"{_path(cls)} stands among the arguments or results; its fields have no names to store")


def _leaf(leaf: Any) -> Any:
    match leaf:
        case Slot():
            return {"slot": leaf.index}
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
