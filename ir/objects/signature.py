"""Signatures of models: the nested containers of arguments and results (pytrees)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ir.objects.containers import flatten, key_paths


@dataclass(frozen=True)
class Slot:
    """A tensor of the program: the index of a graph's input or output."""

    index: int


@dataclass(frozen=True)
class FixedTensor:
    """An argument whose values are fixed, since they decide shapes: nested tuples of numbers."""

    values: Any
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> FixedTensor:
        return cls(_as_tuples(tensor.tolist()), tensor.dtype)

    def tensor(self) -> torch.Tensor:
        """A new tensor of these values; while a model is traced, a constant."""
        return torch.tensor(self.values, dtype=self.dtype)


def _as_tuples(values: Any) -> Any:
    return tuple(map(_as_tuples, values)) if isinstance(values, list) else values


@dataclass(frozen=True)
class Tree:
    """Nested containers whose leaves are Slots, sizes (sympy expressions), FixedTensors or fixed Python values."""

    spec: pytree.TreeSpec
    leaves: tuple[Any, ...]

    def fill(self, tensors: Sequence[Any]) -> Any:
        """The containers with `tensors` in the slots, by index."""

        def filled(leaf: Any) -> Any:
            match leaf:
                case Slot(index):
                    return tensors[index]
                case FixedTensor():
                    return leaf.tensor()
            return leaf

        return pytree.tree_unflatten(list(map(filled, self.leaves)), self.spec)

    @property
    def parts(self) -> list[Tree]:
        """The trees of the outermost container's children."""
        leaves = iter(self.leaves)
        return [Tree(child, tuple(islice(leaves, child.num_leaves))) for child in self.spec.children()]

    @property
    def has_slots(self) -> bool:
        """Whether there is a tensor in it."""
        return any(isinstance(leaf, Slot) for leaf in self.leaves)


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

    Wrappers around `forward` often take keywords alone, and add some of their own.  Hooks of a module are given what is
    passed by position alone, so the first arguments are where there are hooks.
    """
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    spread = any(p.kind is p.VAR_POSITIONAL and arguments[p.name] for p in parameters)
    hooked = bool(getattr(module, "_forward_pre_hooks", None) or getattr(module, "_forward_hooks", None))
    for p in parameters:
        value = arguments[p.name]
        hooked = hooked and value is not p.default
        if p.kind is p.VAR_POSITIONAL:
            positional += value
        elif p.kind is p.VAR_KEYWORD:
            keywords |= value
        elif p.kind is p.POSITIONAL_ONLY or (p.kind is p.POSITIONAL_OR_KEYWORD and (spread or hooked)):
            positional.append(value)
        elif value is not p.default:
            keywords[p.name] = value
    return module(*positional, **keywords)


def fixed_inputs(tree: Tree) -> dict[str, Any]:
    """The values of fixed inputs by dotted name, as nested lists."""
    leaves = zip(key_paths(tree.spec), tree.leaves, strict=True)
    return {_dotted(path): leaf.tensor().tolist() for path, leaf in leaves if isinstance(leaf, FixedTensor)}


def names(tree: Tree) -> list[str]:
    """A dotted name for each slot of a tree, in slot order: `past.layers.0.keys`."""
    return list(map(_dotted, slot_paths(tree)))


def _dotted(path: Sequence[tuple[Any, int]]) -> str:
    return ".".join(str(key) for key, _ in path)


def slot_paths(tree: Tree) -> list[tuple[tuple[Any, int], ...]]:
    """The path to each slot, in slot order: key and position in each container on the way."""
    slots = {x.index: path for path, x in zip(key_paths(tree.spec), tree.leaves, strict=True) if isinstance(x, Slot)}
    return [slots[i] for i in sorted(slots)]


def output_names(signature: Signature) -> list[str]:
    """A name for each tensor that a model returns: `logits`, or `output.1` where the containers give none."""
    return [name if name[:1].isalpha() else f"output.{name}".rstrip(".") for name in names(signature.returns)]


def forward_parameters(model: torch.nn.Module) -> list[inspect.Parameter]:
    """The parameters of a model's `forward`, without `self`."""
    return list(inspect.signature(model.forward).parameters.values())
