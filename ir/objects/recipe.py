"""A serializable recipe that rebuilds a Python object from the name of its class and its attributes."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias
from weakref import ReferenceType

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.utils._pytree import tree_unflatten

from ir.errors import CaptureError
from ir.objects.signature import Slot, Tree


@dataclass(frozen=True)
class Imported:
    """A class, a function or a constant of a module: `torch.nn.functional`, `relu`."""

    module: str
    name: str


@dataclass(frozen=True)
class Called:
    """The result of a call: `partial(gelu, approximate="tanh")`."""

    function: Imported
    args: tuple[Recipe, ...] = ()
    kwargs: tuple[tuple[str, Recipe], ...] = ()


@dataclass(frozen=True)
class Container:
    """A list, tuple or set."""

    kind: type
    items: tuple[Recipe, ...]


@dataclass(frozen=True)
class DictItems:
    """A dict."""

    items: tuple[tuple[Recipe, Recipe], ...]


@dataclass(frozen=True)
class Bare:
    """An object made without a call of its class, then given attributes; those of a module include its children."""

    cls: Imported
    attributes: tuple[tuple[str, Recipe], ...]
    is_module: bool = False


Literal: TypeAlias = bool | int | float | complex | str | bytes | None
Recipe: TypeAlias = Literal | Slot | Imported | Called | Container | DictItems | Bare


def recipe(value: Any, place: str, inside: frozenset[int] = frozenset()) -> Recipe:
    """The recipe of a value at `place`, `model.config`.  Raises CaptureError that names the place of what has none."""
    if id(value) in inside:
        raise CaptureError(f"{place} refers to itself")
    inside |= {id(value)}
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes() if type(value) in _LITERALS:
            return value
        case Slot():
            return value
        case Enum():
            cls = _imported(type(value), place)
            return Imported(cls.module, f"{cls.name}.{value.name}")
        case torch.dtype() | torch.layout() | torch.memory_format():
            return Imported("torch", str(value).removeprefix("torch."))
        case torch.device() | torch.Size():
            plain = str(value) if isinstance(value, torch.device) else tuple(value)
            return Called(Imported("torch", type(value).__name__), (recipe(plain, place, inside),))
        case type() | types.FunctionType() | types.BuiltinFunctionType():
            return _imported(value, place)
        case functools.partial():
            named = tuple((k, recipe(v, place, inside)) for k, v in value.keywords.items())
            parts = (value.func, *value.args)
            return Called(Imported("functools", "partial"), tuple(recipe(a, place, inside) for a in parts), named)
        case list() | tuple() | set() | frozenset() | dict():
            return _container(value, place, inside)
        case torch.Tensor():
            raise CaptureError(f"{place} is a tensor inside a container, which cannot be written down; use a buffer")
        case nn.Module():
            cls = _imported(type_before_parametrizations(value), place)
            return Bare(cls, _module_attributes(value, place, inside), is_module=True)
    return Bare(_imported(type(value), place), _attributes(value, place, inside))


def recipe_of(tree: Tree, place: str) -> Recipe:
    """The recipe of the containers of a tree, with its Slots; those of a named tuple need not be tensors to be made."""
    cls, context, parts = tree.spec.type, tree.spec.context, tree.parts
    if cls in (tuple, list):
        return Container(cls, tuple(recipe_of(part, place) for part in parts))
    if cls is dict:
        return DictItems(tuple((k, recipe_of(part, place)) for k, part in zip(context, parts, strict=True)))
    if hasattr(context, "_fields"):
        return Called(_imported(context, place), tuple(recipe_of(part, place) for part in parts))
    return recipe(tree_unflatten(list(tree.leaves), tree.spec), place)


_LITERALS = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, set, frozenset, dict)


def _container(value: Any, place: str, inside: frozenset[int]) -> Recipe:
    kind = next(cls for cls in _CONTAINERS if isinstance(value, cls))

    def part(item: Any, name: Any) -> Recipe:
        return recipe(item, f"{place}[{name!r}]", inside)

    if isinstance(value, dict):
        plain: Recipe = DictItems(tuple((part(k, k), part(v, k)) for k, v in value.items()))
    else:
        plain = Container(kind, tuple(part(item, i) for i, item in enumerate(value)))
    if type(value) is kind:
        return plain
    if hasattr(value, "_fields"):  # a named tuple
        return Called(_imported(type(value), place), tuple(part(item, i) for i, item in enumerate(value)))
    return Called(_imported(type(value), place), (plain,))


_OF_EVERY_MODULE = set(vars(nn.Module()))


def _module_attributes(module: nn.Module, place: str, inside: frozenset[int]) -> tuple[tuple[str, Recipe], ...]:
    """Plain attributes, parameters and buffers that are None, and children; tensors come with the weights."""
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        if vars(module)[hooks]:
            raise CaptureError(f"{place} has hooks, which cannot be written down")
    own = {k: v for k, v in vars(module).items() if k not in _OF_EVERY_MODULE and not isinstance(v, torch.Tensor)}
    if type(module).__setattr__ is not nn.Module.__setattr__:
        own = {k: _without_tensors(v) for k, v in own.items()}
    absent = {k: None for held in (module._parameters, module._buffers) for k, v in held.items() if v is None}
    return _attributes_of({**own, **absent, **module._modules}, place, inside)


def _without_tensors(value: Any) -> Any:
    """A list without its tensors and references to them.

    A class that is told of each tensor that it is given (`__setattr__`) puts them there itself, as nn.LSTM does.
    """
    if type(value) is not list or not any(isinstance(x, (torch.Tensor, ReferenceType)) for x in value):
        return value
    return [None if isinstance(x, (torch.Tensor, ReferenceType)) else x for x in value]


def _attributes(value: Any, place: str, inside: frozenset[int]) -> tuple[tuple[str, Recipe], ...]:
    if not hasattr(value, "__dict__") or isinstance(value, (types.ModuleType, types.MethodType)):
        raise CaptureError(
            f"{place} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be written down"
        )
    return _attributes_of(vars(value), place, inside)


def _attributes_of(values: Mapping[str, Any], place: str, inside: frozenset[int]) -> tuple[tuple[str, Recipe], ...]:
    return tuple((name, recipe(value, f"{place}.{name}", inside)) for name, value in values.items())


def _imported(value: Any, place: str) -> Imported:
    """The name under which a class or a function can be imported."""
    module, name = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is value and module != "__main__":
        return Imported(module, name)
    if isinstance(value, types.BuiltinFunctionType) and getattr(torch, value.__name__, None) is value:
        return Imported("torch", value.__name__)
    raise CaptureError(
        f"{place} is {name or value!r} of {module or 'no module'}, which cannot be imported by that name"
    )
