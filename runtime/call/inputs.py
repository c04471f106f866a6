"""The arguments of a call -> the tensors and sizes that stages take, checked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from runtime.call.counts import CountCheck, ProductCheck
from runtime.call.input_type import InputType
from runtime.call.layout import Layout
from runtime.call.places import PlacesCheck
from runtime.call.sizes import ObservedSize, SizeConstraints
from runtime.call.trees.tree import parse
from runtime.call.trees.tree_nodes import (
    Entries,
    Size,
    TensorSlot,
    TreeLeaf,
    TreeNode,
    describe_value,
    fixed_values,
    slots,
)
from runtime.engine.message import Values
from runtime.errors import InputError, ManifestError
from runtime.manifest.manifest import CallSignature, ProgramEntry


@dataclass(frozen=True)
class Inputs:
    """The parameters of the model, the trees and tensors in them, and the constraints on their sizes."""

    signature: inspect.Signature
    arguments: Mapping[str, TreeNode]  # parameter -> its tree
    types: tuple[InputType, ...]  # by slot
    sizes: SizeConstraints
    optional: frozenset[str]  # parameters that may be left out
    layouts: tuple[Layout, ...]  # by slot; none in a manifest that does not tell
    counts: tuple[CountCheck | ProductCheck | PlacesCheck, ...] = ()

    @classmethod
    def parse(cls, program: ProgramEntry) -> Inputs:
        """Raises ManifestError if signature, arguments and inputs contradict each other."""
        arguments = parse(program.signature.arguments, program.symbols, len(program.inputs))
        parameters = {parameter.name for parameter in program.signature.parameters}
        if not isinstance(arguments, Entries) or {name for name, _ in arguments.entries} != parameters:
            raise ManifestError("the manifest's arguments are not those of its parameters; compile the model again")
        if sorted(slots(arguments)) != list(range(len(program.inputs))):
            raise ManifestError("the manifest's arguments do not hold each of its inputs once; compile the model again")
        values = program.index_ranges
        types = tuple(InputType.parse(t, program.symbols, values.get(t.name)) for t in program.inputs)
        optional = frozenset(p.name for p in program.signature.parameters if p.optional)
        return cls(
            _python_signature(program.signature),
            dict(arguments.entries),
            types,
            SizeConstraints.parse(program),
            optional,
            tuple(map(Layout, program.layouts)),
            (*CountCheck.of_program(program), *ProductCheck.of_program(program), *PlacesCheck.of_program(program)),
        )

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Values:
        """The inputs of a call, in the manifest's order, and the value of every symbol.

        Raises InputError that names the argument, the expected type and the given one.
        """
        try:
            call = self.signature.bind_partial(*args, **kwargs)
        except TypeError as e:
            raise InputError(f"{e}; the model takes {self.signature}") from None
        call.apply_defaults()  # the empty *args and **kwargs
        leaves: list[TreeLeaf] = []
        for name, node in self.arguments.items():
            if name in call.arguments:
                leaves.extend(node.leaves(call.arguments[name], name))
            elif list(slots(node)):
                raise InputError(f"argument `{name}` is missing: expected {self._describe(node)}")
            elif name not in self.optional:
                fixed = describe_value(node.build((), {}))
                raise InputError(f"argument `{name}` was captured as {fixed}, which is not its default; pass it again")
        return self._check(leaves)

    def bind_named(self, tensors: Mapping[str, torch.Tensor], *, fixed_too: bool = False) -> Values:
        """The inputs of a call from tensors by their names in the manifest; fixed ones are needed if `fixed_too`.

        Raises InputError.
        """
        names, fixed = self._names, self._fixed
        for name in (*names, *(fixed if fixed_too else ())):
            if name not in tensors:
                raise InputError(f"input `{name}` is missing; the model takes {', '.join((*names, *fixed))}")
        for name, tensor in tensors.items():
            if name in fixed:
                list(fixed[name].leaves(tensor, name))
            elif name not in names:
                raise InputError(f"there is no input `{name}`; the model takes {', '.join((*names, *fixed))}")
        return self._check([TreeLeaf(name, TensorSlot(i), tensors[name]) for i, name in enumerate(names)])

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(type.name for type in self.types)

    @cached_property
    def _fixed(self) -> dict[str, TreeNode]:
        """Arguments of a fixed value, by their names."""
        return dict(pair for name, node in self.arguments.items() for pair in fixed_values(node, name))

    def laid_out(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The inputs of a call as they lay in memory in the example: copies of those that lie otherwise."""
        if not self.layouts:
            return tuple(tensors)
        return tuple(layout.bring(tensor) for layout, tensor in zip(self.layouts, tensors, strict=True))

    def least(self, sizes: Mapping[str, int]) -> Values:
        """Inputs of these sizes that hold zeros, or the least that an index may be.  Raises InputError.

        Sizes that are not named are those of the example.
        """
        whole = {name: symbol.example for name, symbol in self.sizes.symbols.items()} | dict(sizes)
        self.sizes.check(whole, "what is prepared")
        return Values(tuple(type.least(whole) for type in self.types), whole)

    def _check(self, leaves: Sequence[TreeLeaf]) -> Values:
        tensors: dict[int, torch.Tensor] = {}
        seen: list[ObservedSize] = []
        for leaf in leaves:
            match leaf.node:
                case TensorSlot(index):
                    self.types[index].check(leaf.value, leaf.name)
                    seen.extend(self.types[index].seen(leaf.value, leaf.name))
                    tensors[index] = leaf.value
                case Size(expression):
                    if type(leaf.value) is not int:
                        wanted = f"the integer {expression.text}"
                        raise InputError(f"argument `{leaf.name}`: expected {wanted}, got {describe_value(leaf.value)}")
                    seen.append(ObservedSize(leaf.name, None, expression, leaf.value))
        sizes = self.sizes.read(seen)
        for count in self.counts:
            count.check(tensors, sizes)
        return Values(tuple(tensors[i] for i in range(len(self.types))), sizes)

    def _describe(self, node: TreeNode) -> str:
        if isinstance(node, TensorSlot):
            return str(self.types[node.index])
        return f"{type(node).__name__.lower()} with " + ", ".join(str(self.types[i]) for i in slots(node))


def _python_signature(signature: CallSignature) -> inspect.Signature:
    """The signature without defaults: `Inputs.bind` checks which parameters may be left out."""
    try:
        return inspect.Signature(
            [inspect.Parameter(p.name, getattr(inspect.Parameter, p.kind)) for p in signature.parameters]
        )
    except (AttributeError, TypeError, ValueError) as e:
        raise ManifestError(f"the manifest's parameters are no signature ({e}); compile the model again") from e
