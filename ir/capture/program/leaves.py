"""Weights, constants and states of an exported program."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from ir.analysis.borders import Namer
from ir.capture.holdable import not_carried
from ir.capture.paths import clean
from ir.capture.source_lines.where import where_of
from ir.errors import CaptureError
from ir.graph import Constant, Param, State, Value
from ir.objects.zeros import copied
from ir.sizes import TensorType

STATE_CHANGES = {"BUFFER_MUTATION", "PARAMETER_MUTATION"}  # by name: not every torch has the latter

Fqns: TypeAlias = tuple[str, ...]
"""All names of a tensor."""


@dataclass
class Leaves:
    """Finds the weights, constants and states of a program: one value for all names of a tensor."""

    program: ExportedProgram
    tied: Mapping[str, Fqns]
    trained: AbstractSet[str]  # names of parameters that take gradients
    namer: Namer
    found: dict[Fqns, Value] = field(default_factory=dict)

    def read(self, spec: InputSpec, node: fx.Node, tensor: TensorType) -> tuple[Value, bool]:
        """The value of a placeholder, and whether it takes gradients."""
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            raise CaptureError(_unknown(self.program, spec, node))
        fqn = clean(str(spec.target))
        fqns = self.tied.get(fqn, (fqn,))
        if fqns not in self.found:
            self.found[fqns] = self._new(spec, fqns, tensor)
        return self.found[fqns], not self.trained.isdisjoint(fqns)

    def attribute(self, node: fx.Node, value: torch.Tensor) -> Value:
        """The constant for a tensor that the graph of `node` holds."""
        fqns: Fqns = (clean(str(node.target)),)
        if node.graph.owning_module is not self.program.graph_module:  # each body has numbers of its own
            stem = fqns[0].rstrip("0123456789")
            fqns = next((name,) for n in count() if (name := f"{stem}{n}",) not in self.found)
        if fqns not in self.found:
            tensor = TensorType(tuple(value.shape), value.dtype)
            self.found[fqns] = Constant(self.namer(fqns[0]), tensor, fqns[0], value.detach().clone())
        return self.found[fqns]

    def values(self, cls: type) -> tuple[Any, ...]:
        """Those of a class, in order."""
        return tuple(leaf for leaf in self.found.values() if isinstance(leaf, cls))

    def state(self, fqn: str) -> State:
        """The state of that name."""
        state = next(value for fqns, value in self.found.items() if fqn in fqns)
        assert isinstance(state, State)
        return state

    def _new(self, spec: InputSpec, fqns: Fqns, tensor: TensorType) -> Value:
        name = self.namer(fqns[0])
        mutated = not self._mutated.isdisjoint(fqns)
        stored = spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and bool(spec.persistent))
        if stored and not mutated:
            buffer, frozen = spec.kind is InputKind.BUFFER, self.trained.isdisjoint(fqns)
            return Param(name, tensor, fqns, buffer=buffer, frozen=frozen and not buffer)
        if stored:
            return State(name, tensor, fqns)
        value: Any = self.program.constants[str(spec.target)]
        data = copied(value)
        return State(name, tensor, fqns, data) if mutated else Constant(name, tensor, fqns[0], data)

    @cached_property
    def _mutated(self) -> set[str]:
        outputs = self.program.graph_signature.output_specs
        return {clean(str(s.target)) for s in outputs if s.kind.name in STATE_CHANGES}


def _unknown(program: ExportedProgram, spec: InputSpec, node: fx.Node) -> str:
    """The message on what a program holds that is no tensor: by its place in the model, or where it is used."""
    held = program.constants.get(str(spec.target))
    kind = type(held).__name__ if held is not None else spec.kind.name.lower()
    user = next(iter(node.users), node)
    return not_carried(kind, where_of(user))
