"""Signatures of models: the nested containers of arguments and results (pytrees)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Slot:
    """A tensor of the program: the index of a graph's input or output."""

    index: int


@dataclass(frozen=True)
class Tree:
    """Nested containers whose leaves are Slots, sizes (sympy expressions) or fixed Python values."""

    spec: pytree.TreeSpec
    leaves: tuple[Any, ...]

    def fill(self, tensors: Sequence[Any]) -> Any:
        """The containers with `tensors` in the slots, by index."""
        return pytree.tree_unflatten([tensors[x.index] if isinstance(x, Slot) else x for x in self.leaves], self.spec)


@dataclass(frozen=True)
class Signature:
    """A model's `forward`: its parameters, and the arguments and results of the captured call."""

    parameters: tuple[inspect.Parameter, ...]
    arguments: Tree  # a dict from parameter name to argument
    returns: Tree

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The tensors of a call, in the order of the graph's inputs."""
        leaves = flatten(bind(self.parameters, args, kwargs))[0]
        slots = [(x.index, leaf) for x, leaf in zip(self.arguments.leaves, leaves, strict=True) if isinstance(x, Slot)]
        return [leaf for _, leaf in sorted(slots, key=lambda s: s[0])]


def bind(parameters: Sequence[inspect.Parameter], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name, defaults included."""
    bound = inspect.Signature(parameters).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def call(module: Any, parameters: Sequence[inspect.Parameter], arguments: Mapping[str, Any]) -> Any:
    """Call a function with the result of `bind`: by keyword where possible, without defaults.

    Wrappers around `forward` often take keywords alone, and add some of their own.
    """
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    spread = any(p.kind is p.VAR_POSITIONAL and arguments[p.name] for p in parameters)
    for p in parameters:
        value = arguments[p.name]
        if p.kind is p.VAR_POSITIONAL:
            positional += value
        elif p.kind is p.VAR_KEYWORD:
            keywords |= value
        elif p.kind is p.POSITIONAL_ONLY or (p.kind is p.POSITIONAL_OR_KEYWORD and spread):
            positional.append(value)
        elif value is not p.default:
            keywords[p.name] = value
    return module(*positional, **keywords)


def flatten(value: Any) -> tuple[list[Any], pytree.TreeSpec]:
    """Leaves and containers of a value.

    Classes that torch has not registered as containers but that hold tensors (a transformers Cache, a plain
    dataclass) are registered, and their objects flattened attribute by attribute.
    """
    leaves, spec = pytree.tree_flatten(value)
    unknown = {type(x) for x in leaves if _holds_tensors(x)}
    if not unknown:
        return leaves, spec
    for cls in unknown:
        _register(cls)
    return flatten(value)


def names(tree: Tree) -> list[str]:
    """A dotted name for each slot of a tree, in slot order: `past.layers.0.keys`."""
    paths = _paths(pytree.tree_unflatten(list(range(len(tree.leaves))), tree.spec))
    named = {leaf: ".".join(_key(k) for k in path) for path, leaf in paths}
    slots = {x.index: named[i] for i, x in enumerate(tree.leaves) if isinstance(x, Slot)}
    return [slots[i] for i in sorted(slots)]


def _paths(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Key paths and leaves; torch's tree_flatten_with_path fails for classes registered without keys."""
    container = pytree.SUPPORTED_NODES.get(pytree._get_node_type(value))
    if container is None:
        yield (), value
        return
    children, context = container.flatten_fn(value)
    keys = context if isinstance(context, list) and len(context) == len(children) else range(len(children))
    if container.flatten_with_keys_fn is not None:
        keys = [key for key, _ in container.flatten_with_keys_fn(value)[0]]
    for key, child in zip(keys, children, strict=True):
        yield from (((key, *rest), leaf) for rest, leaf in _paths(child))


def output_names(signature: Signature) -> list[str]:
    """A name for each tensor that a model returns: `logits`, or `output.1` where the containers give none."""
    return [name if name[:1].isalpha() else f"output.{name}".rstrip(".") for name in names(signature.returns)]


def _key(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _holds_tensors(value: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether an object of a class of the user or a library holds a tensor, at any depth."""
    ours = type(value).__module__.partition(".")[0] not in ("torch", "builtins") and hasattr(value, "__dict__")
    if not ours or isinstance(value, (torch.nn.Module, type)) or id(value) in seen:
        return False
    inside = pytree.tree_leaves(vars(value))
    return any(isinstance(x, torch.Tensor) or _holds_tensors(x, seen | {id(value)}) for x in inside)


_OPENED: set[type] = set()


def is_opened(cls: type) -> bool:
    """Whether objects of a class are flattened attribute by attribute."""
    return cls in _OPENED


def _register(cls: type) -> None:
    """Register a class with torch's pytrees as a container of its attributes."""
    _OPENED.add(cls)

    def opened(value: Any) -> tuple[list[Any], tuple[str, ...]]:
        return list(vars(value).values()), tuple(vars(value))

    def opened_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        return [(pytree.GetAttrKey(k), v) for k, v in vars(value).items()], tuple(vars(value))

    def closed(children: Any, keys: tuple[str, ...]) -> Any:
        value = object.__new__(cls)
        vars(value).update(zip(keys, children, strict=True))
        return value

    pytree.register_pytree_node(
        cls,
        opened,
        closed,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=opened_with_keys,
    )


def forward_parameters(model: torch.nn.Module) -> list[inspect.Parameter]:
    """The parameters of a model's `forward`, without `self`."""
    return list(inspect.signature(model.forward).parameters.values())
