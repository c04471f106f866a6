"""Modules that are kept whole: each is recorded as one opaque operator that runs it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import sympy
import torch
from torch import nn

from ir.autocast import autocast_is_on
from ir.capture.export.example import Example
from ir.capture.fallbacks.made_up import holds_sorted
from ir.capture.fallbacks.probe import ChangesBuffer, fitted, probe
from ir.capture.sizes.dynamic import Marks
from ir.errors import CaptureError
from ir.objects.opaque import OPERATOR, Opaque, make_known
from ir.objects.recipe import recipe, recipe_of
from ir.objects.signature import Slot, Tree, flatten


class NotWhole(CaptureError):
    """A module cannot be kept whole; nor can those around it where `around`."""

    def __init__(self, path: str, reason: str, around: bool = False) -> None:
        super().__init__(f"{path} cannot be kept whole: {reason}")
        self.path = path
        self.around = around


@contextmanager
def kept_whole(example: Example, paths: Collection[str], known: list[Opaque]) -> Iterator[None]:
    """Record the modules at `paths` as one operator each inside the context; `known` collects them.

    Raises NotWhole, also from a module's call, for a module that cannot be rebuilt from the artifact.
    """
    modules = {path: example.model.get_submodule(path) for path in paths}
    for path, module in modules.items():
        if "forward" in vars(module):
            raise NotWhole(path, "its forward was replaced by another function")
    for path, module in modules.items():
        held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        vars(module)["forward"] = _Whole(path, module, held, example.marks, known)
    try:
        yield
    finally:
        for module in modules.values():
            del vars(module)["forward"]


_numbers = count()


@dataclass(eq=False)
class _Whole:
    """Replaces a module's `forward`: calls the operator in its place."""

    path: str
    module: nn.Module
    held: Mapping[str, torch.Tensor]  # its parameters and buffers, with values that an export replaces
    marks: Marks
    known: list[Opaque]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = flatten((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        sizes = [x for x in leaves if isinstance(x, torch.SymInt)]
        slots = {id(x): Slot(i) for i, x in enumerate([*tensors, *sizes])}
        arguments = Tree(spec, tuple(slots.get(id(x), x) for x in leaves))
        if any(isinstance(x, (torch.SymFloat, torch.SymBool)) for x in leaves):
            raise NotWhole(self.path, "it takes a number that depends on sizes")
        if autocast_is_on():
            raise NotWhole(self.path, "it is called under autocast, which stages run without")
        weights = dict(_tensors_of(self.module))
        opaque = next((o for o in self.known if o.path == self.path and o.arguments == arguments), None)
        if opaque is None:
            opaque = self._seen(arguments, tensors, sizes, tuple(weights))
            self.known.append(opaque)
        return opaque.returns.fill(OPERATOR(tensors, list(weights.values()), sizes, opaque.key))

    def _seen(
        self, arguments: Tree, tensors: Sequence[torch.Tensor], sizes: Sequence[Any], names: tuple[str, ...]
    ) -> Opaque:
        forward = vars(self.module).pop("forward")
        try:
            how = recipe(self.module, self.path)
            recipe_of(arguments, f"an argument of {self.path}")
            runs = probe(self.module, self.held, arguments, tensors, sizes, self.marks)
            inputs = [sympy.Symbol(f"d{i}", integer=True) for i in range(len(runs[0].sizes))]
            returns, results = _returns([run.results for run in runs]), fitted(runs, inputs)
        except CaptureError as e:
            way_out = "; pack with enforce_sorted=False: the number of sequences is then a size"
            reason = f"{e}{way_out if holds_sorted(arguments) else ''}"
            raise NotWhole(self.path, reason, around=isinstance(e, ChangesBuffer)) from e
        finally:
            vars(self.module)["forward"] = forward
        elements = sum(t.numel() for t in flatten(runs[0].results)[0] if isinstance(t, torch.Tensor))
        opaque = Opaque(
            key=f"{self.path}#{next(_numbers)}",
            path=self.path,
            module=self.module,
            recipe=how,
            arguments=arguments,
            returns=returns,
            weights=names,
            inputs=tuple(inputs),
            results=tuple(results),
            flops=runs[0].flops / max(elements, 1),
        )
        make_known(opaque)
        return opaque


def _tensors_of(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters, buffers and tensor attributes of a module, under all their names inside it."""
    plain = (
        (f"{path}.{name}" if path else name, value)
        for path, inner in module.named_modules()
        for name, value in vars(inner).items()
        if isinstance(value, torch.Tensor)
    )
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False), *plain]


def _returns(results: Sequence[Any]) -> Tree:
    """The containers of the results, equal in all runs, with a slot for each tensor.  Raises CaptureError."""
    trees = []
    for result in results:
        leaves, spec = flatten(result)
        slots = iter(range(len(leaves)))
        trees.append(Tree(spec, tuple(Slot(next(slots)) if isinstance(x, torch.Tensor) else x for x in leaves)))
    if any(tree != trees[0] for tree in trees):
        raise CaptureError("what it returns besides tensors depends on values or sizes; return numbers as tensors")
    return trees[0]
