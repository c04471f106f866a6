"""Modules that are kept whole, and the operator `stagecut::module` that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import sympy
import torch
from torch import nn
from torch.func import functional_call

from ir.objects.recipe import Recipe, recipe_of
from ir.objects.signature import Tree, flatten
from ir.sizes import TensorType


@dataclass(frozen=True, eq=False)
class Opaque:
    """A module that torch.export cannot take, as the model calls it.

    The slots of `arguments`, a pair of args and kwargs, are first the tensors and then the sizes; those of
    `returns` are the tensors.  The types of the results are over the symbols of `input_sizes`.
    """

    key: str
    path: str  # in the model: "model.layers.0.mlp.experts"
    module: nn.Module  # its parameters may be without memory
    recipe: Recipe  # of the module without its tensors
    arguments: Tree
    returns: Tree
    weights: tuple[str, ...]  # names of its tensors inside the module
    inputs: tuple[sympy.Symbol, ...]  # every size of every tensor argument in order, then the sizes
    results: tuple[TensorType, ...]
    flops: float  # for each element of its results, as measured

    @property
    def call(self) -> tuple[list[Recipe], dict[str, Recipe]]:
        """Recipes of the args and kwargs that the model passes, with Slots for tensors and sizes."""
        args, kwargs = self.arguments.parts
        place, names = f"an argument of {self.path}", kwargs.spec.context
        written = [recipe_of(part, place) for part in args.parts], [recipe_of(part, place) for part in kwargs.parts]
        return written[0], dict(zip(names, written[1], strict=True))

    def run(self, inputs: Sequence[Any], weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors that the module returns for tensor arguments and sizes."""
        args, kwargs = self.arguments.fill(inputs)
        plain = self.module.named_parameters(), self.module.named_buffers()
        known = {name for named in plain for name, _ in named}  # tied ones under their first name
        own = {name: tensor for name, tensor in zip(self.weights, weights, strict=True) if name in known}
        leaves = flatten(functional_call(self.module, own, args, kwargs))[0]
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def types(self, inputs: Sequence[torch.Tensor], sizes: Sequence[Any]) -> list[tuple[list[Any], torch.dtype]]:
        """Shape and dtype of each result; sizes may be symbolic."""
        known = [*(d for t in inputs for d in t.shape), *sizes]
        used = [[sympy.sympify(d) for d in t.shape] for t in self.results]
        values = dict(zip(self.inputs, known, strict=True))
        return [([_value(d, values) for d in dims], t.dtype) for dims, t in zip(used, self.results, strict=True)]


def _value(expr: Any, values: dict[sympy.Symbol, Any]) -> Any:
    """An expression made of sums and products, with symbolic sizes of torch in it."""
    if isinstance(expr, sympy.Symbol):
        return values[expr]
    if expr.is_Integer:
        return int(expr)
    first, *rest = (_value(arg, values) for arg in expr.args)
    for value in rest:
        first = first + value if isinstance(expr, sympy.Add) else first * value
    return first


_KNOWN: WeakValueDictionary[str, Opaque] = WeakValueDictionary()  # kept alive by the graphs that run them


def known(key: str) -> Opaque:
    """The module behind a key."""
    return _KNOWN[key]


def make_known(opaque: Opaque) -> None:
    """Register a module under its key, for the operator."""
    _KNOWN[opaque.key] = opaque


_LIBRARY = torch.library.Library("stagecut", "DEF")
_LIBRARY.define(
    "module(Tensor[] inputs, Tensor[] weights, SymInt[] sizes, str key) -> Tensor[]",
    tags=(torch.Tag.nondeterministic_seeded,),  # nobody knows what is inside, so no stage repeats it
)
OPERATOR = torch.ops.stagecut.module.default


@torch.library.impl(_LIBRARY, "module", "CompositeExplicitAutograd")
def _run(inputs: list[torch.Tensor], weights: list[torch.Tensor], sizes: list[int], key: str) -> list[torch.Tensor]:
    return _KNOWN[key].run([*inputs, *sizes], weights)


@torch.library.register_fake("stagecut::module", lib=_LIBRARY)
def _type(inputs: list[torch.Tensor], weights: list[torch.Tensor], sizes: list[Any], key: str) -> list[torch.Tensor]:
    return [torch.empty(shape, dtype=dtype) for shape, dtype in _KNOWN[key].types(inputs, sizes)]
